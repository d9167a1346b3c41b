"""What the comparisons of policies share: held-out episodes in the real simulator, and pooling them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from robopolicy.evaluate import Evaluation, evaluate
from robopolicy.protocols import ChunkEnv, Policy
from robopolicy.seeding import episode_seed
from robopolicy.stats import wilson
from sim.vector import SimVectorEnv

# Nothing was chosen on these.
SEEDS = (41, 42, 43)


def held_out(policy: Policy, task: str, seed: int, episodes: int, label: str) -> Evaluation:
    """A policy's episodes on the first held-out seeds of a master seed."""
    env = SimVectorEnv(task, 1, policy.spec.chunk, seen=policy.spec.obs_steps)
    try:
        seeds = [episode_seed(seed, "held_out", i) for i in range(episodes)]
        # gymnasium writes `list[int | None]` for the seeds; a list of integers will do.
        return evaluate(cast(ChunkEnv, env), policy, None, seeds, label)
    finally:
        env.close(terminate=True)


def pooled(rates: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One rate of several, with its interval."""
    rows = list(rates)
    return wilson(sum(r["successes"] for r in rows), sum(r["episodes"] for r in rows)).to_dict()
