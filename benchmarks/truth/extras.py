"""What else is asked of a finished unit: the reference in the real simulator, what each part is worth.

The same policy, world model and recorded episodes, steered in another way; each judged on the unit's held-out
seeds. A unit whose runs are on another machine is run again first. The parts of the world model are in
`benchmarks.truth.worlds`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.truth.unit import RANKED_EPISODES, UNGUARDED, Unit, rollouts, study
from robopolicy.checkpoint import read_json, write_json
from robopolicy.cli.collect import Collect, collect
from robopolicy.cli.judge import Evaluate, Imagine, evaluate, imagine
from robopolicy.cli.learn import Steer, steer
from robopolicy.data.episodes import load_episodes
from robopolicy.refine.config import REFINE_METHODS
from robopolicy.results import RESULT, hardware, versions

REAL_STEPS = 30_000
_KEYS = ("successes", "episodes", "rate", "low", "high")
# Steering by other means than the preset's.
VARIANTS: dict[str, dict[str, Any]] = {
    "dsrl-na": {"method": "dsrl-na"},
    "ppo": {"method": "ppo"},
    "best-of-n": {"method": "best-of-n"},
    "pa-rl": {"method": "pa-rl"},
    "ppo-gaussian": {"method": "ppo-gaussian"},
    "diffusion-nft": {"method": "diffusion-nft"},
    "uniform noise": {"method": "uniform"},
    "warm start": {"warm_start": 2000},
    "five critics": {"critics": 5},
    "no doubt limit": {"doubt_limit": UNGUARDED},
    "short horizon": {"horizon": 32},
    "radius 1": {"radius": 1.0},
    "radius 3": {"radius": 3.0},
}


def write_reference(unit: Unit, folder: Path) -> None:
    """Writes how far DSRL comes that practises in the real simulator, with the steps it takes there."""
    study(unit)
    out, seed = unit.folder / "reference", unit.seed
    how = {"real": True, "real_steps": REAL_STEPS, "seed": seed, "preset": unit.preset}
    practised = steer(Steer(unit.folder / "policy", rollouts(unit), out, **how))
    row = judged(unit, {"reference": out}, {}, "reference-real")["reference"]
    steps = practised["real_steps"]
    write_extra(unit, folder, {**row, "real_steps": sum(steps.values()), "of_them": steps})


def write_refreshed(unit: Unit, folder: Path) -> None:
    """Writes how true the world models of both rounds are on the same episodes, which neither has seen.

    Half of them are of the refreshed steerer: where it goes, the first round's model has never been.
    """
    from world_models.diagnose import diagnose
    from world_models.load import load_state_world

    study(unit)
    out, fresh, seed = unit.folder, unit.folder / "rollouts-fresh-refreshed", unit.seed
    policy, steerer = out / "policy", out / "steerer-refreshed"
    collect(
        Collect(fresh, unit.task, 60, policy=policy, steerer=steerer, first=70_000, seed=seed, processes=1)
    )
    episodes = load_episodes([out / "rollouts-fresh", fresh])
    found = {}
    for name in ("world", "world-refreshed"):
        trust = diagnose(load_state_world(out / name), episodes, seed)
        found[name] = {**trust["replay"], "doubt_spearman": trust["doubt"]["spearman"]}
    write_extra(unit, folder, found)


def write_steering(unit: Unit, folder: Path) -> None:
    """Writes what other ways of steering, and of refining weights, come to."""
    study(unit)
    folders = {name: unit.folder / f"by-{name.replace(' ', '-')}" for name in VARIANTS}
    for name, how in VARIANTS.items():
        common = {"world": unit.folder / "world", "seed": unit.seed, "preset": unit.preset}
        steer(Steer(unit.folder / "policy", rollouts(unit), folders[name], **common, **how))
    refined = {k: v for k, v in folders.items() if VARIANTS[k].get("method") in REFINE_METHODS}
    steerers = {k: v for k, v in folders.items() if k not in refined}
    policies = (unit.folder / "policy", *refined.values())
    dream = Imagine(unit.folder / "world", policies, unit.folder / "variants", tuple(steerers.values()))
    imagined = _rows(imagine(dataclasses.replace(dream, seed=unit.seed)), (*refined, *steerers))
    real = judged(unit, steerers, refined, "variants-real")
    kept = {k: read_json(unit.folder / RESULT)[k] for k in ("base", "steered")}
    rows = {name: {"real": real[name], "imagined": imagined[name]} for name in VARIANTS}
    write_extra(unit, folder, {**kept, **rows})


def write_extra(unit: Unit, folder: Path, found: dict[str, Any]) -> None:
    """Writes what was found of a unit into a folder of results."""
    result = {
        "schema": 1,
        "task": unit.task,
        "seed": unit.seed,
        "found": found,
        "versions": versions(),
        "hardware": hardware(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{unit.name}.json", result)


def judged(
    unit: Unit, steerers: dict[str, Path], refined: dict[str, Path], name: str
) -> dict[str, dict[str, Any]]:
    """Real success on the seeds that the unit ranks its policies on."""
    policies = (unit.folder / "policy", *refined.values())
    exam = Evaluate(
        policies,
        unit.folder / name,
        tuple(steerers.values()),
        unit.task,
        episodes=RANKED_EPISODES,
        seed=unit.seed,
        processes=1,
    )
    return _rows(evaluate(exam), (*refined, *steerers))


def _rows(judged: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rate of each candidate but the first, the base."""
    rows = judged["policies"][1:]
    return {name: {k: row[k] for k in _KEYS} for name, row in zip(names, rows, strict=True)}
