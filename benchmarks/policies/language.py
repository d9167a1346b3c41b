"""Policies that are told what to do: by sentences, in wordings never demonstrated or known, and by goals.

    python -m benchmarks.policies.language [--seeds 41 42 43]

One policy for the six things that can be asked for in the task `blocks`; chance is one in six. "new" wordings
consist of words that were demonstrated in other sentences; "goals" are the states in which a careful operator
leaves the same episodes.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.policies.common import SEEDS, held_out, pooled, save
from robopolicy.checkpoint import read_json
from robopolicy.cli.collect import Collect, collect
from robopolicy.config import PolicyConfig
from robopolicy.policies.load import ChunkPolicy, load_policy
from robopolicy.policies.told import Told, by_goal, told
from robopolicy.policies.train import train_policy
from robopolicy.results import hardware, versions
from sim.tasks import find_task

RESULTS = Path(__file__).parents[1] / "results" / "policies" / "language.json"
TASK, DEMOS, EPISODES = "blocks", 1000, 100
GRIF = PolicyConfig(task_size=32, labelled=0.25, align=1.0)
KINDS = {
    "a quarter labelled": GRIF,
    "a quarter labelled, no contrast": replace(GRIF, align=0.0),
    "all labelled": replace(GRIF, labelled=1.0),
    "BESO, guidance 1.5": replace(GRIF, process="beso", inference_steps=3, guidance=1.5),
    "not told": replace(GRIF, task_size=0),
}


def main() -> None:
    """Runs what is missing; writes the results after each policy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--runs", type=Path, default=Path("runs/language"))
    args = parser.parse_args()
    units: dict[str, Any] = read_json(RESULTS)["units"] if RESULTS.is_file() else {}
    for seed in args.seeds:
        unit = units.setdefault(str(seed), {})
        for kind in (k for k in KINDS if k not in unit):
            unit[kind] = study(seed, args.runs / str(seed), kind)
            save(RESULTS, summary(units))


def summary(units: dict[str, Any]) -> dict[str, Any]:
    """The results file: each kind over all seeds, then the units themselves."""
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        rows = [u[kind] for u in units.values() if kind in u]
        kinds[kind] = {way: pooled(r[way] for r in rows) for way in (rows[0] if rows else ())}
    config = {
        "task": TASK,
        "demos": DEMOS,
        "episodes": EPISODES,
        "kinds": {k: asdict(c) for k, c in KINDS.items()},
    }
    common = {"schema": 1, "config": config, "versions": versions(), "hardware": hardware()}
    return {**common, "kinds": kinds, "units": units}


def study(seed: int, out: Path, kind: str) -> dict[str, Any]:
    """Success of one kind of policy, by how it is told."""
    collect(Collect(out / "demos", TASK, DEMOS, seed=seed, processes=1))
    folder = out / kind.replace(",", "").replace(" ", "-")
    train_policy([out / "demos"], folder, KINDS[kind], seed)
    policy, task = cast(ChunkPolicy, load_policy(folder)), find_task(TASK)
    assert task.instruct
    if not policy.core.task:
        return {"new": held_out(policy, TASK, seed, EPISODES, kind).rate.to_dict()}
    careful = task.expert(task.spec, task.experts()["careful"])
    reached = {
        e.seed: e.until_success().states for e in held_out(careful, TASK, seed, EPISODES, "goals").episodes
    }

    def goal(of: int) -> torch.Tensor:
        first, last = (torch.from_numpy(reached[of][[i]]) for i in (0, -1))
        return by_goal(policy, first, last)[0]

    ways = {
        "new": told(policy, partial(task.instruct, familiar=False)),
        "familiar": told(policy, task.instruct),
        "goals": Told(policy, goal),
    }
    return {
        way: held_out(p, TASK, seed, EPISODES, f"{kind}, {way}").rate.to_dict() for way, p in ways.items()
    }


if __name__ == "__main__":
    main()
