"""What colcon and `ros2 launch` will read is complete and starts modules that exist."""

from __future__ import annotations

import importlib.util
import runpy
import sys
import types
import xml.etree.ElementTree as ET
from pathlib import Path

import ros_nodes

ROOT = Path(ros_nodes.__file__).parent


class _Record:
    """Stands for any action or substitution of launch: remembers what it was made of."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs

    def perform(self, context):
        return context[self.args[0]]


def _stub(monkeypatch) -> None:
    names = {
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "EmitEvent", "ExecuteProcess", "OpaqueFunction"],
        "launch.events": ["Shutdown"],
        "launch.substitutions": ["LaunchConfiguration"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
    }
    for module, classes in names.items():
        stub = types.ModuleType(module)
        for name in classes:
            setattr(stub, name, type(name, (_Record,), {}))
        monkeypatch.setitem(sys.modules, module, stub)


def _launched(monkeypatch, **own):
    """Actions of the launch file by the module that each starts."""
    _stub(monkeypatch)
    module = runpy.run_path(str(ROOT / "launch" / "deploy.launch.py"))
    (*arguments, setup) = module["generate_launch_description"]().args[0]
    values = {a.args[0]: a.kwargs["default_value"] for a in arguments} | {"policy": "DIR", "steerer": "S"}
    actions = setup.kwargs["function"](values | own)
    assert all(a.kwargs["on_exit"] for a in actions)
    found = {a.kwargs["cmd"][2] if "cmd" in a.kwargs else a.kwargs["arguments"][1]: a for a in actions}
    assert all(importlib.util.find_spec(n) for n in found)
    return found


SERVED = {"robopolicy.cli", "ros_nodes.gate_node", "ros_nodes.policy_node"}


def test_launch_file_starts_the_processes_of_deploy(monkeypatch):
    assert set(_launched(monkeypatch)) == SERVED | {"sim.plant", "ros_nodes.arm_node"}


def test_launch_file_of_a_real_arm_starts_no_arm(monkeypatch):
    found = _launched(monkeypatch, robot="ur5e", shadow="true", record="log")
    assert set(found) == SERVED | {"ros_nodes.recorder_node"}
    nodes = [a for n, a in found.items() if n.startswith("ros_nodes")]
    assert all(a.kwargs["parameters"][0]["shadow"] is True for a in nodes)
    assert found["ros_nodes.recorder_node"].kwargs["parameters"][0]["out"] == "log"


def test_launch_file_with_a_mock_calls_it_the_arm(monkeypatch):
    found = _launched(monkeypatch, robot="ur5e", mock="true")
    assert set(found) == SERVED | {"ros_nodes.mock_arm_node"}
    assert found["ros_nodes.mock_arm_node"].kwargs["name"] == "arm"


def test_package_files_that_setup_installs_exist(monkeypatch):
    calls = []
    monkeypatch.setattr("setuptools.setup", lambda **kwargs: calls.append(kwargs))
    runpy.run_path(str(ROOT / "setup.py"))
    (kwargs,) = calls
    for _, files in kwargs["data_files"]:
        assert all((ROOT / f).exists() for f in files)
    installed = {Path(f).name for _, files in kwargs["data_files"] for f in files}
    assert {p.name for p in (ROOT / "config").iterdir()} <= installed
    package = ET.parse(ROOT / "package.xml").getroot()
    assert package.findtext("name") == kwargs["name"] == ROOT.name
    assert package.findtext("version") == kwargs["version"]
    assert package.findtext("export/build_type") == "ament_python"
