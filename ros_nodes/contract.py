"""The robot contract: one YAML that says which topics carry which numbers, and what is allowed.

Read by every node before it does anything, and checked against the Spec of the policy before the arm can be
armed. Pure: no ROS, no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from robopolicy.errors import BadInput
from robopolicy.spec import Spec
from ros_nodes.fields import items, keys, names, number, numbers, text, unique
from ros_nodes.limits import Limits, Timing
from ros_nodes.observer import Observer, TimedObserver
from ros_nodes.outlets import PER_SI, Driven, read_driven
from ros_nodes.safety import Gate
from ros_nodes.stepped import SteppedGate
from ros_nodes.timed import TimedGate

_CONFIG = Path(__file__).parent / "config"
_TYPES = ("sensor_msgs/JointState", "geometry_msgs/PointStamped", "geometry_msgs/PoseStamped")
_KEYS = {"robot", "fps", "frame", "state", "action", "timing"}
_OPTIONAL = {"workspace", "simulation", "drive", "cameras"}
_PICTURES = ("sensor_msgs/Image", "sensor_msgs/CompressedImage")
_ROTATION_SIZE = 6
# Most actions in a chunk.
_MAX_CHUNK = 64


@dataclass(frozen=True)
class Joint:
    """One entry of a JointState: its ROS name, the element of the Spec it carries, the unit of that.

    ROS knows radians and metres only (REP 103); an element in degrees, say, is converted.
    """

    name: str
    element: str
    unit: str

    @property
    def per_si(self) -> float:
        """Units of the element per radian or metre."""
        return PER_SI.get(self.unit, 1.0)


@dataclass(frozen=True)
class Stream:
    """One topic that carries part of the state.

    Attributes:
        topic: relative name.
        type: one of JointState, PointStamped, PoseStamped.
        joints: entries of a JointState.
        position: elements for x, y, z in metres, for the other types.
        rotation: elements for the first two columns of the rotation matrix, for PoseStamped.
    """

    topic: str
    type: str
    joints: tuple[Joint, ...] = ()
    position: tuple[str, ...] = ()
    rotation: tuple[str, ...] = ()

    @property
    def units(self) -> dict[str, str]:
        """Unit by element name."""
        return {
            **{j.element: j.unit for j in self.joints},
            **dict.fromkeys(self.position, "m"),
            **dict.fromkeys(self.rotation, "1"),
        }


@dataclass(frozen=True)
class CameraStream:
    """A topic of pictures.

    Attributes:
        name: as in the Spec.
        topic: relative name.
        type: sensor_msgs/Image or sensor_msgs/CompressedImage.
        max_age_s: an older picture means HOLD.
    """

    name: str
    topic: str
    type: str
    max_age_s: float


@dataclass(frozen=True)
class Simulation:
    """How `sim.plant` plays this robot.

    Attributes:
        task: name of its task.
        timeout_s: in lockstep, how long simulated time waits for a command.
    """

    task: str
    timeout_s: float


@dataclass(frozen=True)
class Contract:
    """A robot, as the nodes see it.

    Attributes:
        robot: its name, the same as in the Spec.
        fps: control rate in Hz.
        frame: frame of all points, poses and displacements.
        streams: topics that together carry the whole state.
        limits: what one command may be, of an arm that is driven step by step on the topic `command`.
        driven: limits and topics of an arm that is driven by time; one of the two is None.
        action_units: unit by action name.
        guarded: state elements of the point that the workspace confines.
        timing: deadlines of the gate.
        max_gap_s: states further apart are not one history; None in lockstep, where time waits.
        simulation: for a simulated robot.
        cameras: without fresh pictures of which the arm is not moved.
    """

    robot: str
    fps: float
    frame: str
    streams: tuple[Stream, ...]
    limits: Limits | None
    driven: Driven | None
    action_units: Mapping[str, str]
    guarded: tuple[str, ...]
    timing: Timing
    max_gap_s: float | None
    simulation: Simulation | None
    cameras: tuple[CameraStream, ...] = ()

    @property
    def elements(self) -> tuple[str, ...]:
        """All state elements, in the order of the topics (not that of the Spec)."""
        return tuple(e for s in self.streams for e in s.units)

    @property
    def action_names(self) -> tuple[str, ...]:
        """All actions, in the order of the contract."""
        return tuple(self.action_units)

    @property
    def command_range(self) -> tuple[np.ndarray, np.ndarray]:
        """(A,) smallest and largest command, as it goes out."""
        if self.driven is not None:
            b = self.driven.drive.bounds
            return np.where(b.paced, -b.speed, b.low), np.where(b.paced, b.speed, b.high)
        assert self.limits is not None
        return self.limits.low, self.limits.high

    def check_spec(self, spec: Spec) -> None:
        """Refuses a Spec that this robot does not fulfil, naming the field that differs."""
        _same("robot", self.robot, spec.robot)
        _same("fps", float(self.fps), float(spec.fps))
        own = {e: u for s in self.streams for e, u in s.units.items()}
        _same("state", own, {n: f.unit for f in spec.state for n in f.names})
        _same("action", dict(self.action_units), {n: f.unit for f in spec.action for n in f.names})
        missing = {c.name for c in spec.cameras} - {c.name for c in self.cameras}
        if missing:
            raise BadInput("contract cameras", f"also {sorted(missing)}, which the policy sees", "none")
        if self.limits is None:
            return  # what an arm driven by time may do is its own affair: the gate keeps a policy to it
        order = [spec.action_names.index(n) for n in self.action_names]
        low, high = spec.action_range[0, order], spec.action_range[1, order]
        slack = 1e-6 * (high - low)
        outside = (self.limits.low < low - slack) | (self.limits.high > high + slack)
        for i in np.flatnonzero(outside):
            wanted = f"inside [{low[i]:g}, {high[i]:g}], the range of the policy"
            got = (float(self.limits.low[i]), float(self.limits.high[i]))
            raise BadInput(f"contract action.{self.action_names[i]}", wanted, got)

    def observer(self, elements: Sequence[str], steps: int = 1) -> Observer | TimedObserver:
        """Puts states (D,) together from the topics, `elements` in this order; T of them are a history."""
        if self.driven is None:
            return Observer(elements, steps, self.max_gap_s)
        streams = [tuple(s.units) for s in self.streams]
        return TimedObserver(elements, streams, steps, 1 / self.fps, self.timing.state_max_age_s)

    def gate(self, shadow: bool = False) -> Gate:
        """A new gate that keeps to this contract; in the shadow of someone else who drives, if that is so."""
        if self.driven is not None:
            return TimedGate(self.driven.drive, self.timing, _MAX_CHUNK, self._ages, shadow)
        if self.limits is None or shadow:
            raise BadInput("shadow", "an arm that is driven by time (the field drive)", self.robot)
        return SteppedGate(self.limits, self.timing, _MAX_CHUNK, self._ages)

    @property
    def _ages(self) -> dict[str, float]:
        return {c.name: c.max_age_s for c in self.cameras}

    def lockstep(self) -> Contract:
        """The same robot when its simulated time waits for commands: deadlines must not be shorter."""
        if self.simulation is None or self.limits is None:
            raise BadInput("lockstep", "a simulated robot that is driven step by step", self.robot)
        wait = self.simulation.timeout_s
        longer = {
            "state_max_age_s": 4 * wait,
            "chunk_max_age_s": 4 * wait,
            "chunk_life_s": 4 * wait,
            "hold_after_s": wait / 2,
            "heartbeat_max_age_s": wait,
            "tick_gap_s": wait,
            "fault_after_s": 4 * wait,
        }
        longer = {k: max(v, getattr(self.timing, k)) for k, v in longer.items()}
        timing = dataclasses.replace(self.timing, **longer)
        return dataclasses.replace(self, timing=timing, max_gap_s=None)

    @classmethod
    def load(cls, name: str | Path) -> Contract:
        """Reads a contract: a path, or the name of one that is shipped (such as "panda_sim").

        Raises:
            BadInput: naming the field at fault.
        """
        return cls.parse(contract_text(name), str(name))

    @classmethod
    def parse(cls, yaml_text: str, where: str) -> Contract:
        """A contract from the text of its file, of which a refusal says that it is `where`."""
        try:
            data = yaml.safe_load(yaml_text)
        except yaml.YAMLError as e:
            raise BadInput(where, "YAML", e) from e
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> Contract:
        """Builds a contract; unknown and missing keys are refused."""
        top = keys(data, "contract", _KEYS, _OPTIONAL)
        fps = number(top["fps"], "fps", 1.0, 1000.0)
        streams = tuple(_stream(s, f"state[{i}]") for i, s in enumerate(items(top["state"], "state")))
        elements = [e for s in streams for e in s.units]
        unique([s.topic for s in streams], "state topics")
        unique(elements, "state elements")
        frame, workspace, limits, driven = text(top["frame"], "frame"), top.get("workspace"), None, None
        if "drive" in top:
            of = {e: u for s in streams for e, u in s.units.items()}
            driven, units, guarded = read_driven(top["drive"], top["action"], workspace, of, fps, frame)
        else:
            limits, units, guarded = _limits(top["action"], workspace, elements)
        timing = keys(top["timing"], "timing", _timing_keys(True), _timing_keys(False) | {"max_gap_s"})
        gap = number(timing.pop("max_gap_s", 1.5 / fps), "timing.max_gap_s", 0.0, 60.0)
        return cls(
            robot=text(top["robot"], "robot"),
            fps=fps,
            frame=frame,
            streams=streams,
            limits=limits,
            driven=driven,
            action_units=units,
            guarded=guarded,
            timing=Timing(period_s=1 / fps, **timing),
            max_gap_s=gap,
            simulation=_simulation(top.get("simulation")),
            cameras=tuple(_camera(n, c) for n, c in keys(top.get("cameras", {}), "cameras").items()),
        )


def contract_text(name: str | Path) -> str:
    """The text of a contract: of a file, or of one that is shipped.

    Raises:
        BadInput: if there is none, or if it is not text.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = _CONFIG / f"{name}.yaml"
    if not path.is_file():
        shipped = sorted(p.stem for p in _CONFIG.glob("*.yaml"))
        raise BadInput("robot", f"a contract file or one of {shipped}", name)
    try:
        return path.read_text()
    except UnicodeDecodeError as e:
        raise BadInput(str(path), "YAML", e) from e


