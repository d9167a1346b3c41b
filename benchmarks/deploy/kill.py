"""The policy server is killed at random moments: how long until the arm rests, and are its limits kept?

    python -m benchmarks.deploy.kill [--runs 50]

SIGKILL over DDS, in separate processes; the moments are drawn from the time in which the arm moves. "rests"
is the last time at which a command differed from the one before.
"""

from __future__ import annotations

import argparse
import os
import signal
import time

import numpy as np

from benchmarks.deploy.common import Heard, mocked, save

SEED = 51
WITHIN_S = 0.3
_LOOKS_S = 0.8
_MOVES_S = 0.5  # of an episode, after which the arm is where it was sent


def main() -> None:
    """Runs and writes the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()
    rng, rests, kept = np.random.default_rng(SEED), [], []
    with mocked() as deployment:
        heard = Heard(deployment)
        bounds = deployment.contract.driven.drive.bounds  # type: ignore[union-attr]
        watch = deployment.console._watch
        for run in range(args.runs):
            heard.begin(deployment, run)
            heard.spin(float(rng.uniform(0.0, _MOVES_S)))
            os.kill(deployment.processes.pid("server"), signal.SIGKILL)
            killed = time.monotonic()
            deployment.console._watch = lambda: None
            heard.spin(_LOOKS_S)
            rests.append(heard.moved_until(killed))
            rows = np.array([c for _, c in heard.commands])
            kept.append(bool(((rows >= bounds.low) & (rows <= bounds.high)).all()))
            heard.commands.clear()
            print(f"run {run}: at rest after {rests[-1]:.3f} s", flush=True)
            deployment.restart_server()
            deployment.console._watch = watch
    held = sum(r <= WITHIN_S and k for r, k in zip(rests, kept, strict=True))
    found = {"runs": args.runs, "held": held, "worst_s": max(rests), "within_s": WITHIN_S, "rests_s": rests}
    save("kill", {"seed": SEED, **found})
    print(f"held in time, limits kept: {held} of {args.runs}; worst {max(rests):.3f} s")


if __name__ == "__main__":
    main()
