"""An eye as a sensor: what it sees is a state with the picture's stamp; what does not fit is not seen."""

from __future__ import annotations

import threading
import time
from array import array

import numpy as np
import pytest
import yaml

rclpy = pytest.importorskip("rclpy")

from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402

from robopolicy.nets.eye import EYE_PRESETS, Eye  # noqa: E402
from robopolicy.serve import eye_handlers  # noqa: E402
from robopolicy.spec import Camera  # noqa: E402
from robopolicy.wire import Server  # noqa: E402
from ros_nodes.contract import contract_text  # noqa: E402
from ros_nodes.convert import ns_to_stamp  # noqa: E402
from ros_nodes.eye_node import EyeNode  # noqa: E402
from ros_nodes.parse import stamp_to_ns  # noqa: E402
from ros_nodes.running import SENSOR_QOS  # noqa: E402

pytestmark = pytest.mark.ros

CAMERA = Camera("scene", 16, 16)


@pytest.fixture
def eye():
    return Eye((CAMERA,), EYE_PRESETS["tiny"]).eval()


@pytest.fixture
def graph(graph, tmp_path, eye):
    with Server(str(tmp_path / "eye.sock"), lambda: eye_handlers(eye)):
        yield graph


def contract(eye, tmp_path, **camera):
    """The SO-101 with an eye."""
    data = yaml.safe_load(contract_text("so101"))
    names = [name for field in eye.fields for name in field.names]
    joints = {name: {"element": name, "unit": "1"} for name in names}
    data["state"].append({"topic": "eye", "type": "sensor_msgs/JointState", "joints": joints})
    scene = {"topic": "image", "type": "sensor_msgs/Image", "max_age_s": 0.2, **camera}
    data["cameras"] = {"scene": scene}
    (path := tmp_path / "arm.yaml").write_text(yaml.safe_dump(data))
    return path


def node(executor, path, tmp_path):
    made = EyeNode(threading.Event())
    given = {"contract": str(path), "server": str(tmp_path / "eye.sock")}
    made.set_parameters([Parameter(k, value=v) for k, v in given.items()])
    executor.add_node(made)
    return made


def image(pixels, encoding="rgb8"):
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=3 * width)
    message.data = array("B", pixels.tobytes())
    message.header.stamp = ns_to_stamp(1_234_567_890)
    return message


def test_eye_publishes_what_it_sees_with_the_stamp_of_the_picture(graph, eye, tmp_path):
    seeing = node(graph, contract(eye, tmp_path), tmp_path)
    assert seeing.start(), seeing.problem
    other = rclpy.create_node("other")
    graph.add_node(other)
    heard: list[JointState] = []
    other.create_subscription(JointState, "eye", heard.append, SENSOR_QOS)
    camera = other.create_publisher(Image, "image", SENSOR_QOS)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    until = time.monotonic() + 20
    while not heard and time.monotonic() < until:
        camera.publish(image(rng.integers(0, 256, (8, 8, 3), np.uint8)))  # of another size: not seen
        camera.publish(image(pixels[..., ::-1], "bgr8"))
        graph.spin_once(timeout_sec=0.05)
    import torch

    wanted = eye.see({"scene": torch.from_numpy(pixels)[None]})[0].numpy()
    assert stamp_to_ns(heard[0].header.stamp) == 1_234_567_890
    assert dict(zip(heard[0].name, heard[0].position, strict=True)) == pytest.approx(
        dict(zip(eye.fields[0].names, wanted.tolist(), strict=True))
    )
    seeing.finish()


@pytest.mark.parametrize("wrong", ["camera", "state"])
def test_contract_that_does_not_fit_the_eye_is_refused_by_name(graph, eye, tmp_path, wrong):
    path = contract(eye, tmp_path)
    data = yaml.safe_load(path.read_text())
    if wrong == "camera":
        data["cameras"] = {"wrist": data["cameras"]["scene"]}
    else:
        data["state"].pop()
    path.write_text(yaml.safe_dump(data))
    seeing = node(graph, path, tmp_path)
    assert not seeing.start()
    assert {"camera": "contract cameras", "state": "contract state"}[wrong] in seeing.problem
