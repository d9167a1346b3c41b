"""How many steps of sampling a policy needs: BESO with 3 and flow matching against DDPM with 100.

    python -m benchmarks.policies.sampling [--tasks push ...] [--seeds 41 42 43]

One network each, equally large and equally long trained on the same demonstrations of careful operators.
DDPM (Ho et al. 2020, algorithm 2; diffusers' scheduler) and DDIM share theirs. "ms" is the median of a chunk,
all samplers of a unit timed in turns in one process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from benchmarks.policies.common import compare, held_out, pooled
from robopolicy.cli.collect import Collect, collect
from robopolicy.cli.learn import Train, train
from robopolicy.latency import chunk_ms
from robopolicy.nets.inpainting import Known
from robopolicy.nets.sampling import Ddim, Network
from robopolicy.policies.load import ChunkPolicy, load_policy
from robopolicy.results import hardware, versions
from robopolicy.rollout import PriorSteerer
from robopolicy.seeding import torch_seed

RESULTS = Path(__file__).parents[1] / "results" / "policies" / "sampling.json"
TASKS = ("push", "coffee-pull", "lever-pull")
DEMONSTRATIONS, EPISODES = 150, 100
_TIMED, _TURNS = 20, 5


class Ddpm(Ddim):
    """Every level of training, with noise drawn anew at each.

    Args:
        like: trained so.
        seed: of that noise.
    """

    def __init__(self, like: Ddim, seed: int):
        super().__init__(like.train_steps, like.train_steps, like.prediction)
        self.ancestral = DDPMScheduler(
            like.train_steps,
            beta_schedule="squaredcos_cap_v2",
            prediction_type=like.prediction,  # type: ignore[arg-type]
            clip_sample=True,
        )
        self.generator = torch.Generator().manual_seed(seed)

    def restore(self, network: Network, noise: Tensor, known: Known | None = None) -> Tensor:
        assert known is None
        x = noise
        for t in self.ancestral.timesteps:
            out = network(x, t.expand(len(x)))
            x = self.ancestral.step(out, int(t), x, generator=self.generator).prev_sample  # type: ignore[union-attr]
        return x


def main() -> None:
    """Runs what is missing."""
    compare(__doc__, RESULTS, TASKS, study, summary)


def summary(units: dict[str, Any]) -> dict[str, Any]:
    """The results file: each sampler per task over all seeds, then the units themselves."""
    tasks: dict[str, Any] = {}
    for task in sorted({name.rsplit("-", 1)[0] for name in units}):
        rows = [units[n] for n in units if n.rsplit("-", 1)[0] == task]
        tasks[task] = {sampler: pooled(r[sampler]["success"] for r in rows) for sampler in rows[0]}
    config = {"demonstrations": DEMONSTRATIONS, "episodes": EPISODES}
    common = {"schema": 1, "config": config, "versions": versions(), "hardware": hardware()}
    return {**common, "tasks": tasks, "units": units}


def study(task: str, seed: int, out: Path) -> dict[str, Any]:
    """Sampler -> success on held-out seeds and milliseconds per chunk."""
    collect(Collect(out / "demos", task, DEMONSTRATIONS, expert="careful", where="", seed=seed, processes=1))
    made: dict[str, ChunkPolicy] = {}
    for kind in ("diffusion", "beso", "flow"):
        train(Train((out / "demos",), out / kind, kind, seed=seed))  # type: ignore[arg-type]
        made[kind] = cast(ChunkPolicy, load_policy(out / kind))
    ddim = made.pop("diffusion")
    ddpm = cast(ChunkPolicy, load_policy(out / "diffusion"))
    ddpm.core.process = Ddpm(cast(Ddim, ddim.core.process), torch_seed(seed, "ddpm", task))
    samplers = {"ddpm100": ddpm, "ddim8": ddim, "beso3": made["beso"], "flow8": made["flow"]}
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for turn in range(_TURNS):
        for name, policy in samplers.items():
            times[name] += chunk_ms(policy, PriorSteerer(), _TIMED, turn).tolist()
    return {
        name: {
            "success": held_out(policy, task, seed, EPISODES, f"{task} {name}").rate.to_dict(),
            "ms": float(np.median(times[name])),
        }
        for name, policy in samplers.items()
    }


if __name__ == "__main__":
    main()
