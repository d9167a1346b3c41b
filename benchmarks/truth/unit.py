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
    chain.run(Demo(out, task, preset, unit.seed, REFRESH, processes=1))
    demo = read_json(out / RESULT)
    policies, steerers = _candidates(unit)
    real = evaluate(
        Evaluate(
            tuple(policies),
            out / "ranked-real",
            tuple(steerers),
            task,
            RANKED_EPISODES,
            unit.seed,
            processes=1,
        )
    )
    imagined = imagine(
        Imagine(out / "world", tuple(policies), out / "ranked", tuple(steerers), seed=unit.seed)
    )
    return {
        "schema": 1,
        "task": task,
        "imperfection": demo["imperfection"],
        "seed": unit.seed,
        **{k: demo[k] for k in ("base", "steered", "steered_refresh", "paired_difference", "refresh", "gap")},
        "promotion": demo["promotion"],
        "ranking": _ranking(unit, real, imagined),
        "trust": _trust(unit),
        "wall_clock_s": demo["wall_clock_s"],
        "versions": versions(),
        "hardware": hardware(),
    }


def _candidates(unit: Unit) -> tuple[list[Path], list[Path]]:
    """Policies and steerers that are ranked; those of the chain and those made for it."""
    out, common = unit.folder, {"seed": unit.seed, "preset": unit.preset}
    rollouts = tuple(out / f"rollouts-{n}" for n in ("prior", "uniform", "repeat"))
    policies = [out / "policy"]
    for steps in YOUNG:
        policies.append(out / f"policy-{steps}")
        train(Train((out / "demos",), policies[-1], steps=steps, **common))
    steerers = [out / "steerer", out / "steerer-refreshed"]
    for name, how in {
        "exploiter": {"doubt_limit": UNGUARDED},
        "ppo": {"method": "ppo"},
        "uniform": {"method": "uniform"},
    }.items():
        steerers.append(out / name)
        steer(Steer(out / "policy", rollouts, steerers[-1], out / "world", **how, **common))
    return policies, steerers


def _ranking(unit: Unit, real: Mapping[str, Any], imagined: Mapping[str, Any]) -> dict[str, Any]:
    """Per policy the real and imagined rate, and how the two orders agree."""

    def outcomes(result: Mapping[str, Any]) -> np.ndarray:
        return np.array([list(row["outcomes"].values()) for row in result["policies"]])

    labels = [row["label"] for row in real["policies"]]
    keys = ("successes", "episodes", "rate", "low", "high")
    rows = {
        label: {"real": {k: r[k] for k in keys}, "imagined": {k: i[k] for k in keys}, "ended": i["ended"]}
        for label, r, i in zip(labels, real["policies"], imagined["policies"], strict=True)
    }
    agreement = rank(outcomes(real), outcomes(imagined), stream(unit.seed, "bootstrap", "ranking"))
    return {"policies": rows, **{k: v for k, v in agreement.to_dict().items() if k != "policies"}}


def _trust(unit: Unit) -> dict[str, Any]:
    """What `diagnose` says of the world model on real episodes that it has never seen."""
    from world_models.diagnose import diagnose
    from world_models.load import load_world

    out, fresh = unit.folder, unit.folder / "rollouts-fresh"
    collect(Collect(fresh, unit.task, 60, policy=out / "policy", first=50_000, seed=unit.seed, processes=1))
    episodes = load_episodes([fresh, out / "rollouts-refreshed"])
    return diagnose(load_world(out / "world"), episodes, unit.seed)
