"""How far reality repeats itself: recorded actions replayed in it, the first one off by millimetres.

    python -m benchmarks.sensitivity --runs runs/truth --units soccer-38 lever-pull-38

A world model that is off by so much cannot do better at telling recorded failures from successes, whatever
else it knows: see "replay" in `world_models.diagnose`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from robopolicy.checkpoint import read_json, write_json
from robopolicy.data.episodes import load_episodes
from robopolicy.results import hardware, versions
from robopolicy.seeding import stream
from robopolicy.spec import Spec
from robopolicy.stats import wilson
from robopolicy.types import Episode
from sim.tasks import find_task

RESULTS = Path(__file__).parent / "results" / "sensitivity.json"
OFF_MM = (0.0, 1.0, 2.0, 4.0)


def main() -> None:
    """Replays fresh episodes of units; those that the results file holds already are skipped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--units", nargs="+", required=True)
    args = parser.parse_args()
    found: dict[str, Any] = read_json(RESULTS)["units"] if RESULTS.is_file() else {}
    for name in (n for n in args.units if n not in found):
        task = find_task(name.rsplit("-", 1)[0])
        env = task.make(0)
        episodes = load_episodes([args.runs / name / "rollouts-fresh"])
        rng = stream(0, "sensitivity")
        found[name] = {f"{mm:g} mm": repeated(env, task.spec, episodes, mm / 1000, rng) for mm in OFF_MM}
        env.close()
        common = {"schema": 1, "verb": "sensitivity", "config": {"off_mm": OFF_MM}}
        write_json(RESULTS, {**common, "units": found, "versions": versions(), "hardware": hardware()})


def repeated(
    env: gymnasium.Env, spec: Spec, episodes: Sequence[Episode], off: float, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """How many failures fail and successes succeed again, with a chunk of grace.

    Args:
        env: the simulator, one action at a time.
        spec: of the task; the first two numbers of its actions move the hand on the table.
        episodes: recorded ones.
        off: how far the first action is displaced, metres, in any direction along the table.
        rng: of the direction.
    """
    again: dict[bool, list[bool]] = {True: [], False: []}
    for episode in (e.until_success() for e in episodes):
        env.reset(seed=episode.seed)
        angle, actions = rng.uniform(0, 2 * np.pi), episode.actions.copy()
        actions[0, :2] += off * np.array([np.cos(angle), np.sin(angle)])
        actions = np.clip(actions, *spec.action_range).astype(np.float32)
        grace = [actions[-1]] * spec.chunk if episode.success else []
        won = any(env.step(action)[2] for action in (*actions, *grace))
        again[episode.success].append(won == episode.success)
    names = {False: "failures_as_failures", True: "successes_as_successes"}
    return {name: wilson(sum(again[k]), len(again[k])).to_dict() for k, name in names.items() if again[k]}


if __name__ == "__main__":
    main()
