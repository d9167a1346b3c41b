"""`robopolicy bench-policy`: how long a policy takes, and what follows from that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from robopolicy.cli.common import Result, need, positive, run


@dataclass(frozen=True)
class BenchPolicy:
    """Measure how long a policy takes for one chunk, and say when the next one has to be asked for.

    It goes by the 95th percentile: one chunk in twenty may be later. Measure on the machine that will drive
    the robot, with nothing else running that will not run then.

    Example: robopolicy bench-policy --policy runs/policy --steerer runs/steerer --out runs/bench

    Attributes:
        policy: saved policy.
        out: folder of the result.
        steerer: saved steerer of that policy.
        chunks: how many are timed.
        seed: of observations and noise.
    """

    policy: Path
    out: Path
    steerer: Path | None = None
    chunks: int = 500
    seed: int = 0


def bench_policy(args: BenchPolicy) -> Result:
    """Times a policy; see `BenchPolicy`."""
    return run("bench-policy", args, None, lambda: _bench(args))


def _bench(args: BenchPolicy) -> Result:
    import numpy as np
    import torch

    from robopolicy.latency import chunk_ms, execution
    from robopolicy.policies.load import load_policy
    from robopolicy.rollout import PriorSteerer
    from robopolicy.steering.load import load_steerer

    positive(chunks=args.chunks)
    need("policy", [args.policy])
    policy, steerer = load_policy(args.policy), PriorSteerer()
    if args.steerer is not None:
        need("steerer", [args.steerer])
        steerer = load_steerer(args.steerer, policy)
    times = chunk_ms(policy, steerer, args.chunks, args.seed)
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).tolist()
    spec = policy.spec
    advice = asdict(execution(p95, spec.fps, spec.chunk))
    period_ms = 1000 / spec.fps
    measured = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "control_period_ms": period_ms}
    return {**measured, "chunk_steps": spec.chunk, **advice, "torch_threads": torch.get_num_threads()}
