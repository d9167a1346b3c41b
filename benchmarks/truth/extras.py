"""What else is asked of a finished unit: the reference in the real simulator, what each part is worth.

Steering ablation: the same policy, world model and recorded episodes, another way of steering; each judged on
the unit's held-out seeds. What the parts of the world model are worth is `benchmarks.world_ablation`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.truth.unit import RANKED_EPISODES, UNGUARDED, Unit
from robopolicy.checkpoint import read_json, write_json
from robopolicy.cli.judge import Evaluate, Imagine, evaluate, imagine
from robopolicy.cli.learn import Steer, steer
from robopolicy.results import RESULT, hardware, versions

REAL_STEPS = 30_000
_KEYS = ("successes", "episodes", "rate", "low", "high")
# Steering by other means than the preset's.
VARIANTS: dict[str, dict[str, Any]] = {
    "dsrl-na": {"method": "dsrl-na"},
    "ppo": {"method": "ppo"},
    "best-of-n": {"method": "best-of-n"},
    "uniform noise": {"method": "uniform"},
    "warm start": {"warm_start": 2000},
    "five critics": {"critics": 5},
    "no doubt limit": {"doubt_limit": UNGUARDED},
    "radius 1": {"radius": 1.0},
    "radius 3": {"radius": 3.0},
}


def write_extras(unit: Unit, folder: Path) -> None:
    """Writes what the reference and the ablation of a finished unit find."""
    kept = {k: read_json(unit.folder / RESULT)[k] for k in ("base", "steered")}
    result = {
        "schema": 1,
        "task": unit.task,
        "seed": unit.seed,
        **{arm: rows["real"] for arm, rows in kept.items()},
        "reference_real_dsrl": _reference(unit),
        "steering": _variants(unit),
        "versions": versions(),
        "hardware": hardware(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{unit.name}.json", result)


def _rollouts(unit: Unit) -> tuple[Path, ...]:
    return tuple(unit.folder / f"rollouts-{n}" for n in ("prior", "uniform", "repeat"))


def _reference(unit: Unit) -> dict[str, Any]:
    """DSRL that practises in the real simulator, with the steps it took there."""
    out, seed = unit.folder / "reference", unit.seed
    how = {"real": True, "real_steps": REAL_STEPS, "seed": seed, "preset": unit.preset}
    practised = steer(Steer(unit.folder / "policy", _rollouts(unit), out, **how))
    row = _judged(unit, {"reference": out}, "reference-real")["reference"]
    return {**row, "real_steps": practised["real_steps"]["practice"]}


def _variants(unit: Unit) -> dict[str, Any]:
    steerers = {}
    for name, how in VARIANTS.items():
        steerers[name] = unit.folder / f"steerer-{name.replace(' ', '-')}"
        common = {"world": unit.folder / "world", "seed": unit.seed, "preset": unit.preset}
        steer(Steer(unit.folder / "policy", _rollouts(unit), steerers[name], **common, **how))
    folders = tuple(steerers.values())
    dream = Imagine(unit.folder / "world", (unit.folder / "policy",), unit.folder / "variants", folders)
    imagined = imagine(dataclasses.replace(dream, seed=unit.seed))["policies"][1:]
    real = _judged(unit, steerers, "variants-real")
    return {
        name: {"real": real[name], "imagined": {k: row[k] for k in _KEYS}}
        for name, row in zip(steerers, imagined, strict=True)
    }


def _judged(unit: Unit, steerers: dict[str, Path], name: str) -> dict[str, dict[str, Any]]:
    """Real success of steerers on the seeds that the unit ranks its policies on."""
    policy, folders = (unit.folder / "policy",), tuple(steerers.values())
    exam = Evaluate(policy, unit.folder / name, folders, unit.task, RANKED_EPISODES, unit.seed, processes=1)
    rows = evaluate(exam)["policies"][1:]
    return {label: {k: row[k] for k in _KEYS} for label, row in zip(steerers, rows, strict=True)}
