"""One task and one master seed of the study: the whole chain, then everything that is asked of it.

Everything is done by the verbs of `robopolicy`, which skip what is finished: a unit that was cut off goes on
where it stopped.

Ranking. Policies of different age (few updates), the base, one with bounded uniform noise, steerers by two
methods, one steered twice, and one that was told to exploit its world model (no doubt limit, no penalty).
Each has at least 100 real episodes on the same held-out seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.checkpoint import read_json, write_json
from robopolicy.cli import chain
from robopolicy.cli.collect import Collect, collect
from robopolicy.cli.demo import Demo
from robopolicy.cli.judge import Evaluate, Imagine, evaluate, imagine
from robopolicy.cli.learn import Steer, Train, steer, train
from robopolicy.data.episodes import load_episodes
from robopolicy.ranking import rank
from robopolicy.results import RESULT, hardware, versions
from robopolicy.seeding import stream
from robopolicy.stats import wilson

REFRESH = 100
RANKED_EPISODES = 100
YOUNG = (100, 300, 800)  # updates
UNGUARDED = 1e6


@dataclass(frozen=True)
class Unit:
    """What is studied.

    Attributes:
        task: its name.
        seed: master seed.
        runs: folder of all runs.
        preset: of every stage.
    """

    task: str
    seed: int
    runs: Path
    preset: str = "quick"

    @property
    def name(self) -> str:
        return f"{self.task}-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.runs / self.name


def write_study(unit: Unit, folder: Path) -> None:
    """Writes what `study` finds into a folder of results."""
    result = study(unit)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{unit.name}.json", result)


def study(unit: Unit) -> dict[str, Any]:
    """Runs what is missing of `unit`; its results, see `benchmarks.truth.summary`."""
    out, task, preset = unit.folder, unit.task, unit.preset
    chain.run(Demo(out, task, preset=preset, seed=unit.seed, refresh=REFRESH, processes=1))
    demo = read_json(out / RESULT)
    policies, steerers = _candidates(unit)
    others = tuple(s for s in steerers if s not in _chain_steerers(unit))
    exam = {"task": task, "episodes": RANKED_EPISODES, "seed": unit.seed, "processes": 1}
    evaluate(Evaluate(policies, out / "ranked-real", others, **exam))
    imagined = imagine(Imagine(out / "world", policies, out / "ranked", steerers, seed=unit.seed))
    return {
        "schema": 1,
        "task": task,
        "imperfection": demo["imperfection"],
        "seed": unit.seed,
        **{k: demo[k] for k in ("base", "steered", "steered_refresh", "paired_difference", "refresh", "gap")},
        "promotion": demo["promotion"],
        "ranking": _ranking(unit, imagined),
        "trust": _trust(unit),
        "wall_clock_s": demo["wall_clock_s"],
        "versions": versions(),
        "hardware": hardware(),
    }


def _chain_steerers(unit: Unit) -> tuple[Path, ...]:
    return unit.folder / "steerer", unit.folder / "steerer-refreshed"


def rollouts(unit: Unit) -> tuple[Path, ...]:
    """Recorded episodes that a steerer of the unit begins with."""
    return tuple(unit.folder / f"rollouts-{n}" for n in ("prior", "uniform", "repeat"))


def _candidates(unit: Unit) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Policies and steerers that are ranked; those of the chain and those made for it."""
    out, common = unit.folder, {"seed": unit.seed, "preset": unit.preset}
    policies = [out / "policy"]
    for steps in YOUNG:
        policies.append(out / f"policy-{steps}")
        train(Train((out / "demos",), policies[-1], steps=steps, **common))
    steerers = [*_chain_steerers(unit)]
    for name, how in {
        "exploiter": {"doubt_limit": UNGUARDED},
        "ppo": {"method": "ppo"},
        "uniform": {"method": "uniform"},
    }.items():
        steerers.append(out / name)
        steer(Steer(out / "policy", rollouts(unit), steerers[-1], out / "world", **how, **common))
    return tuple(policies), tuple(steerers)


def ranked(run: Path) -> dict[str, dict[str, bool]]:
    """What each policy that a unit ranks came to in reality: label -> held-out seed -> success.

    The chain has judged its own policies already, on more of the same seeds.
    """
    rows = {
        row["label"]: row["outcomes"]
        for name in ("real", "ranked-real")
        for row in read_json(run / name / RESULT)["policies"]
    }
    shared = sorted(set.intersection(*(set(outcomes) for outcomes in rows.values())), key=int)
    return {label: {seed: outcomes[seed] for seed in shared} for label, outcomes in rows.items()}


def _ranking(unit: Unit, imagined: Mapping[str, Any]) -> dict[str, Any]:
    """Per policy the real and imagined rate, and how the two orders agree."""
    real = ranked(unit.folder)
    keys = ("successes", "episodes", "rate", "low", "high")
    rows = {
        row["label"]: {
            "real": rate_of(real[row["label"]]),
            "imagined": {k: row[k] for k in keys},
            "ended": row["ended"],
            "doubtful": row["doubtful"],
        }
        for row in imagined["policies"]
    }
    agreement = rank(
        np.array([list(real[label].values()) for label in rows]),
        np.array([list(row["outcomes"].values()) for row in imagined["policies"]]),
        stream(unit.seed, "bootstrap", "ranking"),
    )
    refused = imagined["refused"]
    return {
        "policies": rows,
        "refused": refused,
        **{k: v for k, v in agreement.to_dict().items() if k != "policies"},
    }


def rate_of(outcomes: Mapping[str, bool]) -> dict[str, float]:
    """Success with its interval."""
    return wilson(sum(outcomes.values()), len(outcomes)).to_dict()


def _trust(unit: Unit) -> dict[str, Any]:
    """What `diagnose` says of the world model on real episodes that it has never seen."""
    from world_models.diagnose import diagnose
    from world_models.load import load_state_world

    out, fresh = unit.folder, unit.folder / "rollouts-fresh"
    collect(Collect(fresh, unit.task, 60, policy=out / "policy", first=50_000, seed=unit.seed, processes=1))
    episodes = load_episodes([fresh, out / "rollouts-refreshed"])
    return diagnose(load_state_world(out / "world"), episodes, unit.seed)
