"""What others' viewers show of a deployment: a layout for Foxglove, a recording for rerun.

Foxglove opens the log itself (MCAP), or the running graph over its bridge; rerun gets a recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.report.viewer import rerun_file
from ros_nodes.contract import Contract, Stream
from ros_nodes.gate_log import timeline
from ros_nodes.logs import Log, commanded, observed
from ros_nodes.outlets import ARRAY, TRAJECTORY, Outlet
from ros_nodes.parse import stamp_to_ns

_XYZ = "xyz"
_SEEN_S = 30.0


def foxglove_layout(contract: Contract, namespace: str = "robopolicy") -> dict[str, Any]:
    """A layout to import in Foxglove: commands, states, cameras, what the gate says of itself.

    Args:
        contract: of the robot.
        namespace: of the nodes.
    """
    space = f"/{namespace}/"
    outlets = contract.driven.outlets if contract.driven else [_stepped(contract)]
    panels: dict[str, Any] = {
        f"Plot!{o.topic}": _plot(o.topic, [space + p for p in _commanded(o)]) for o in outlets
    }
    panels |= {f"Plot!{s.topic}": _plot(s.topic, [space + p for p in _measured(s)]) for s in contract.streams}
    panels |= {f"Image!{c.name}": {"imageMode": {"imageTopic": space + c.topic}} for c in contract.cameras}
    mode = {"value": f"{space}gate/state.data", "timestampMethod": "receiveTime"}
    panels["StateTransitions!gate"] = {"paths": [mode], "isSynced": True}
    panels["DiagnosticSummary!all"] = {"minLevel": 0, "topicToRender": "/diagnostics"}
    panels["CallService!stop"] = {"serviceName": f"{space}gate/stop", "requestPayload": "{}"}
    return {"configById": panels, "globalVariables": {}, "userNodes": {}, "layout": _stacked(list(panels))}


def _stepped(contract: Contract) -> Outlet:
    names = contract.action_names
    return Outlet("command", TRAJECTORY, names, tuple(range(len(names))), contract.frame)


def _commanded(outlet: Outlet) -> list[str]:
    """Message paths of the numbers that an outlet carries, in its order."""
    if outlet.type == TRAJECTORY:
        return [f"{outlet.topic}.points[0].positions[{i}]" for i in range(len(outlet.names))]
    if outlet.type == ARRAY:
        return [f"{outlet.topic}.data[{i}]" for i in range(len(outlet.names))]
    return [f"{outlet.topic}.twist.{axis}" for axis in outlet.names]


def _measured(stream: Stream) -> list[str]:
    if stream.joints:
        return [f"{stream.topic}.position[{i}]" for i in range(len(stream.joints))]
    inside = "pose.position" if stream.type == "geometry_msgs/PoseStamped" else "point"
    return [f"{stream.topic}.{inside}.{axis}" for axis in _XYZ]


def _plot(title: str, paths: Sequence[str]) -> dict[str, Any]:
    lines = [{"value": p, "enabled": True, "timestampMethod": "receiveTime"} for p in paths]
    return {
        "title": title,
        "paths": lines,
        "isSynced": True,
        "xAxisVal": "timestamp",
        "followingViewWidth": _SEEN_S,
    }


def _stacked(panels: list[str]) -> Any:
    """A tree of halves, turned at each level."""
    if len(panels) == 1:
        return panels[0]
    half = len(panels) // 2
    parts = {"first": _stacked(panels[:half]), "second": _stacked(panels[half:])}
    return {**parts, "direction": "row" if len(panels) > 4 else "column", "splitPercentage": 50}


def rerun_recording(log: Log, path: Path) -> None:
    """Writes a log as a recording of rerun: commands with their limits, states, modes, how late chunks were.

    Args:
        log: of a deployment.
        path: a new file; by custom it ends in ".rrd".

    Raises:
        BadInput: if rerun is not there, or the file is.
    """
    contract, began = log.contract, log.messages[0][1]
    with rerun_file(path, f"{contract.robot}-{began}") as recording:
        import rerun as rr
        from rerun import blueprint as rrb

        def draw(entity: str, times: np.ndarray, values: np.ndarray) -> None:
            at = rr.TimeColumn("time", duration=(times - began) * 1e-9)
            recording.send_columns(entity, [at], rr.Scalars.columns(scalars=values))

        (times, commands), (stamps, states) = commanded(log), observed(log)
        ends = np.array([began, log.messages[-1][1]])
        for i, name in enumerate(contract.action_names):
            draw(f"command/{name}/told", times, commands[:, i])
            for line, edge in zip(("low", "high"), contract.command_range, strict=True):
                draw(f"command/{name}/{line}", ends, np.full(2, edge[i]))
        for i, element in enumerate(contract.elements):
            draw(f"state/{element}", stamps, states[:, i])
        changes, _ = timeline(bytes(m.data) for m in log.of("gate/events"))
        for at, mode, reason in changes:
            recording.set_time("time", duration=at - changes[0][0])
            level = {"FAULT": "ERROR", "HOLD": "WARN"}.get(mode, "INFO")
            recording.log("gate", rr.TextLog(f"{mode} {reason}".strip(), level=level))
        for topic, at, message in log.messages:
            if topic == "policy/chunk":
                recording.set_time("time", duration=(at - began) * 1e-9)
                late = (at - stamp_to_ns(message.header.stamp)) * 1e-6
                recording.log("chunk/late_ms", rr.Scalars(late))
        plots = [rrb.TimeSeriesView(origin=f"command/{n}", name=n) for n in contract.action_names]
        rest = [
            rrb.TimeSeriesView(origin="state"),
            rrb.TimeSeriesView(origin="chunk"),
            rrb.TextLogView(origin="gate"),
        ]
        recording.send_blueprint(rrb.Blueprint(rrb.Horizontal(rrb.Grid(*plots), rrb.Vertical(*rest))))
