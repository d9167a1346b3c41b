"""What the comparisons of policies share: held-out episodes in the real simulator, and pooling them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from robopolicy.checkpoint import read_json, write_json
from robopolicy.evaluate import Evaluation, evaluate
from robopolicy.protocols import ChunkEnv, Policy
from robopolicy.seeding import episode_seed
from robopolicy.stats import wilson
from sim.vector import SimSingleEnv

# Nothing was chosen on these.
SEEDS = (41, 42, 43)


Units = dict[str, Any]


def compare(
    about: str | None,
    results: Path,
    tasks: Sequence[str],
    study: Callable[[str, int, Path], dict[str, Any]],
    summary: Callable[[Units], dict[str, Any]],
    whole: Callable[[dict[str, Any]], bool] = bool,
    seeds: Sequence[int] = SEEDS,
) -> None:
    """Runs the units (a task with a master seed) that a results file does not hold; writes it after each.

    Args:
        about: the module's docstring.
        results: the file.
        tasks: by default.
        study: of a task, a seed and the folder of its runs.
        summary: what the file says of all units.
        whole: whether a unit holds all; one that does not is run again.
        seeds: by default.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(tasks))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
    parser.add_argument("--runs", type=Path, default=Path("runs") / results.stem)
    args = parser.parse_args()
    units: Units = read_json(results)["units"] if results.is_file() else {}
    for seed in args.seeds:
        for task in args.tasks:
            if not whole(units.get(name := f"{task}-{seed}", {})):
                units[name] = study(task, seed, args.runs / name)
                save(results, summary(units))


def save(results: Path, result: dict[str, Any]) -> None:
    """Writes a results file, and its folder where there is none yet."""
    results.parent.mkdir(parents=True, exist_ok=True)
    write_json(results, result)


def held_out(policy: Policy, task: str, seed: int, episodes: int, label: str) -> Evaluation:
    """A policy's episodes on the first held-out seeds of a master seed."""
    env = SimSingleEnv(task, policy.spec.chunk, seen=policy.spec.obs_steps)
    try:
        seeds = [episode_seed(seed, "held_out", i) for i in range(episodes)]
        # gymnasium writes `list[int | None]` for the seeds; a list of integers will do.
        return evaluate(cast(ChunkEnv, env), policy, None, seeds, label)
    finally:
        env.close()


def pooled(rates: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One rate of several, with its interval."""
    rows = list(rates)
    return wilson(sum(r["successes"] for r in rows), sum(r["episodes"] for r in rows)).to_dict()
