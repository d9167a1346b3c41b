"""Does a steered policy succeed over ROS 2, in real time behind the gate, as often as without?

    python -m benchmarks.deploy.episodes [--run runs/demo-54] [--episodes 50]

A demo's policy and steerer (made if the folder is not there) drive the simulated arm over DDS in real time;
then the same episodes are run offline.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.deploy.common import save
from robopolicy.cli import chain
from robopolicy.cli.demo import Demo
from robopolicy.evaluate import evaluate
from robopolicy.policies.load import load_policy
from robopolicy.protocols import ChunkEnv
from robopolicy.results import RESULT
from robopolicy.seeding import episode_seed
from robopolicy.stats import difference, wilson
from robopolicy.steering.load import load_steerer
from ros_nodes.deploy import deploy
from sim.vector import SimVectorEnv

SEED = 54


def main() -> None:
    """Runs both and writes the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path(f"runs/demo-{SEED}"))
    parser.add_argument("--episodes", type=int, default=50)
    args = parser.parse_args()
    if not (args.run / RESULT).is_file():
        chain.run(Demo(args.run, seed=SEED))
    policy_dir, steerer_dir = args.run / "policy", args.run / "steerer"
    report = deploy(policy_dir, steerer_dir, episodes=args.episodes, seed=SEED, on_episode=print)
    dds = wilson(report.successes, args.episodes)
    policy = load_policy(policy_dir)
    env = SimVectorEnv("lift", 1, policy.spec.chunk, seen=policy.spec.obs_steps)
    try:
        seeds = [episode_seed(SEED, "deploy", i) for i in range(args.episodes)]
        steerer = load_steerer(steerer_dir, policy)
        offline = evaluate(cast(ChunkEnv, env), policy, steerer, seeds, "offline").rate
    finally:
        env.close(terminate=True)
    low, high = difference(offline, dds)
    steps, late = (sum(getattr(e, n) for e in report.episodes) for n in ("steps", "late"))
    found = {
        "dds": dds.to_dict(),
        "offline": offline.to_dict(),
        "difference": {"low": low, "high": high},
        "steps": steps,
        "late": late,
        "held": sum(e.held for e in report.episodes),
        "inference_ms": report.inference_ms,
        "gate": report.gate,
        "seconds_per_episode": float(np.mean([e.seconds for e in report.episodes])),
    }
    save("episodes", {"seed": SEED, "task": "lift", **found})
    print(found)


if __name__ == "__main__":
    main()
