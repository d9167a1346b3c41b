"""How regular the gate ticks while a policy runs, beside the machine's own noise, and what it adds.

    python -m benchmarks.deploy.gate [--seconds 60]

Gate, policy server, policy node and mock arm run over DDS in processes of their own; a process that does
nothing but sleep until its next tick, at the same rate and at the same time, says what the machine allows.
"overhead" is the time from a state's arrival at the gate to its command, of an arm driven step by step;
"crowded" one tick of the gate of an arm among 500 joints and 8 cameras, without DDS.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deploy.common import ROBOT, ROOT, Heard, mocked, save
from ros_nodes.contract import contract_text
from ros_nodes.deploy import Deployment

_TICKS, _RATE = 5000, 100
_SLEEPER = """
import sys, time
import numpy as np
period, seconds = float(sys.argv[1]), float(sys.argv[2])
errors, due, last = [], time.monotonic() + period, time.monotonic()
while len(errors) * period < seconds:
    time.sleep(max(due - time.monotonic(), 0))
    now = time.monotonic()
    errors.append(1000 * abs(now - last - period))
    last, due = now, due + period
print(np.percentile(errors, 50), np.percentile(errors, 99))
"""


def main() -> None:
    """Measures both and writes the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, mocked(robot=at_rate(Path(folder))) as deployment:
        heard = Heard(deployment)
        rate = deployment.contract.driven.drive.rate  # type: ignore[union-attr]
        reports = []
        command = [sys.executable, "-c", _SLEEPER, str(1 / rate), str(args.seconds)]
        sleeper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while sleeper.poll() is None:
            reports.append(deployment.episode(len(reports)))
        out, _ = sleeper.communicate()
        gate = deployment.report(reports).gate
    machine = [float(x) for x in out.split()]
    gaps = 1000 * np.abs(np.diff([t for t, _ in heard.commands]) - 1 / rate)
    found = {
        "rate_hz": rate,
        "seconds": args.seconds,
        "p50_period_error_ms": float(gate["period_error_ms.p50"]),
        "p99_period_error_ms": float(gate["period_error_ms.p99"]),
        "machine_p50_ms": machine[0],
        "machine_p99_ms": machine[1],
        "heard_p99_ms": float(np.percentile(gaps[gaps < 1000], 99)),
        "episodes": len(reports),
        "goes_first": gate["goes_first"] == "True",
        "overhead_ms": overhead(),
        "crowded": crowded(),
    }
    save("gate", found)
    print(found)


def at_rate(folder: Path) -> Path:
    """The arm's contract at the rate that is measured, whatever its own."""
    before, after = contract_text(ROBOT).split("\n  rate: 60\n")
    path = folder / "arm.yaml"
    path.write_text(f"{before}\n  rate: {_RATE}\n{after}")
    return path


def overhead() -> dict[str, float]:
    """p50 and p99 in ms of the gate's answers in simulated episodes, step by step in real time.

    One state in eight is answered only with a new chunk, which decides the p99: what the policy's own
    inference took at the median is taken off.
    """
    script = ROOT / "tests" / "helpers" / "lift_by_script.py"
    with Deployment([str(script)], "panda_sim") as deployment:
        reports = [deployment.episode(seed) for seed in range(6)]
        report = deployment.report(reports)
    p50, p99 = (float(report.gate[f"answer_ms.{p}"]) for p in ("p50", "p99"))
    inference = report.inference_ms["p50_ms"]
    return {"p50": p50, "p99": p99 - inference, "p99_with_inference": p99, "inference_p50": inference}


def crowded() -> dict[str, Any]:
    """A tick of the gate of an arm among 500 joints and 8 cameras, message to command, without DDS."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from crowded import CAMERAS, JOINTS, CrowdedBench

    bench, ms = CrowdedBench(), []
    for tick in range(_TICKS):
        if tick == 10:
            bench.engage()
        began = time.perf_counter()
        bench.step()
        ms.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(ms, [50, 99])
    return {
        "joints": JOINTS,
        "cameras": CAMERAS,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "mode": str(bench.gate.mode),
    }


if __name__ == "__main__":
    main()
