"""Writes the measured numbers into the documents that quote them.

    python -m benchmarks.readme [--run runs/demo-4]

Between `<!-- NAME -->` and `<!-- end -->` a document holds what the results files say; a test compares.
With a run, the picture in the README is drawn anew.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robopolicy.checkpoint import read_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "figures" / "result.png"

Row = Mapping[str, Any]


def main() -> None:
    """Rewrites every block."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, help="folder of a finished demo, for the picture")
    run = parser.parse_args().run
    for document in DOCUMENTS:
        path = ROOT / document
        path.write_text(refreshed(document, path.read_text()))
    if run:
        from robopolicy.report.summary import summary_png

        summary_png(run, PICTURE)


def refreshed(document: str, text: str) -> str:
    """`text` of a document with every block as the results files have it."""
    for name, block in DOCUMENTS[document].items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, found = pattern.subn(lambda m, b=block: f"{m[1]}{b()}{m[2]}", text)
        if found != 1:
            raise ValueError(f"{document}: wanted one block {name!r}, found {found}")
    return text


def demos() -> str:
    """One line per demo, those of the present version first."""
    lines = [
        "| halted by doubt | master seed | base | steered | gain in the real simulator "
        "| base imagined | steered imagined | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for answer, kind in (("yes", "halted/demo"), ("no", "demo")):
        for result in _all(kind):
            base, steered, d = result["base"], result["steered"], result["paired_difference"]
            cells = [
                answer,
                f"{result['master_seed']}",
                _rate(base["real"]),
                _rate(steered["real"]),
                f"**{d['mean']:+.1%}** [{d['low']:+.1%}, {d['high']:+.1%}]",
                _rate(base["imagined"]),
                _rate(steered["imagined"]),
                f"{result['wall_clock_s']['total'] / 60:.1f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return _text(lines)


def around() -> str:
    """What else the demos and benchmarks measured."""
    speed, rows = read_json(RESULTS / "speed.json"), [*_all("halted/demo"), *_all("demo")]
    real = {row["base"]["real"]["episodes"] for row in rows}
    imagined = {row["base"]["imagined"]["episodes"] for row in rows}
    hardware = rows[0]["hardware"]
    fastest = max(speed["imagined_steps_per_s"].values())
    memory = max(row["peak_memory_mb"] for row in rows) / 1000
    lines = [
        f"Success with 95% Wilson intervals: {_one(real)} real episodes per policy, both on the same",
        f"held-out seeds; {_one(imagined)} imagined ones. Machine: {hardware['cores']} cores, no GPU; at the "
        f"most {memory:.1f} GB were in use.",
        f"Imagination takes {fastest:,.0f} steps per second, plain robosuite "
        f"{speed['real_steps_per_s']:,.0f} on the same {speed['processes']} cores:",
        f"{speed['ratio']:.0f} times as many.",
    ]
    for d in _all("halted/deploy"):
        rate, seed = d["success"], d["config"]["args"]["seed"]
        lines.append(
            f"Over ROS 2 in real time, behind the gate, the steered policy of seed {seed} succeeded in "
            f"{rate['successes']} of {rate['episodes']}\nepisodes [{rate['low']:.1%}, {rate['high']:.1%}]."
        )
    return _text(lines)


def _all(kind: str) -> list[Row]:
    found = sorted(RESULTS.glob(f"{kind}-*.json"))
    if not found:
        raise FileNotFoundError(f"{RESULTS}/{kind}-*.json: run `make results`")
    return [read_json(path) for path in found]


def _rate(row: Row) -> str:
    return f"{row['rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"


def _one(values: set[int]) -> int:
    (value,) = values
    return value


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


DOCUMENTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"demos": demos, "around": around},
}


if __name__ == "__main__":
    main()
