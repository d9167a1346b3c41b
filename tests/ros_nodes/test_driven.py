"""Contracts of arms that are driven by time: what they say, what is refused, what goes out."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import yaml

from robopolicy.errors import BadInput
from ros_nodes import parse
from ros_nodes.contract import _CONFIG, Contract
from ros_nodes.observer import TimedObserver

SHIPPED = ("panda_jtc", "ur5e", "servo", "so101")


def _data(name: str = "servo") -> dict:
    return yaml.safe_load((_CONFIG / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", SHIPPED)
def test_contract_shipped_leads_each_action_somewhere_and_stops_within_a_second(name):
    contract = Contract.load(name)
    assert contract.driven is not None
    b = contract.driven.drive.bounds
    assert b.names == contract.action_names
    # From full speed, reached with full acceleration: the bound of any stop.
    assert (b.speed / b.acceleration + b.acceleration / b.jerk < 1.0).all()
    assert isinstance(contract.observer(contract.elements), TimedObserver)
    with pytest.raises(BadInput, match="lockstep"):
        contract.lockstep()


def test_contract_displacements_become_velocities_and_degrees_radians():
    servo, so101 = Contract.load("servo").driven, Contract.load("so101").driven
    assert servo.drive.scale.tolist() == [20.0] * 6 + [1.0]
    assert servo.drive.bounds.paced.tolist() == [True] * 6 + [False]
    assert servo.measured == ("",) * 6 + ("gripper",)
    assert np.allclose(so101.drive.scale, np.pi / 180)
    assert np.allclose(so101.per_si, 180 / np.pi)


def test_contract_velocity_per_second_is_not_scaled():
    data = _data()
    data["action"]["droll"]["unit"] = "deg/s"
    driven = Contract.from_dict(data).driven
    assert np.isclose(driven.drive.scale[3], np.pi / 180)


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("drive.outlets", lambda d: d["drive"]["outlets"].pop()),
        ("drive.outlets", lambda d: d["drive"]["outlets"].append(copy.deepcopy(d["drive"]["outlets"][0]))),
        (r"drive.outlets\[0\].type", lambda d: d["drive"]["outlets"][0].update(type="std_msgs/Bool")),
        (r"drive.outlets\[0\].axes", lambda d: d["drive"]["outlets"][0]["axes"].update({"linear.w": "dx"})),
        (r"axes.linear.x", lambda d: d["drive"]["outlets"][0]["axes"].update({"linear.x": "nothing"})),
        ("drive.rate", lambda d: d["drive"].update(rate=0)),
        ("action.dx", lambda d: d["action"]["dx"].update(low=0.0)),
        ("action.dx.jerk", lambda d: d["action"]["dx"].update(jerk=float("nan"))),
        ("dx.speed", lambda d: d["action"]["dx"].update(speed=0)),
        ("measured", lambda d: d["action"]["gripper_target"].update(measured="nowhere")),
        ("gripper_target", lambda d: d["action"]["gripper_target"].update(low=1.0)),
        ("workspace.point", lambda d: d["workspace"].update(point=["x", "y", "w"])),
        ("workspace.moved_by", lambda d: d["workspace"].update(moved_by=["dx", "dy", "w"])),
        ("workspace.moved_by", lambda d: d["workspace"].update(moved_by=["dx", "dy", "gripper_target"])),
        ("workspace.low", lambda d: d["workspace"].update(low=[0.0, 1.0])),
        ("workspace", lambda d: d["workspace"].update(low=[9.0, 9.0, 9.0])),
    ],
)
def test_contract_driven_field_at_fault_is_named(where, change):
    data = _data()
    change(data)
    with pytest.raises(BadInput, match=where):
        Contract.from_dict(data)


def test_contract_workspace_without_moved_by_is_watched_only():
    data = _data()
    del data["workspace"]["moved_by"]
    drive = Contract.from_dict(data).driven.drive
    assert drive.moved_by == ()
    assert len(drive.box_low) == 3


def test_outlet_messages_carry_the_command_by_name():
    convert = pytest.importorskip("ros_nodes.convert")
    servo = Contract.load("servo").driven
    twist, grip = (convert.to_outlet(o, np.arange(7.0), 5, 0.01) for o in servo.outlets)
    assert (twist.twist.linear.y, twist.twist.angular.z) == (1.0, 5.0)
    assert twist.header.frame_id == "base_link"
    assert list(grip.data) == [6.0]
    arm, finger = Contract.load("panda_jtc").driven.outlets
    message = convert.to_outlet(arm, np.arange(8.0), 5, 0.01)
    assert message.joint_names[6] == "panda_joint7"
    assert message.points[0].positions[6] == 6.0
    assert message.points[0].time_from_start.nanosec == 10_000_000
    assert parse.stamp_to_ns(message.header.stamp) == 0
    assert convert.to_outlet(finger, np.arange(8.0), 5, 0.01).points[0].positions[0] == 7.0


@pytest.mark.parametrize("name", SHIPPED)
def test_outlet_message_there_and_back_is_the_command(name):
    convert = pytest.importorskip("ros_nodes.convert")
    driven = Contract.load(name).driven
    command = np.arange(float(len(driven.measured)))
    back = np.full_like(command, np.nan)
    for outlet in driven.outlets:
        message = convert.to_outlet(outlet, command, 7, 0.01)
        back[list(outlet.actions)] = parse.from_outlet(outlet, message)
    assert np.array_equal(back, command)


def test_outlet_message_of_another_arm_is_refused():
    convert = pytest.importorskip("ros_nodes.convert")
    twist, grip = Contract.load("servo").driven.outlets
    (arm,) = Contract.load("ur5e").driven.outlets
    message = convert.to_outlet(twist, np.zeros(7), 0, 0.01)
    message.header.frame_id = "elsewhere"
    with pytest.raises(BadInput, match="frame_id"):
        parse.from_outlet(twist, message)
    message = convert.to_outlet(grip, np.zeros(7), 0, 0.01)
    message.data = [1.0, 2.0]
    with pytest.raises(BadInput, match="data"):
        parse.from_outlet(grip, message)
    message = convert.to_outlet(arm, np.zeros(6), 0, 0.01)
    message.points = []
    with pytest.raises(BadInput, match="points"):
        parse.from_outlet(arm, message)


def test_state_in_degrees_goes_out_and_comes_back_in_radians():
    convert = pytest.importorskip("ros_nodes.convert")
    contract = Contract.load("so101")
    (stream,) = contract.streams
    state = {e: 10.0 * i for i, e in enumerate(contract.elements)}
    message = convert.to_message(stream, state, 0, "base_link")
    assert np.isclose(message.position[1], np.deg2rad(10.0))
    assert parse.from_message(stream, message, "base_link") == pytest.approx(state)
