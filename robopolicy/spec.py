"""The Spec: the one thing that dataset, checkpoint, simulator and robot must agree on.

A Spec names every number of the state and of the action, with its unit and range. It is saved
beside each dataset and checkpoint; two artefacts fit together if their fingerprints are equal.
Pure numpy: the robot side reads it without torch.

Shape letters: N frames or environments, D state, A action, K chunk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robopolicy.errors import BadInput

Role = Literal["point", "joint", "rotation", "command", "other"]
_ROLES = ("point", "joint", "rotation", "command", "other")
# Types of what is no list, as annotated below.
_TYPES: dict[str, Any] = {"str": str, "Role": str, "int": int, "float": float | int}
SPEC_FILE = "spec.json"
_MOST_PIXELS = 8192
PICTURE = "_picture"  # ends the name of a field that is what a camera shows


@dataclass(frozen=True)
class Field:
    """A named group of numbers.

    Attributes:
        name: unique within its Spec.
        size: how many numbers.
        unit: SI unit ("m", "rad", "1").
        low: smallest valid value (same for every element of the field).
        high: largest valid value.
        role: what the numbers are, so that models can use geometry without knowing the task:
            "point" is a position of size 3 in the frame all points share; models may subtract points.
        elements: names of the single numbers; "name.0", "name.1", ... if empty.
        moves: of an action, the point that it displaces by so much in one step, if there is one.
        height: of a picture, (3, height, width) in one row, its rows of pixels; 0 for other numbers.
    """

    name: str
    size: int
    unit: str
    low: float
    high: float
    role: Role = "other"
    elements: tuple[str, ...] = ()
    moves: str = ""
    height: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise BadInput(f"field {self.name}.size", "a positive integer", self.size)
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise BadInput(f"field {self.name}", "finite low < high", (self.low, self.high))
        if self.role not in _ROLES:
            raise BadInput(f"field {self.name}.role", f"one of {_ROLES}", self.role)
        if self.role == "point" and self.size != 3:
            raise BadInput(f"field {self.name}.size", "3 for a point", self.size)
        if self.elements and len(self.elements) != self.size:
            raise BadInput(f"field {self.name}.elements", f"{self.size} names", self.elements)
        if self.height < 0 or (self.height and self.size % (3 * self.height)):
            wanted = f"a number of rows of three colours in {self.size} numbers"
            raise BadInput(f"field {self.name}.height", wanted, self.height)

    @property
    def names(self) -> tuple[str, ...]:
        return self.elements or tuple(f"{self.name}.{i}" for i in range(self.size))


@dataclass(frozen=True)
class Camera:
    """A camera whose pictures are recorded beside the state.

    Attributes:
        name: unique within its Spec; LeRobot calls its pictures `observation.images.NAME`.
        height: pixels.
        width: pixels.
    """

    name: str
    height: int
    width: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]{1,80}", self.name):
            raise BadInput("camera.name", "letters, digits and _", self.name)
        for side in ("height", "width"):
            pixels = getattr(self, side)
            if not 2 <= pixels <= _MOST_PIXELS or pixels % 2:
                wanted = f"an even number of pixels up to {_MOST_PIXELS}"  # videos halve the colours
                raise BadInput(f"camera {self.name}.{side}", wanted, pixels)


def picture_field(camera: Camera) -> Field:
    """What a camera shows as numbers from 0 to 1, (3, H, W) in one row."""
    size = 3 * camera.height * camera.width
    return Field(f"{camera.name}{PICTURE}", size, "1", 0.0, 1.0, height=camera.height)


@dataclass(frozen=True)
class Spec:
    """What a state and an action mean, for one robot and task.

    The state vector is `proprio` followed by `objects`; LeRobot calls them `observation.state` and
    `observation.environment_state`.

    Attributes:
        robot: robot name, such as "panda".
        task: task name, such as "lift".
        fps: control rate in Hz.
        chunk: actions per policy query, K.
        obs_steps: observations a policy sees, T (the newest last).
        horizon: steps per episode before it is truncated.
        proprio: what the robot measures of itself.
        objects: what is measured of the world.
        action: one command of the robot.
        cameras: whose pictures are recorded too.
    """

    robot: str
    task: str
    fps: float
    chunk: int
    obs_steps: int
    horizon: int
    proprio: tuple[Field, ...]
    objects: tuple[Field, ...]
    action: tuple[Field, ...]
    cameras: tuple[Camera, ...] = ()

    def __post_init__(self) -> None:
        for name in ("chunk", "obs_steps", "horizon"):
            if getattr(self, name) < 1:
                raise BadInput(f"spec.{name}", "a positive integer", getattr(self, name))
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise BadInput("spec.fps", "a positive rate in Hz", self.fps)
        for group in ("proprio", "action"):
            if not getattr(self, group):
                raise BadInput(f"spec.{group}", "at least one field", "none")
        shown = [bool(f.height) for f in self.state]
        if shown != sorted(shown):
            raise BadInput("spec", "pictures after all other numbers", [f.name for f in self.state])
        names = [f.name for f in self.state]
        if len(set(names)) != len(names):
            raise BadInput("spec", "unique field names", names)
        views = [c.name for c in self.cameras]
        if len(set(views)) != len(views):
            raise BadInput("spec.cameras", "unique names", views)
        points = [f.name for f in self.state if f.role == "point"]
        for f in self.action:
            if f.moves and (f.moves not in points or f.size != 3):
                raise BadInput(f"spec.{f.name}.moves", f"one of the points {points}, by 3 numbers", f.moves)

    @property
    def state(self) -> tuple[Field, ...]:
        return self.proprio + self.objects

    @property
    def state_dim(self) -> int:
        return sum(f.size for f in self.state)

    @property
    def proprio_dim(self) -> int:
        return sum(f.size for f in self.proprio)

    @property
    def pictures(self) -> tuple[Camera, ...]:
        """The cameras whose pictures are a part of the state, its last one."""
        return tuple(
            Camera(f.name.removesuffix(PICTURE), f.height, f.size // (3 * f.height))
            for f in self.objects
            if f.height
        )

    @property
    def numbers_dim(self) -> int:
        """How many numbers of the state come before its pictures."""
        return sum(f.size for f in self.state if not f.height)

    @property
    def action_dim(self) -> int:
        return sum(f.size for f in self.action)

    @cached_property
    def state_names(self) -> tuple[str, ...]:
        return tuple(n for f in self.state for n in f.names)

    @cached_property
    def action_names(self) -> tuple[str, ...]:
        return tuple(n for f in self.action for n in f.names)

    @cached_property
    def state_range(self) -> np.ndarray:
        """(2, D) smallest and largest valid state."""
        return _ranges(self.state)

    @cached_property
    def action_range(self) -> np.ndarray:
        """(2, A) smallest and largest valid action."""
        return _ranges(self.action)

    def slice_of(self, name: str) -> slice:
        """Where the field `name` lies in the state vector."""
        start = 0
        for f in self.state:
            if f.name == name:
                return slice(start, start + f.size)
            start += f.size
        raise BadInput("field", f"one of {[f.name for f in self.state]}", name)

    def check_obs(self, state: np.ndarray, where: str = "state") -> np.ndarray:
        """Returns `state` (..., D) as float32, or refuses it: shape, finiteness, range."""
        return _check(state, self.state_dim, self.state_range, self.state_names, where)

    def check_action(self, action: np.ndarray, where: str = "action") -> np.ndarray:
        """Returns `action` (..., A) as float32, or refuses it: shape, finiteness, range."""
        return _check(action, self.action_dim, self.action_range, self.action_names, where)

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON-able values; no word of cameras and pictures where there are none."""
        data = dataclasses.asdict(self)
        for group in ("proprio", "objects", "action"):
            data[group] = tuple({k: v for k, v in f.items() if v or k != "height"} for f in data[group])
        return data if self.cameras else {k: v for k, v in data.items() if k != "cameras"}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spec:
        """Rebuilds a Spec from `to_dict`; unknown or missing keys are refused."""
        wanted = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(data, Mapping) or {*data, "cameras"} != wanted:
            raise BadInput(
                "spec", f"the keys {sorted(wanted)}", list(data) if isinstance(data, Mapping) else data
            )
        try:
            _check_types(cls, data, "spec")
            groups = {g: tuple(_field(x) for x in data[g]) for g in ("proprio", "objects", "action")}
            cameras = tuple(_camera(c) for c in data.get("cameras", ()))
            return cls(**{**data, **groups, "cameras": cameras})
        except (TypeError, ValueError, AttributeError) as e:
            raise BadInput("spec", "fields of the right types", e) from e

    def save(self, folder: Path) -> None:
        (folder / SPEC_FILE).write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False))

    @classmethod
    def load(cls, folder: Path) -> Spec:
        path = folder / SPEC_FILE
        if not path.is_file():
            raise BadInput(str(path), "a Spec saved by robopolicy", "no such file")
        try:
            return cls.from_dict(json.loads(path.read_text()))
        except (ValueError, RecursionError, BadInput) as e:
            raise BadInput(str(path), "a valid Spec", e) from e

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest that changes when anything in the Spec does."""
        text = json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def require(self, other: Spec, what: str) -> None:
        """Refuses `what` if its Spec `other` differs from this one, naming each difference."""
        if other.fingerprint == self.fingerprint:
            return
        differing = list(_differences(self.to_dict(), other.to_dict()))
        wanted, got = (", ".join(f"{d[0]}={d[i]}" for d in differing) for i in (1, 2))
        raise BadInput(f"{what} spec", wanted, got)


def _field(data: Mapping[str, Any]) -> Field:
    wanted = {f.name for f in dataclasses.fields(Field)}
    if {*data, "height"} != wanted:
        raise BadInput("spec field", f"the keys {sorted(wanted)}", sorted(data))
    _check_types(Field, data, "spec field")
    return Field(**{**data, "elements": tuple(data["elements"])})


def _camera(data: Mapping[str, Any]) -> Camera:
    _check_types(Camera, data, "spec camera")
    return Camera(**data)


def _check_types(kind: type, data: Mapping[str, Any], where: str) -> None:
    """Refuses values that a Spec's file cannot hold there: Python itself would take them."""
    for f in dataclasses.fields(kind):
        if f.name not in data:
            continue
        value = data[f.name]
        if str(f.type).startswith("tuple"):
            fits = isinstance(value, list | tuple)
            fits = fits and ("str" not in str(f.type) or all(isinstance(x, str) for x in value))
        else:
            fits = isinstance(value, _TYPES[str(f.type)]) and not isinstance(value, bool)
        if not fits:
            raise BadInput(f"{where}.{f.name}", f"a value of type {f.type}", repr(value))


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of whatever differs; of fields with the same names, what of them does."""
    for key in {**mine, **theirs}:
        a, b = mine.get(key, ()), theirs.get(key, ())
        if a == b:
            continue
        if not isinstance(a, list | tuple) or _short(a) != _short(b):
            yield key, _short(a), _short(b)
            continue
        for x, y in zip(a, b, strict=True):
            yield from ((f"{key}.{x['name']}.{k}", x[k], y[k]) for k in x if x[k] != y.get(k))


def _ranges(fields: tuple[Field, ...]) -> np.ndarray:
    return np.array(
        [[f.low for f in fields for _ in range(f.size)], [f.high for f in fields for _ in range(f.size)]],
        dtype=np.float32,
    )


def _short(value: object) -> object:
    return [f["name"] for f in value] if isinstance(value, list | tuple) else value


def _check(x: np.ndarray, dim: int, bounds: np.ndarray, names: tuple[str, ...], where: str) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind not in "fiu" or x.ndim < 1 or x.shape[-1] != dim:
        raise BadInput(where, f"numbers of shape (..., {dim})", f"{x.dtype} of shape {x.shape}")
    x = x.astype(np.float32)
    flat = x.reshape(-1, dim)
    finite = np.isfinite(flat)
    if not finite.all():
        row, col = np.argwhere(~finite)[0]
        raise BadInput(f"{where}.{names[col]}", "a finite number", flat[row, col])
    slack = 1e-3 * (bounds[1] - bounds[0])
    outside = (flat < bounds[0] - slack) | (flat > bounds[1] + slack)
    if outside.any():
        row, col = np.argwhere(outside)[0]
        limits = f"a value in [{bounds[0, col]:g}, {bounds[1, col]:g}]"
        raise BadInput(f"{where}.{names[col]}", limits, float(flat[row, col]))
    return x