def _timing_keys(required: bool) -> set[str]:
    fields = (f for f in dataclasses.fields(Timing) if f.name != "period_s")
    return {f.name for f in fields if (f.default is dataclasses.MISSING) is required}


def _stream(data: object, where: str) -> Stream:
    kind = text(keys(data, where, {"topic", "type"}, {"joints", "position", "rotation"})["type"], where)
    if kind not in _TYPES:
        raise BadInput(f"{where}.type", f"one of {_TYPES}", kind)
    wanted = {"joints"} if kind == _TYPES[0] else {"position"}
    optional = {"rotation"} if kind == _TYPES[2] else set()
    own = keys(data, where, {"topic", "type"} | wanted, optional)
    topic = text(own["topic"], f"{where}.topic")
    if kind == _TYPES[0]:
        entries = keys(own["joints"], f"{where}.joints")
        joints = []
        for name, entry in entries.items():
            entry = keys(entry, f"{where}.joints.{name}", {"element", "unit"})
            joints.append(Joint(name, text(entry["element"], name), text(entry["unit"], name)))
        if not joints:
            raise BadInput(f"{where}.joints", "at least one joint", "none")
        return Stream(topic, kind, joints=tuple(joints))
    position = names(own["position"], f"{where}.position", 3)
    rotation = names(own["rotation"], f"{where}.rotation", _ROTATION_SIZE) if "rotation" in own else ()
    return Stream(topic, kind, position=position, rotation=rotation)


