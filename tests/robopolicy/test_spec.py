"""A Spec survives the disk, tells Specs apart, and refuses what it does not describe."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopolicy.errors import BadInput
from robopolicy.spec import Field, Spec
from sim.tasks import LIFT

number = st.floats(-100, 100, width=32)


@st.composite
def fields(draw, prefix):
    groups = []
    for i in range(draw(st.integers(1, 3))):
        low = draw(number)
        size, role = draw(st.integers(1, 4)), draw(st.sampled_from(["joint", "command", "other"]))
        groups.append(
            Field(f"{prefix}{i}", size, draw(st.sampled_from(["m", "rad", "1"])), low, low + 1, role)
        )
    return tuple(groups)


@st.composite
def specs(draw):
    size = st.integers(1, 20)
    own = {g: draw(fields(g)) for g in ("proprio", "objects", "action")}
    return Spec("r", "t", draw(st.floats(1, 100)), draw(size), draw(size), draw(size), **own)


@given(specs())
def test_round_trip_through_json(spec):
    again = Spec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.fingerprint == spec.fingerprint


def test_round_trip_through_the_disk(tmp_path):
    LIFT.save(tmp_path)
    assert Spec.load(tmp_path) == LIFT


@pytest.mark.parametrize(
    "change", [{"fps": 10.0}, {"chunk": 4}, {"robot": "ur5"}, {"action": LIFT.action[:1]}, {"horizon": 65}]
)
def test_every_change_changes_the_fingerprint_and_is_named(change):
    other = dataclasses.replace(LIFT, **change)
    assert other.fingerprint != LIFT.fingerprint
    with pytest.raises(BadInput, match=f"policy spec: wanted {next(iter(change))}="):
        LIFT.require(other, "policy")


def test_an_equal_spec_fits():
    LIFT.require(dataclasses.replace(LIFT), "policy")


@given(specs())
def test_names_ranges_and_slices_agree(spec):
    assert len(spec.state_names) == spec.state_dim == spec.state_range.shape[1]
    assert len(spec.action_names) == spec.action_dim == spec.action_range.shape[1]
    covered = [i for f in spec.state for i in range(spec.state_dim)[spec.slice_of(f.name)]]
    assert covered == list(range(spec.state_dim))


@given(st.integers(0, LIFT.state_dim - 1), st.sampled_from([np.nan, np.inf, -np.inf, 1e6]))
def test_the_element_at_fault_is_named(index, bad):
    state = LIFT.state_range.mean(0)
    assert LIFT.check_obs(state).dtype == np.float32
    state[index] = bad
    with pytest.raises(BadInput) as error:
        LIFT.check_obs(np.stack([LIFT.state_range.mean(0), state]))
    assert error.value.field == f"state.{LIFT.state_names[index]}"


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 5)), np.array(["a"] * 4), np.array(1.0)])
def test_a_wrong_shape_or_type_is_refused(bad):
    with pytest.raises(BadInput, match="action"):
        LIFT.check_action(bad)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size": 0}, "size"),
        ({"low": 2.0}, "x"),
        ({"high": float("nan")}, "x"),
        ({"role": "leg"}, "role"),
        ({"role": "point"}, "size"),
        ({"elements": ("a", "b", "c")}, "elements"),
    ],
)
def test_impossible_fields_are_refused(change, field):
    with pytest.raises(BadInput) as error:
        dataclasses.replace(Field("x", 2, "m", 0.0, 1.0), **change)
    assert field in error.value.field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"chunk": 0}, "spec.chunk"),
        ({"fps": float("inf")}, "spec.fps"),
        ({"action": ()}, "spec.action"),
        ({"objects": LIFT.proprio}, "spec"),
        ({"action": (Field("x", 3, "m", 0.0, 1.0, moves="nothing"),)}, "spec.x.moves"),
        ({"action": (Field("x", 2, "m", 0.0, 1.0, moves="eef_pos"),)}, "spec.x.moves"),
    ],
)
def test_impossible_specs_are_refused(change, field):
    with pytest.raises(BadInput) as error:
        dataclasses.replace(LIFT, **change)
    assert error.value.field == field


def test_unknown_and_missing_keys_are_refused():
    data = LIFT.to_dict()
    for wrong in ({**data, "extra": 1}, {k: v for k, v in data.items() if k != "fps"}):
        with pytest.raises(BadInput, match="keys"):
            Spec.from_dict(wrong)
    data["proprio"] = [{"name": "x"}]
    with pytest.raises(BadInput, match="spec field"):
        Spec.from_dict(data)


@pytest.mark.parametrize(
    "change",
    [{"proprio": 3}, {"chunk": "8"}, {"fps": None}, {"action": [["x"]]}, {"objects": [{"name": "x"}]}],
    ids=lambda c: next(iter(c)),
)
def test_a_value_of_the_wrong_type_is_refused(change, tmp_path):
    data = {**json.loads(json.dumps(LIFT.to_dict())), **change}
    with pytest.raises(BadInput, match="spec"):
        Spec.from_dict(data)
    (tmp_path / "spec.json").write_text(json.dumps(data))
    with pytest.raises(BadInput, match=r"spec\.json"):
        Spec.load(tmp_path)


@pytest.mark.parametrize("data", [None, [], ["robot"], "spec", 3])
def test_what_is_no_mapping_is_no_spec(data, tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps(data))
    with pytest.raises(BadInput, match=r"spec\.json"):
        Spec.load(tmp_path)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"spec\.json.*no such file"):
        Spec.load(tmp_path)
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(BadInput, match=r"spec\.json"):
        Spec.load(tmp_path)


def test_an_unknown_field_is_refused():
    with pytest.raises(BadInput, match="one of"):
        LIFT.slice_of("wheel")
