"""The contract is read exactly or refused, and fits the policy's Spec or is refused."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import yaml

from robopolicy.errors import BadInput
from robopolicy.spec import Spec
from ros_nodes.contract import Contract, Simulation
from ros_nodes.safety import Mode, Reason
from sim.tasks import LIFT


@pytest.fixture
def data():
    from ros_nodes import contract

    return yaml.safe_load((contract._CONFIG / "panda_sim.yaml").read_text())


def _set(data: dict, path: str, value: object) -> dict:
    changed = copy.deepcopy(data)
    *way, last = path.split("/")
    node = changed
    for key in way:
        node = node[int(key) if key.isdigit() else key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return changed


def test_contract_shipped_fits_lift():
    contract = Contract.load("panda_sim")
    contract.check_spec(LIFT)
    assert set(contract.elements) == set(LIFT.state_names)
    assert contract.max_gap_s == pytest.approx(0.075)


def test_gate_in_lockstep_waits_for_processes_that_stand_still_for_a_while():
    """So that a busy machine changes when an episode ends, not how."""
    contract = Contract.load("panda_sim").lockstep()
    gate, point, wait = contract.gate(), np.array([0.0, 0.0, 1.0]), 0.8
    chunk = np.zeros((4, len(contract.action_names)))
    for number, now in enumerate(wait * np.arange(1, 6)):
        at = round(now * 1e9)
        gate.heartbeat(now, 1)
        assert gate.state(now, at, at, point, True) is Reason.NONE
        if number == 0:
            assert gate.engage(now) is Reason.NONE
        if gate.tick(now).request is not None:
            assert gate.chunk(now, at, at, contract.action_names, chunk) is Reason.NONE
            assert not gate.tick(now).hold
        assert gate.mode is (Mode.RUNNING if number else Mode.ARMED)
    assert gate.held == 0


@pytest.mark.parametrize("wait", [0.02, 2.0])
def test_contract_lockstep_only_lengthens_deadlines(wait):
    contract = Contract.load("panda_sim")
    contract = dataclasses.replace(contract, simulation=Simulation("lift", wait))
    longer = contract.lockstep()
    for f in dataclasses.fields(contract.timing):
        assert getattr(longer.timing, f.name) >= getattr(contract.timing, f.name)
    assert longer.max_gap_s is None
    with pytest.raises(BadInput, match="lockstep"):
        dataclasses.replace(contract, simulation=None).lockstep()


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("robot", None, "contract"),
        ("extra", 1, "contract"),
        ("fps", "fast", "fps"),
        ("fps", float("nan"), "fps"),
        ("fps", True, "fps"),
        ("state", [], "state"),
        ("state/0/type", "sensor_msgs/Image", "state"),
        ("state/0/joints", {}, "joints"),
        ("state/0/joints/panda_finger_joint1/unit", None, "panda_finger_joint1"),
        ("state/1/position", ["eef_x", "eef_y"], "position"),
        ("state/1/position", ["eef_x", "eef_y", "eef_x"], "position"),
        ("state/1/rotation", ["a", "b", "c", "d", "e", "f"], "state"),
        ("state/1/topic", "joint_states", "topics"),
        ("state/1/position", ["cube_x", "eef_y", "eef_z"], "elements"),
        ("action/dx/low", None, "action.dx"),
        ("action/dx/low", 0.2, "limits"),
        ("action/dx/max_change", 0.0, "limits"),
        ("action/dx/hold", 0.01, "limits"),
        ("action/dx/high", float("inf"), "action.dx.high"),
        ("workspace/low", [0.0, 0.0, 2.0], "limits"),
        ("workspace/low", [0.0, 0.0], "box_low"),
        ("workspace/point", ["eef_x", "eef_y", "nose"], "workspace.point"),
        ("workspace/moved_by", ["dx", "dy", "yaw"], "workspace.moved_by"),
        ("timing/hold_after_s", None, "timing"),
        ("timing/hold_after_s", -1.0, "timing.hold_after_s"),
        ("timing/wait_s", 1.0, "timing"),
        ("simulation/timeout_s", 0.0, "timeout_s"),
    ],
)
def test_contract_one_thing_wrong_refused_naming_it(data, path, value, field):
    with pytest.raises(BadInput, match=field):
        Contract.from_dict(_set(data, path, value))


@pytest.mark.parametrize("data", [None, [], "panda", {1: 2}])
def test_contract_not_a_mapping_refused(data):
    with pytest.raises(BadInput, match="contract"):
        Contract.from_dict(data)


def _renamed(spec: Spec, group: str, **changes: object) -> Spec:
    fields = list(getattr(spec, group))
    fields[0] = dataclasses.replace(fields[0], **changes)
    return dataclasses.replace(spec, **{group: tuple(fields)})


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (dataclasses.replace(LIFT, robot="ur5e"), "robot"),
        (dataclasses.replace(LIFT, fps=10), "fps"),
        (dataclasses.replace(LIFT, objects=LIFT.objects[:1]), "state"),
        (_renamed(LIFT, "proprio", elements=("x", "y", "z")), "state"),
        (_renamed(LIFT, "proprio", unit="mm"), "state"),
        (_renamed(LIFT, "action", elements=("x", "y", "z")), "action"),
        (_renamed(LIFT, "action", unit="mm"), "action"),
        (_renamed(LIFT, "action", low=-0.01, high=0.01), r"action\.dx"),
    ],
)
def test_contract_spec_of_another_robot_refused(spec, field):
    with pytest.raises(BadInput, match=field):
        Contract.load("panda_sim").check_spec(spec)


def test_contract_spec_in_another_order_is_the_same():
    contract = Contract.load("panda_sim")
    contract.check_spec(dataclasses.replace(LIFT, proprio=LIFT.proprio[::-1], action=LIFT.action[::-1]))


@pytest.mark.parametrize("name", ["panda_sym", "/nowhere/robot.yaml"])
def test_contract_missing_file_refused_naming_the_shipped(name):
    with pytest.raises(BadInput, match="panda_sim"):
        Contract.load(name)


def test_contract_file_that_is_code_refused(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(BadInput, match="YAML"):
        Contract.load(path)


def test_limits_arrays_are_in_the_order_of_the_names():
    limits = Contract.load("panda_sim").limits
    assert limits.names == ("dx", "dy", "dz", "grip")
    assert np.array_equal(limits.high, [0.05, 0.05, 0.05, 1.0])
