"""What a run left on disk, checked and in one shape, whichever verbs wrote it.

A run is the folder of `robopolicy demo`, that of one evaluation, or a folder of stage folders. Only a
judgement is needed; what else is missing is noted, and left out of the page.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robopolicy.checkpoint import read_json
from robopolicy.errors import BadInput
from robopolicy.results import RESULT
from robopolicy.spec import SPEC_FILE, Spec

REAL, IMAGINED = "real", "imagined"
# A demo's own names for its two policies.
_PAIR = ("base", "steered")
_CURVES, _EPISODES = "curves.json", "episodes.json"
_PNG = b"\x89PNG\r\n\x1a\n"

Result = dict[str, Any]


class Judged(NamedTuple):
    """Success of one policy in one place; `rate`, `low` and `high` in [0, 1]."""

    label: str
    where: str
    successes: int
    episodes: int
    rate: float
    low: float
    high: float


class Difference(NamedTuple):
    """Second minus first on the same seeds; `fixed` and `broken` seeds are those that changed sides."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    fixed: int
    broken: int
    p_value: float


class Curve(NamedTuple):
    """One number over training; `low` and `high` are empty without an interval."""

    steps: list[float]
    values: list[float]
    low: list[float]
    high: list[float]


class Shown(NamedTuple):
    """An episode to look at; `frames` are PNG pictures in base64."""

    seed: int | None
    success: bool
    states: np.ndarray
    doubt: np.ndarray
    frames: list[str]


@dataclass
class Run:
    """Everything the page may show.

    Attributes:
        result: of the run, or of its last judgement; for what needs no checking.
        judged: real ones first.
        differences: paired, real.
        curves: "policy", "world", "steer"; each one or more lines.
        episodes: "base", "steered", "imagined", ...
        spec: of the states in `episodes`.
        notes: what is missing, and what would bring it.
    """

    result: Result
    judged: list[Judged]
    differences: list[Difference] = field(default_factory=list)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    episodes: dict[str, Shown] = field(default_factory=dict)
    spec: Spec | None = None
    notes: list[str] = field(default_factory=list)

    def rate(self, label: str, where: str) -> Judged | None:
        return next((j for j in self.judged if (j.label, j.where) == (label, where)), None)

    @property
    def labels(self) -> list[str]:
        """Policies in the order in which they were judged."""
        return list(dict.fromkeys(j.label for j in self.judged))


def gather(folder: Path) -> Run:
    """Reads a run.

    Raises:
        BadInput: if there is nothing to report, or a file that is there cannot be used.
    """
    if not folder.is_dir():
        raise BadInput("run", "a folder", f"{folder} (no such folder)")
    path = folder / RESULT
    whole = read_json(path) if path.is_file() else None
    if whole is not None and "base" in whole:
        run = _demo(path, whole)
    else:
        run = _stages(folder, {path: whole} if whole is not None else _results(folder))
    given = folder / _CURVES
    if given.is_file():
        rows = read_json(given)
        run.curves |= {k: _curves(f"{given}.{k}", v) for k, v in rows.items()}
    _episodes(folder / _EPISODES, run)
    _note_what_is_missing(run)
    return run


def _demo(path: Path, result: Result) -> Run:
    judged = [
        _judged(label, where, result[label][where], f"{path}.{label}.{where}")
        for where in (REAL, IMAGINED)
        for label in _PAIR
        if where in _object(f"{path}.{label}", result.get(label, {}))
    ]
    run = Run(result, judged)
    if "paired_difference" in result:
        where = f"{path}.paired_difference"
        pair = dict(zip(("first", "second"), _PAIR, strict=True))
        run.differences = [_difference({**pair, **_object(where, result["paired_difference"])}, where)]
    return run


def _results(folder: Path) -> dict[Path, Result]:
    return {path: read_json(path) for path in sorted(folder.glob(f"*/{RESULT}"))}


def _stages(folder: Path, results: Mapping[Path, Result]) -> Run:
    """A run from the results of single verbs; of several with the same verb the last by name counts."""
    by_verb = {str(r.get("verb")): (path, r) for path, r in results.items()}
    places = [(v, w) for v, w in (("evaluate", REAL), ("imagine", IMAGINED)) if v in by_verb]
    if not places:
        raise BadInput("run", "a folder with a demo, an evaluation or an imagined one", folder)
    run = Run({**by_verb[places[0][0]][1], **_together(results)}, [])
    for verb, where in places:
        path, result = by_verb[verb]
        for i, row in enumerate(_list(f"{path}.policies", result.get("policies"))):
            named = _object(f"{path}.policies.{i}", row)
            run.judged.append(_judged(str(named.get("label")), where, row, f"{path}.policies.{i}"))
        if where == REAL:
            pairs = _list(f"{path}.differences", result.get("differences"))
            run.differences = [_difference(d, f"{path}.differences.{i}") for i, d in enumerate(pairs)]
    for verb, name in (("train", "policy"), ("train-world", "world"), ("steer", "steer")):
        path, result = by_verb.get(verb, (folder, {}))
        found = result.get("curve")
        if "curves" in result:
            found = _object(f"{path}.curves", result["curves"]).get("members")
        if found:
            run.curves[name] = _curves(f"{path}.curve", found)
    return run


