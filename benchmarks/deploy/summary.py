"""benchmarks/results/deploy.json, from what each measurement of a deployment found.

python -m benchmarks.deploy.summary
"""

from __future__ import annotations

from typing import Any

from benchmarks.deploy.common import RESULTS
from benchmarks.faults import RESULTS as FAULTS
from robopolicy.checkpoint import read_json, write_json

# Part of the results file -> file it comes from and what is taken of it.
_PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kill": ("kill", ("runs", "held", "worst_s", "within_s")),
    "gate": (
        "gate",
        (
            "rate_hz",
            "p50_period_error_ms",
            "p99_period_error_ms",
            "machine_p50_ms",
            "machine_p99_ms",
            "heard_p99_ms",
        ),
    ),
    "episodes": ("episodes", ("dds", "offline", "difference")),
    "laws": ("laws", ("interleavings", "broken")),
    "fuzz": ("fuzz", ("frames", "crashes", "outcomes", "memory_grown_mb")),
    "soak": ("soak", ("counted", "wall")),
}


def main() -> None:
    """Sums up what is there."""
    write_json(RESULTS.parent / "deploy.json", summed())


def summed() -> dict[str, Any]:
    """The results file; a measurement that was not made is left out."""
    found: dict[str, Any] = {"schema": 1}
    if FAULTS.is_file():
        faults = read_json(FAULTS)
        found |= {"faults": faults["faults"], "guards_removed": faults["guards_removed"]}
    for part, (name, keys) in _PARTS.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            row = read_json(path)
            found[part] = {k: row[k] for k in keys}
            if part == "gate":
                found |= {k: row[k] for k in ("overhead_ms", "crowded")}
    return found


if __name__ == "__main__":
    main()
