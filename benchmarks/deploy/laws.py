"""A hundred thousand random interleavings of all that a gate can be told: does one of its laws break?

    python -m benchmarks.deploy.laws [--interleavings 100000]

The state machines of tests/ros_nodes, with good, late, early, repeated, missing, huge and not finite input,
clocks that jump, strangers and operators: four in five for the gate that answers step by step, the rest,
which take longer, for the one that drives an arm by time. One that breaks a law is printed, made as short as
it can be, and nothing is written.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.deploy.common import ROOT, save

_SHARES = {"safety": 0.8, "timed": 0.2}


def main() -> None:
    """Runs both and writes the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--interleavings", type=int, default=100_000)
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests" / name) for name in ("helpers", "ros_nodes")]
    wanted = [round(args.interleavings * share) for share in _SHARES.values()]
    with ProcessPoolExecutor(len(_SHARES)) as pool:  # a fork, which knows the paths
        found = dict(zip(_SHARES, pool.map(broken_by_none, _SHARES, wanted), strict=True))
    total = sum(row["interleavings"] for row in found.values())
    save("laws", {"interleavings": total, "gates": found})
    print(found)


def broken_by_none(gate: str, interleavings: int) -> dict[str, Any]:
    """Runs one gate's machine; an interleaving that breaks a law raises."""
    machine, began = importlib.import_module(f"test_{gate}_laws").AnythingGoes, time.perf_counter()
    told: Counter[str] = Counter()

    class Counted(machine):
        def __init__(self):
            super().__init__()
            told["interleavings"] += 1

        def teardown(self):
            told[str(self.bench.gate.mode)] += 1
            if told["interleavings"] % 5000 == 0:
                print(f"{gate}: {told['interleavings']}, {time.perf_counter() - began:.0f} s", flush=True)

    steps = machine.TestCase.settings.stateful_step_count
    wanted = settings(
        max_examples=interleavings,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(Counted, settings=wanted)
    count = told.pop("interleavings")
    seconds = time.perf_counter() - began
    return {"interleavings": count, "steps_each": steps, "ended_in": dict(told), "seconds": seconds}


if __name__ == "__main__":
    main()