def _limits(
    action: object, workspace: object, elements: list[str]
) -> tuple[Limits, dict[str, str], tuple[str, ...]]:
    entries = keys(action, "action")
    columns = ("low", "high", "max_change", "hold")
    rows = {n: keys(e, f"action.{n}", {"unit", *columns}) for n, e in entries.items()}
    actions = tuple(rows)
    low, high, max_change, hold = (
        np.array([number(rows[n][k], f"action.{n}.{k}") for n in actions], np.float64) for k in columns
    )
    units = {n: text(rows[n]["unit"], f"action.{n}.unit") for n in actions}
    if workspace is None:
        return Limits(actions, low, high, max_change, hold), units, ()
    box = keys(workspace, "workspace", {"point", "moved_by", "low", "high"})
    point = names(box["point"], "workspace.point", 3)
    moved_by = names(box["moved_by"], "workspace.moved_by", 3)
    if not set(point) <= set(elements):
        raise BadInput("workspace.point", f"three of {elements}", point)
    if not set(moved_by) <= set(actions):
        raise BadInput("workspace.moved_by", f"three of {actions}", moved_by)
    box_low, box_high = (numbers(box[k], f"workspace.{k}") for k in ("low", "high"))
    indices = tuple(actions.index(n) for n in moved_by)
    return Limits(actions, low, high, max_change, hold, indices, box_low, box_high), units, point


def _camera(name: str, data: object) -> CameraStream:
    where = f"cameras.{name}"
    own = keys(data, where, {"topic", "type", "max_age_s"})
    kind = text(own["type"], f"{where}.type")
    if kind not in _PICTURES:
        raise BadInput(f"{where}.type", f"one of {_PICTURES}", kind)
    age = number(own["max_age_s"], f"{where}.max_age_s", 0.001, 10.0)
    return CameraStream(name, text(own["topic"], f"{where}.topic"), kind, age)


def _simulation(data: object) -> Simulation | None:
    if data is None:
        return None
    own = keys(data, "simulation", {"task", "timeout_s"})
    timeout = number(own["timeout_s"], "simulation.timeout_s", 0.01, 10.0)
    return Simulation(text(own["task"], "simulation.task"), timeout)


def _same(field: str, own: object, spec: object) -> None:
    if own != spec:
        raise BadInput(f"contract {field}", f"{spec} as in the policy's Spec", own)
