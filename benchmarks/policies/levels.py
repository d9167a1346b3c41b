"""Where three steps of BESO should be, and how much noise the last is to see: success on seeds for choosing.

    python -m benchmarks.policies.levels

One network per seed, learned from careful operators; all that differs is how its chunks are sampled. Held-out
seeds say in `benchmarks.policies.sampling` what the choice is worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from benchmarks.policies.common import compare, held_out, pooled
from robopolicy.cli.collect import Collect, collect
from robopolicy.cli.learn import Train, train
from robopolicy.nets.sampling import Beso
from robopolicy.policies.load import ChunkPolicy, load_policy
from robopolicy.results import hardware, versions

RESULTS = Path(__file__).parents[1] / "results" / "policies" / "levels.json"
TASK, SEEDS = "lever-pull", (39, 40)
DEMONSTRATIONS, EPISODES = 150, 200
# The second and the third level, and whether the last call sees noise of its level.
WAYS = {
    f"{second:g}, {third:g}, {'noise' if seen else 'none'}": (second, third, seen)
    for second, third in ((0.63, 0.005), (1.0, 0.1), (0.5, 0.1), (0.5, 0.15), (0.5, 0.2), (1.0, 0.3))
    for seen in (True, False)
}


class Falling(Beso):
    """Three steps at levels of one's own.

    Args:
        second: level.
        third: level.
        seen: whether the last call sees noise.
    """

    def __init__(self, second: float, third: float, seen: bool):
        super().__init__(3)
        self.sigmas = [self._HIGH, second, third]
        self._kept = [second / self._HIGH, seen * third / second, 0.0]


def main() -> None:
    """Runs what is missing."""
    compare(__doc__, RESULTS, (TASK,), study, summary, seeds=SEEDS)


def summary(units: dict[str, Any]) -> dict[str, Any]:
    """The results file: each way over all seeds, then the units themselves."""
    config = {"task": TASK, "demonstrations": DEMONSTRATIONS, "episodes": EPISODES, "seeds": SEEDS}
    rows = list(units.values())
    return {
        "schema": 1,
        "config": config,
        "versions": versions(),
        "hardware": hardware(),
        "ways": {name: pooled(r[name] for r in rows) for name in rows[0]},
        "units": units,
    }


def study(task: str, seed: int, out: Path) -> dict[str, Any]:
    """Way of sampling -> success; "ddim8" is a diffusion policy with eight steps."""
    collect(Collect(out / "demos", task, DEMONSTRATIONS, expert="careful", where="", seed=seed, processes=1))
    made: dict[str, ChunkPolicy] = {}
    for kind in ("diffusion", "beso"):
        train(Train((out / "demos",), out / kind, kind, seed=seed))  # type: ignore[arg-type]
        made[kind] = cast(ChunkPolicy, load_policy(out / kind))
    found = {"ddim8": held_out(made["diffusion"], task, seed, EPISODES, f"{task} ddim8").rate.to_dict()}
    beso = made["beso"]
    for name, way in WAYS.items():
        beso.core.process = Falling(*way)
        found[name] = held_out(beso, task, seed, EPISODES, f"{task} {name}").rate.to_dict()
    return found


if __name__ == "__main__":
    main()
