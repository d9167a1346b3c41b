"""`ros2 launch ros_nodes deploy.launch.py policy:=DIR`: the processes of `robopolicy deploy`.

The arm is simulated, if its contract says how; a mock of it (mock:=true); or real, its drivers running
already. Nothing moves until someone calls arm/reset, policy/reset and gate/engage (ros_nodes/README.md).
Every process is `python -m MODULE` of the Python that runs launch, so no colcon build is needed; if one of
them ends, all are stopped.
"""

import os
import sys
import tempfile

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, OpaqueFunction
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ARGUMENTS = {
    "policy": (None, "saved policy"),
    "steerer": ("", "saved steerer of that policy; empty for the plain policy"),
    "foresight": ("", "saved world model by which plans begin where the robot will be; empty for none"),
    "robot": ("panda_sim", "path or name of a robot contract"),
    "lockstep": ("false", "simulated time waits for the policy"),
    "namespace": ("robopolicy", "namespace of the nodes"),
    "seed": ("0", "seed of the first episode"),
    "record": ("", "new folder for a log of all messages; empty for none"),
    "mock": ("false", "a mock of an arm that is driven by time, to rehearse with"),
    "shadow": ("false", "someone else drives: commands are published under shadow/, where nobody obeys"),
}
_SWITCHES = ("lockstep", "mock", "shadow")


def _setup(context):
    from ros_nodes.contract import Contract

    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    lockstep, mock, shadow = (values[name].lower() == "true" for name in _SWITCHES)
    folder = tempfile.mkdtemp(prefix="robopolicy-")
    plant, server = os.path.join(folder, "plant.sock"), os.path.join(folder, "server.sock")
    end = EmitEvent(event=Shutdown(reason="a process of the deployment ended"))

    serve = [sys.executable, "-m", "robopolicy.cli", "serve", "--address", server]
    for name in ("policy", "steerer", "foresight"):
        serve += [f"--{name}", values[name]] if values[name] else []
    actions = [ExecuteProcess(cmd=serve, name="server", output="screen", on_exit=[end])]

    common = {"contract": values["robot"], "lockstep": lockstep, "shadow": shadow}
    seed = {"seed": int(values["seed"])}
    nodes = {"recorder": {"out": values["record"]}} if values["record"] else {}
    nodes |= {"gate": {}, "policy": {"server": server, **seed}}
    simulation = Contract.load(values["robot"]).simulation
    if simulation is not None:
        run = [sys.executable, "-m", "sim.plant", "--task", simulation.task, "--address", plant]
        run += ["--timeout", str(simulation.timeout_s), *(["--lockstep"] if lockstep else [])]
        actions.append(ExecuteProcess(cmd=run, name="plant", output="screen", on_exit=[end]))
        nodes["arm"] = {"plant": plant, **seed}
    elif mock:
        nodes["mock_arm"] = seed
    for name, own in nodes.items():
        actions.append(
            Node(
                executable=sys.executable,
                arguments=["-m", f"ros_nodes.{name}_node"],
                name=name.removeprefix("mock_"),
                namespace=values["namespace"],
                parameters=[{**common, **own}],
                output="screen",
                on_exit=[end],
            )
        )
    return actions


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_setup)])
