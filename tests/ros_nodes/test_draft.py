"""A drafted contract fits its Spec, and allows what was demonstrated and little more."""

import dataclasses

import numpy as np
import pytest
from tiny import random_episodes, tiny_spec, write_dataset

from robopolicy.cli import main
from robopolicy.errors import BadInput
from robopolicy.seeding import stream
from robopolicy.spec import Field
from robopolicy.types import Episode
from ros_nodes.contract import Contract
from ros_nodes.draft import draft, draft_from_urdf
from sim.tasks import TASKS


def made_up(spec, count=5, length=40):
    """Episodes with numbers from the middle half of the Spec's ranges."""
    episodes = []
    for i in range(count):
        rng = stream(0, "draft", i)

        def numbers(bounds, rows, rng=rng):
            middle, half = bounds.mean(0), np.ptp(bounds, 0) / 4
            return (middle + rng.uniform(-half, half, (rows, len(half)))).astype(np.float32)

        states, actions = numbers(spec.state_range, length + 1), numbers(spec.action_range, length)
        none = np.zeros((0, spec.chunk, spec.action_dim), np.float32)
        rest = none, np.zeros(0, int), np.zeros(0, np.float32)
        episodes.append(Episode(i, states, actions, True, True, False, *rest))
    return episodes


def read(tmp_path, text):
    (tmp_path / "arm.yaml").write_text(text)
    return Contract.load(tmp_path / "arm.yaml")


@pytest.mark.parametrize("task", [t for t in TASKS if not t.startswith("cue-m")])
def test_draft_fits_the_spec_of_every_task(tmp_path, task):
    spec = TASKS[task].spec
    contract = read(tmp_path, draft(spec, made_up(spec)))
    contract.check_spec(spec)
    assert set(contract.elements) == set(spec.state_names)
    assert contract.fps == spec.fps


def test_draft_gives_what_an_eye_sees_a_topic_of_its_own(tmp_path):
    points = Field("scene_points", 4, "1", -1.0, 1.0)
    spec = dataclasses.replace(TASKS["lift"].spec, objects=(points,))
    streams = {s.topic: set(s.units) for s in read(tmp_path, draft(spec, made_up(spec))).streams}
    assert streams["eye"] == set(points.names)
    assert not streams["joint_states"] & streams["eye"]


def test_draft_allows_what_was_demonstrated_and_little_more(tmp_path):
    spec = TASKS["lift"].spec
    episodes = made_up(spec)
    limits = read(tmp_path, draft(spec, episodes)).limits
    commands = np.concatenate([e.actions for e in episodes])
    kept = (commands >= limits.low - 1e-6) & (commands <= limits.high + 1e-6)
    assert kept.mean() >= 0.98
    assert (limits.high <= 0.55 * spec.action_range[1]).all()
    (moving,) = (f for f in spec.action if f.moves)
    went = np.concatenate([e.states[:, spec.slice_of(moving.moves)] for e in episodes])
    assert (limits.box_low < went.min(0)).all()
    assert (limits.box_high > went.max(0)).all()
    assert (limits.box_high - limits.box_low < 1.2 * np.ptp(went, 0)).all()


def test_draft_of_still_demonstrations_can_be_read(tmp_path):
    spec = tiny_spec()
    still = [dataclasses.replace(e, actions=np.zeros_like(e.actions)) for e in random_episodes(spec)]
    limits = read(tmp_path, draft(spec, still)).limits
    assert (limits.max_change > 0).all()
    assert not limits.hold.any()


def test_verb_writes_a_new_file_and_never_over_another(tmp_path, capsys):
    data = write_dataset(tmp_path / "set", tiny_spec(), random_episodes(tiny_spec()))
    line = f"contract --dataset {data} --out {tmp_path}/new/arm.yaml --frame base"
    assert main(line.split()) == 0
    text = (tmp_path / "new/arm.yaml").read_text()
    assert "12 episodes of push" in text
    assert Contract.load(tmp_path / "new/arm.yaml").frame == "base"
    assert main(line.split()) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "new/arm.yaml").read_text() == text


