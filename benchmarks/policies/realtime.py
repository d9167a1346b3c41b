"""What a delay of the policy costs: foresight, real-time chunking, switching, and standing still.

    python -m benchmarks.policies.realtime [--tasks push coffee-pull] [--seeds 41 42 43]

A policy that plans 16 steps and of which 8 are executed is delayed by 0 to 8 control steps, in the real
simulator, on the same held-out seeds for all. Demonstrations are a careful operator's, so that what fails is
not the imitation. The world model of foresight has learned from them, from the policy's own rollouts and from
aimless movement. "seam" is how far a plan's first executed command is from the last one of the plan before,
as a share of the command's range; "inside" the same between commands of one plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.policies.common import compare, held_out, pooled
from robopolicy.checkpoint import read_json
from robopolicy.cli.collect import Collect, collect
from robopolicy.cli.learn import Train, train
from robopolicy.cli.world import TrainWorld, train_world
from robopolicy.policies.load import ChunkPolicy, load_policy
from robopolicy.protocols import Policy
from robopolicy.realtime import Foresight, RealtimePolicy, SynchronousPolicy
from robopolicy.results import hardware, versions
from robopolicy.types import Episode
from sim.tasks import TASKS, Task
from world_models.load import load_state_world
from world_models.state import StateWorldModel

RESULTS = Path(__file__).parents[1] / "results" / "policies" / "realtime.json"
PLAN, EXECUTE, DELAYS = 16, 8, (0, 2, 4, 6, 8)
DEMONSTRATIONS, EPISODES = 150, 50
ROLLOUTS, AIMLESS = 60, 40
WAYS = ("foreseen", "joined", "switched", "still")


def _planned(name: str) -> Task:
    return replace(TASKS[name], spec=replace(TASKS[name].spec, chunk=PLAN))


PUSH, COFFEE_PULL = _planned("push"), _planned("coffee-pull")


def main() -> None:
    """Runs what is missing."""
    compare(__doc__, RESULTS, ("push", "coffee-pull"), study, summary, whole=lambda unit: not _missing(unit))


def _missing(unit: Mapping[str, Any]) -> list[tuple[int, str]]:
    return [(d, way) for d in DELAYS for way in WAYS if way not in unit.get(str(d), {})]


def summary(units: dict[str, Any]) -> dict[str, Any]:
    """The results file: each way and delay over all units, then the units themselves."""
    delays: dict[str, dict[str, Any]] = {str(delay): {} for delay in DELAYS}
    for delay, ways in delays.items():
        for way in WAYS:
            if rows := [u[delay][way] for u in units.values() if way in u[delay]]:
                ways[way] = _pooled(rows)
    config = {"plan": PLAN, "execute": EXECUTE, "demonstrations": DEMONSTRATIONS, "episodes": EPISODES}
    common = {"schema": 1, "config": config, "versions": versions(), "hardware": hardware()}
    return {**common, "delays": delays, "units": units}


def _pooled(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    success = pooled(row["success"] for row in rows)
    return {"success": success, **{k: float(np.mean([row[k] for row in rows])) for k in ("seam", "inside")}}


def study(task: str, seed: int, out: Path) -> dict[str, dict[str, Any]]:
    """One policy: delay -> way -> success and jumps. What the results file holds of it is not run again."""
    name = f"{__spec__.name}:{task.upper().replace('-', '_')}"
    collect(Collect(out / "demos", name, DEMONSTRATIONS, expert="careful", where="", seed=seed, processes=1))
    train(Train((out / "demos",), out / "policy", seed=seed))
    policy = cast(ChunkPolicy, load_policy(out / "policy"))
    world = trained(out, name, seed)
    makers: dict[str, Callable[[int, int], Policy]] = {
        "foreseen": partial(RealtimePolicy, Foresight(policy, world)),
        "joined": partial(RealtimePolicy, policy),
        "switched": partial(RealtimePolicy, policy, joined=False),
        "still": partial(SynchronousPolicy, policy),
    }
    before = read_json(RESULTS)["units"].get(f"{task}-{seed}", {}) if RESULTS.is_file() else {}
    found: dict[str, dict[str, Any]] = {str(d): dict(before.get(str(d), {})) for d in DELAYS}
    for delay, way in _missing(found):
        made = makers[way](EXECUTE, delay)
        found[str(delay)][way] = judged(made, name, seed, f"{task} {way} {delay}")
    return found


def trained(out: Path, task: str, seed: int) -> StateWorldModel:
    """A world model of what the policy does and what can be done besides."""
    given: dict[str, Any] = {"task": task, "where": "", "seed": seed, "processes": 1}
    own = {"policy": out / "policy", "episodes": ROLLOUTS, **given}
    collect(Collect(out / "rollouts", **own))
    collect(Collect(out / "tried", noise="repeat", first=20_000, **own))
    collect(Collect(out / "random", expert="random", episodes=AIMLESS, first=30_000, **given))
    data = tuple(out / n for n in ("demos", "rollouts", "tried", "random"))
    train_world(TrainWorld(data, out / "world", seed=seed, processes=1))
    return load_state_world(out / "world")


def judged(policy: Policy, task: str, seed: int, label: str) -> dict[str, Any]:
    """Success of a policy on held-out seeds, and how its commands jump."""
    done = held_out(policy, task, seed, EPISODES, label)
    seam, inside = jumps(done.episodes, np.ptp(policy.spec.action_range, 0))
    return {"success": done.rate.to_dict(), "seam": seam, "inside": inside}


def jumps(episodes: Sequence[Episode], spread: np.ndarray) -> tuple[float, float]:
    """95th percentile of the largest change of a command, where plans meet and inside them."""
    seams, others = [], []
    for episode in episodes:
        change = np.abs(np.diff(episode.actions, axis=0) / spread).max(1)
        where = np.zeros(len(change), bool)
        where[episode.chunk_starts[1:] - 1] = True
        seams.append(change[where])
        others.append(change[~where])
    return tuple(float(np.percentile(np.concatenate(c), 95)) for c in (seams, others))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
