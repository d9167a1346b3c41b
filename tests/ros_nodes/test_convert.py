"""Messages carry the state by name: no order of joints changes it."""

from __future__ import annotations

from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

pytest.importorskip("sensor_msgs")

from robopolicy.errors import BadInput
from ros_nodes.contract import Contract
from ros_nodes.convert import ns_to_stamp, to_message, to_quaternion, to_trajectory
from ros_nodes.parse import by_name, from_message, from_quaternion, from_trajectory, rgb, stamp_to_ns
from sim.tasks import LIFT

CONTRACT = Contract.load("panda_sim")
JOINTS, POINT, POSE = CONTRACT.streams
FRAME = CONTRACT.frame
STAMP = 1_234_567_890_123_456_789

pytestmark = pytest.mark.ros
unit = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)


def _state(quaternion) -> dict[str, float]:
    state = {e: 0.01 * i for i, e in enumerate(LIFT.state_names)}
    q = np.array(quaternion) / np.linalg.norm(quaternion)
    return state | {f"cube_rot.{i}": x for i, x in enumerate(from_quaternion(q).tolist())}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(unit)
def test_state_through_messages_comes_back(quaternion):
    state, back = _state(quaternion), {}
    for stream in CONTRACT.streams:
        message = to_message(stream, state, STAMP, FRAME)
        assert stamp_to_ns(message.header.stamp) == STAMP
        back |= from_message(stream, message, FRAME)
    assert back.keys() == state.keys()
    for name, value in state.items():
        assert back[name] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=200, deadline=None, derandomize=True)
@given(unit)
def test_quaternion_to_rotation_and_back_is_the_same_up_to_sign(quaternion):
    q = np.array(quaternion) / np.linalg.norm(quaternion)
    back = to_quaternion(from_quaternion(q))
    assert abs(back @ q) == pytest.approx(1.0, abs=1e-12)
    assert back[3] >= 0
    assert np.allclose(from_quaternion(back), from_quaternion(q), atol=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.permutations([0, 1, 2, 3]))
def test_joint_states_permuted_with_strangers_give_the_same_state(order):
    state = _state([0, 0, 0, 1])
    message = to_message(JOINTS, state, STAMP, FRAME)
    names, values = [*message.name, "stranger"], [*message.position, 9.0]
    message.name, message.position = [names[i] for i in order], [values[i] for i in order]
    assert from_message(JOINTS, message, FRAME) == {j.element: state[j.element] for j in JOINTS.joints}


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["panda_finger_joint1"], [0.0]),
        (["panda_finger_joint1"] * 3, [0.0] * 3),
        (["panda_finger_joint1", "panda_finger_joint2", "panda_gripper_command"], [0.0] * 2),
    ],
)
def test_joint_states_missing_or_doubled_refused(names, values):
    message = to_message(JOINTS, _state([0, 0, 0, 1]), STAMP, FRAME)
    message.name, message.position = names, values
    with pytest.raises(BadInput, match="joint_states"):
        from_message(JOINTS, message, FRAME)


@pytest.mark.parametrize("stream", [POINT, POSE])
def test_point_in_another_frame_refused(stream):
    message = to_message(stream, _state([0, 0, 0, 1]), STAMP, "camera_optical")
    with pytest.raises(BadInput, match="frame_id"):
        from_message(stream, message, FRAME)


def test_pose_without_orientation_refused():
    message = to_message(POSE, _state([0, 0, 0, 1]), STAMP, FRAME)
    message.pose.orientation.w = 0.0
    with pytest.raises(BadInput, match="orientation"):
        from_message(POSE, message, FRAME)


@pytest.mark.parametrize("length", [0, 1, 8])
def test_trajectory_round_trips(length):
    actions = np.arange(4.0 * length).reshape(length, 4)
    message = to_trajectory(LIFT.action_names, actions, STAMP, FRAME, 0.05)
    assert np.array_equal(from_trajectory(message, FRAME), actions)
    times = [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points]
    assert np.allclose(times, 0.05 * np.arange(1, length + 1))


def test_trajectory_malformed_refused():
    spoil = {
        "frame": lambda m: setattr(m.header, "frame_id", "tool0"),
        "time": lambda m: setattr(m.points[1].time_from_start, "nanosec", 1),
        "zero": lambda m: setattr(m.points[0].time_from_start, "nanosec", 0),
        "short": lambda m: setattr(m.points[0], "positions", [0.0] * 3),
        "velocity": lambda m: setattr(m.points[0], "velocities", [0.0] * 4),
    }
    for change in spoil.values():
        message = to_trajectory(LIFT.action_names, np.zeros((2, 4)), STAMP, FRAME, 0.05)
        change(message)
        with pytest.raises(BadInput):
            from_trajectory(message, FRAME)


def test_by_name_reorders_or_refuses():
    assert by_name(["b", "a"], ["a", "b"], np.array([2.0, 1.0])).tolist() == [1.0, 2.0]
    with pytest.raises(BadInput):
        by_name(["b", "b"], ["a", "b"], np.array([2.0, 1.0]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"height": 3}, "image size"),
        ({"encoding": "mono8"}, "image encoding"),
        ({"step": 5}, "image data"),
        ({"data": b"short"}, "image data"),
    ],
)
def test_picture_that_is_not_what_it_says_is_refused_by_topic(change, named):
    good = {"height": 2, "width": 2, "encoding": "rgb8", "step": 6, "data": bytes(range(12))}
    assert rgb("image", SimpleNamespace(**good), 2, 2).ravel().tolist() == list(range(12))
    with pytest.raises(BadInput, match=named):
        rgb("image", SimpleNamespace(**good | change), 2, 2)


def test_picture_with_padded_rows_or_colours_the_other_way_round_is_the_same():
    padded = {"height": 2, "width": 1, "encoding": "bgr8", "step": 4, "data": bytes([3, 2, 1, 0, 6, 5, 4, 0])}
    assert rgb("image", SimpleNamespace(**padded), 2, 1).tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


def test_stamp_round_trips():
    assert stamp_to_ns(ns_to_stamp(STAMP)) == STAMP