def _together(results: Mapping[Path, Result]) -> Result:
    """Settings of every stage, and what they cost together."""
    seconds: dict[str, float] = {}
    for path, result in results.items():
        if "wall_clock_s" in result:
            stage = str(result.get("verb")).replace("-", "_")
            spent = _number(f"{path}.wall_clock_s", result["wall_clock_s"])
            seconds[stage] = seconds.get(stage, 0.0) + spent
    memory = [
        _number(f"{p}.peak_memory_mb", r["peak_memory_mb"])
        for p, r in results.items()
        if "peak_memory_mb" in r
    ]
    config = {path.parent.name: result.get("config", {}) for path, result in results.items()}
    return {"config": config, "wall_clock_s": seconds} | ({"peak_memory_mb": max(memory)} if memory else {})


def _curves(where: str, rows: Any) -> list[Curve]:
    """One line from a list of rows, several from a list of such lists."""
    lines = _list(where, rows)
    if lines and isinstance(lines[0], Mapping):
        lines = [lines]
    return [_curve(f"{where}.{i}", line) for i, line in enumerate(lines) if line]


def _curve(where: str, line: Any) -> Curve:
    rows = [_object(f"{where}.{i}", row) for i, row in enumerate(_list(where, line))]
    name = "rate" if "rate" in rows[0] else "loss"
    steps, values = ([_number(f"{where}.{k}", row.get(k)) for row in rows] for k in ("step", name))
    low, high = ([_number(f"{where}.{k}", row[k]) for row in rows if k in row] for k in ("low", "high"))
    if not len(low) == len(high) in (0, len(rows)):
        raise BadInput(where, "low and high in every row, or in none", f"in {len(low)} and {len(high)} rows")
    return Curve(steps, values, low, high)


def _episodes(path: Path, run: Run) -> None:
    if not path.is_file():
        return
    found = read_json(path)
    if "spec" in found:
        run.spec = Spec.from_dict(found.pop("spec"))
    elif (path.parent / SPEC_FILE).is_file():
        run.spec = Spec.load(path.parent)
    run.episodes = {name: _shown(f"{path}.{name}", e, run.spec) for name, e in found.items()}


def _shown(where: str, episode: Any, spec: Spec | None) -> Shown:
    data = _object(where, episode)
    states, doubt = (_array(f"{where}.{k}", data.get(k, [])) for k in ("states", "doubt"))
    if doubt.ndim != 1 or (states.size and states.ndim != 2):
        raise BadInput(where, "rows of states and a list of doubt", f"{states.shape} and {doubt.shape}")
    if spec is not None and states.size and states.shape[1] != spec.state_dim:
        raise BadInput(f"{where}.states", f"{spec.state_dim} numbers a row", states.shape[1])
    frames = _list(f"{where}.frames", data.get("frames", []))
    for i, frame in enumerate(frames):
        _check_png(f"{where}.frames.{i}", frame)
    seed = None if data.get("seed") is None else int(_number(f"{where}.seed", data["seed"]))
    return Shown(seed, bool(data.get("success")), states, doubt, list(frames))


def _check_png(where: str, frame: Any) -> None:
    try:
        start = b64decode(frame, validate=True)[: len(_PNG)]
    except (TypeError, ValueError, binascii.Error) as e:
        raise BadInput(where, "a PNG picture in base64", e) from e
    if start != _PNG:
        raise BadInput(where, "a PNG picture in base64", start)


def _judged(label: str, where: str, row: Any, field: str) -> Judged:
    data = _object(field, row)
    successes, episodes = (int(_number(f"{field}.{k}", data.get(k))) for k in ("successes", "episodes"))
    rate, low, high = (_number(f"{field}.{k}", data.get(k), 0.0, 1.0) for k in ("rate", "low", "high"))
    return Judged(label, where, successes, episodes, rate, low, high)


def _difference(data: Any, field: str) -> Difference:
    row = _object(field, data)
    mean, low, high = (_number(f"{field}.{k}", row.get(k), -1.0, 1.0) for k in ("mean", "low", "high"))
    fixed, broken = (int(_number(f"{field}.{k}", row.get(k, 0))) for k in ("fixed", "broken"))
    p_value = _number(f"{field}.p_value", row.get("p_value", 1.0), 0.0, 1.0)
    names = str(row.get("first")), str(row.get("second"))
    return Difference(*names, mean, low, high, fixed, broken, p_value)


def _number(where: str, value: Any, low: float = -float("inf"), high: float = float("inf")) -> float:
    wanted = "a finite number" if high == float("inf") else f"a number in [{low:g}, {high:g}]"
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise BadInput(where, wanted, value)
    if not low <= value <= high:
        raise BadInput(where, wanted, value)
    return float(value)


def _array(where: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError) as e:
        raise BadInput(where, "numbers, all rows of one length", e) from e
    if not np.isfinite(array).all():
        raise BadInput(where, "finite numbers", "some that are not")
    return array


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadInput(where, "an object", value)
    return value


def _list(where: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise BadInput(where, "a list", value)
    return value


def _note_what_is_missing(run: Run) -> None:
    places = {j.where for j in run.judged}
    missing = {
        "success in the real simulator (robopolicy evaluate)": REAL in places,
        "success in imagination (robopolicy imagine)": IMAGINED in places,
        "a paired difference (evaluate two policies at once)": bool(run.differences),
        "learning curves of the policy": "policy" in run.curves,
        "learning curves of the world model": "world" in run.curves,
        "the learning curve of steering": "steer" in run.curves,
        "an episode of each policy to look at": bool(run.episodes),
        "pictures of these episodes (nothing could render here); their paths are drawn instead": (
            not run.episodes or any(e.frames for e in run.episodes.values())
        ),
    }
    run.notes = [what for what, there in missing.items() if not there]
