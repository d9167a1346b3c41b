"""benchmarks/results/deploy.json, from what each measurement of a deployment found.

python -m benchmarks.deploy.summary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    "laws": ("laws", ("interleavings",)),
    "fuzz": ("fuzz", ("frames", "crashes", "outcomes", "memory_grown_mb")),
    "soak": ("soak", ("counted", "wall")),
}
# What else of a file, as parts of their own.
_BESIDE = {"gate": ("overhead_ms", "crowded"), "soak": ("counted",)}


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
            found |= {k: row[k] for k in _BESIDE.get(part, ())}
    return found


def measured(result: Mapping[str, Any]) -> str:
    """A table of what was measured of a deployment."""
    lines = [say(result[part]) for part, say in _LINES.items() if part in result]
    return "| what | found |\n| --- | --- |\n" + "".join(f"| {what} | {found} |\n" for what, found in lines)


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['successes']} of {row['episodes']} [{row['low']:.1%}, {row['high']:.1%}]"


_LINES: dict[str, Callable[[Any], tuple[str, str]]] = {
    "episodes": lambda r: (
        "a steered policy (Lift) over DDS in real time; offline, the same seeds",
        f"{_share(r['dds'])}; {_share(r['offline'])}",
    ),
    "kill": lambda r: (
        f"policy server killed {r['runs']} times: at rest within {r['within_s']} s, limits kept",
        f"{r['held']}; the slowest after {r['worst_s']:.2f} s",
    ),
    "gate": lambda r: (
        f"ticks of the gate at {r['rate_hz']:.0f} Hz off their time, p99; of a process that only sleeps",
        f"{r['p99_period_error_ms']:.1f} ms; {r['machine_p99_ms']:.1f} ms",
    ),
    "overhead_ms": lambda r: (
        "from a state to its command without the policy's inference, p50 and p99",
        f"{r['p50']:.1f} and {r['p99']:.1f} ms",
    ),
    "crowded": lambda r: (
        f"a tick with {r['joints']} joints and {r['cameras']} cameras, p50 and p99",
        f"{r['p50_ms']:.1f} and {r['p99_ms']:.1f} ms",
    ),
    "laws": lambda r: (
        "random interleavings of input, of which none broke a law",
        f"{r['interleavings']:,}",
    ),
    "fuzz": lambda r: (
        "random and mutated frames at the policy server; crashes",
        f"{r['frames']:,}; {r['crashes']}",
    ),
    "soak": lambda r: (
        f"{r['wall']['minutes']:.0f} minutes over DDS: episodes, kills, late holds, growth of the gate",
        f"{r['wall']['episodes']}, {r['wall']['kills']}, {r['wall']['missed_holds']}, "
        f"{r['wall']['gate_grown_mb']:.1f} MB",
    ),
    "counted": lambda r: (
        f"{r['hours']:.0f} hours of control on counted clocks with random failures; holds that were late",
        f"{r['faults']} faults; {r['missed_holds']}",
    ),
    "guards_removed": lambda r: (
        "guards taken away; those whose absence a test noticed",
        f"{r['total']}; {r['caught']}",
    ),
}


if __name__ == "__main__":
    main()