URDF = """<robot name="arm2">
  <link name="base"/><link name="upper"/><link name="lower"/><link name="tip"/>
  <link name="left"/><link name="right"/>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/>
    <limit lower="-1.0" upper="3.0" velocity="2.0" effort="10"/></joint>
  <joint name="wrist" type="continuous"><parent link="upper"/><child link="lower"/>
    <limit velocity="3.0" effort="10"/></joint>
  <joint name="flange" type="fixed"><parent link="lower"/><child link="tip"/></joint>
  <joint name="finger" type="prismatic"><parent link="tip"/><child link="left"/>
    <limit lower="0" upper="0.05" velocity="0.1" effort="10"/>
    <safety_controller soft_lower_limit="0.01" soft_upper_limit="0.04" k_velocity="1"/></joint>
  <joint name="other_finger" type="prismatic"><parent link="tip"/><child link="right"/>
    <mimic joint="finger"/><limit lower="0" upper="0.05" velocity="0.1" effort="10"/></joint>
  <transmission name="t"><joint name="shoulder"/></transmission>
</robot>"""


def test_draft_from_urdf_keeps_inside_what_the_urdf_allows(tmp_path):
    contract = read(tmp_path, draft_from_urdf(URDF, 20.0))
    bounds = contract.driven.drive.bounds
    assert (contract.robot, contract.frame, contract.fps) == ("arm2", "base", 20.0)
    assert contract.elements == ("shoulder", "wrist", "finger")
    assert contract.action_names == ("shoulder_target", "wrist_target", "finger_target")
    assert (bounds.low > [-1.0, -np.pi, 0.01]).all()
    assert (bounds.high < [3.0, np.pi, 0.04]).all()
    assert np.allclose(bounds.speed, [1.0, 1.5, 0.05])
    assert (bounds.acceleration > bounds.speed).all()
    assert (bounds.jerk > bounds.acceleration).all()
    contract.gate()


@pytest.mark.parametrize(
    ("was", "now", "named"),
    [
        ('velocity="2.0"', "", "shoulder"),
        ('velocity="2.0"', 'velocity="fast"', "shoulder.velocity"),
        ('upper="3.0"', 'upper="inf"', "shoulder.upper"),
        ('upper="3.0"', 'upper="-2.0"', "shoulder.limit"),
        ('<limit velocity="3.0" effort="10"/>', "", "wrist"),
        ('type="continuous"', 'type="floating"', "wrist.type"),
        ("</robot>", "", "XML"),
        ("<robot ", '<!DOCTYPE r [<!ENTITY a "b">]><robot ', "entities"),
        ('<link name="base"/>', '<link name="base"/><link name="world"/>', "one link"),
        ("<robot ", '<sdf/><robot ', "XML"),
        (
            '<link name="base"/>',
            '<x:macro xmlns:x="http://www.ros.org/wiki/xacro"/><link name="base"/>',
            "run xacro",
        ),
    ],
)  # fmt: skip
def test_draft_from_urdf_of_something_else_names_it(was, now, named):
    assert URDF.count(was) == 1
    with pytest.raises(BadInput, match=named):
        draft_from_urdf(URDF.replace(was, now), 20.0)


def test_contract_from_urdf_by_command_is_a_contract(tmp_path, capsys):
    (tmp_path / "arm.urdf").write_text(URDF)
    command = [
        "contract",
        "--urdf",
        str(tmp_path / "arm.urdf"),
        "--fps",
        "10",
        "--out",
        str(tmp_path / "a.yaml"),
    ]
    assert main(command) == 0
    assert Contract.load(tmp_path / "a.yaml").fps == 10
    assert main([*command[:-1], str(tmp_path / "b.yaml"), "--security", "ur5e"]) == 2
    assert "one of ('dataset', 'urdf', 'security', 'foxglove')" in capsys.readouterr().err
    assert not (tmp_path / "b.yaml").exists()
