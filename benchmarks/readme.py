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

from benchmarks import architecture, chain_figures, scale_report
from benchmarks.deploy import summary as deployment
from benchmarks.policies import figures
from benchmarks.policies import summary as policies
from benchmarks.truth import tables
from robopolicy.checkpoint import read_json, write_atomic
from robopolicy.report.svg import standalone

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SENSITIVITY = RESULTS / "sensitivity.json"
SHARED = RESULTS / "multi-task.json"
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
    for name, draw in FIGURES.items():
        write_atomic(ROOT / "docs" / "figures" / name, standalone(draw()))
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


def around() -> str:
    """What the benchmarks measured beside the study."""
    speed, updates, truth = read_json(RESULTS / "speed.json"), read_json(RESULTS / "updates.json"), _truth()
    real = {
        t[arm]["episodes"] // len(t["seeds"]) for t in truth["tasks"].values() for arm in ("base", "steered")
    }
    fastest, batch = max((rate, batch) for batch, rate in speed["imagined_steps_per_s"].items())
    lines = [
        f"Success with 95% Wilson intervals: {_one(real)} held-out real episodes per policy and seed.",
        f"Imagination takes {fastest:,.0f} steps per second with {batch} episodes at once, plain robosuite "
        f"{speed['real_steps_per_s']:,.0f} on",
        f"the same {speed['processes']} cores: {speed['ratio']:.0f} times as many.",
        f"DSRL makes {updates['ratio']['dsrl']:.1f} times as many gradient updates per second as the "
        "reference's structure on",
        "Stable-Baselines3, on one core (matrix products alone: "
        f"{updates['ratio_of_matrix_products_alone']:.1f} times), noise-aliased DSRL "
        f"{updates['ratio']['dsrl-na']:.1f} times.",
    ]
    if episodes := read_json(RESULTS / "deploy.json").get("episodes"):
        over, without = episodes["dds"], episodes["offline"]
        lines += [
            "Over ROS 2 in real time, behind the gate, a steered policy (Lift) succeeded in "
            f"{over['successes']} of {over['episodes']}",
            f"episodes [{over['low']:.1%}, {over['high']:.1%}], without in {without['successes']}.",
        ]
    return _text(lines)


def pictures() -> str:
    """How fast pictures are imagined, on each kind of machine that was at hand."""
    lines = []
    for kind in ("cpu", "gpu"):
        if (path := RESULTS / f"pixels-{kind}.json").is_file():
            found = read_json(path)
            s, where = found["speed"], found["hardware"]["gpu"] or "one core of a CPU"
            lines += [
                f"On {where}, {s['pixels']} pixels square, {s['batch']} at once, {_parameters(s)}:",
                f"{s['frames_per_s']:,.0f} pictures or {s['imagined_s_per_s']:,.0f} seconds per second;",
                f"a denoiser in the shape of DIAMOND's {s['diamond_frames_per_s']:,.0f}: "
                f"{s['ratio']:.1f} times as many.",
                f"As many times as many as plain: {_variants(s)}.",
                f"The simulator of Lift draws {_drawn(found['rendering'])} pictures per second.",
            ]
    return _text(lines)


def chains() -> str:
    """What chains came to that saw pictures alone."""
    return tables.pictures(read_json(RESULTS / "pixels-cpu.json")["chain"])


def codes() -> str:
    """How actions are best told."""
    return tables.codes(read_json(RESULTS / "pixels-cpu.json")["codes"])


def _variants(speed: Row) -> str:
    return ", ".join(f"{name} {times:.2f}" for name, times in speed["variants"].items())


def _drawn(rendering: Row) -> str:
    rates = [f"{per_s:,.0f} ({side} pixels square)" for side, per_s in rendering["frames_per_s"].items()]
    return ", ".join(rates)


def _parameters(speed: Row) -> str:
    return f"{speed['parameters'] / 1e6:.2f} million parameters"


def _truth() -> Row:
    return read_json(RESULTS / "truth.json")


def _table(make: Callable[[Row], str]) -> Callable[[], str]:
    return lambda: make(_truth())


def _policies(make: Callable[[Row], str]) -> Callable[[], str]:
    return lambda: make(read_json(RESULTS / "policies.json"))


def _scale(make: Callable[[Row], str]) -> Callable[[], str]:
    return lambda: make(_measured_scale())


def _measured_scale() -> Row:
    path = RESULTS / "scale.json"
    return read_json(path) if path.is_file() else {}


def _kills() -> str:
    found = read_json(RESULTS / "faults.json").get("kills")
    if not found:
        return "Not measured yet.\n"
    rows = [f"| {verb} | {c['runs']} | {c['kills']} | {c['lost']} |" for verb, c in found["verbs"].items()]
    rows.append(f"| all | {found['runs']} | {found['kills']} | {found['lost']} |")
    return _text(["| verb | runs | kills | lost or other than undisturbed |", "|---|---|---|---|", *rows])


def _one(values: set[int]) -> int:
    (value,) = values
    return value


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


DOCUMENTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"truth": _table(tables.by_task), "around": around},
    "docs/truth.md": {
        "tasks": _table(tables.by_task),
        "kinds": _table(tables.by_kind),
        "seeds": _table(tables.by_seed),
        "ranking": _table(tables.ranking),
        "rounds": _table(tables.by_round),
        "before": lambda: tables.before(
            [read_json(path) for path in sorted((RESULTS / "truth-development").glob("*.json"))]
        ),
        "sensitivity": lambda: tables.sensitivity(
            read_json(SENSITIVITY)["units"] if SENSITIVITY.is_file() else {}
        ),
        "steering": _table(tables.steering),
        "world": _table(tables.world),
        "shared": lambda: tables.shared(read_json(SHARED) if SHARED.is_file() else {}),
    },
    "docs/faults.md": {"kills": _kills},
    "docs/deploy.md": {"measured": lambda: deployment.measured(read_json(RESULTS / "deploy.json"))},
    "docs/pixels.md": {"pictures": pictures, "chains": chains, "codes": codes},
    "docs/scale.md": {
        name: _scale(getattr(scale_report, name)) for name in ("ways", "growth", "costs", "cluster")
    },
    "docs/policies/beso.md": {"levels": _policies(policies.levels)},
    "docs/policies.md": {
        name: _policies(getattr(policies, name))
        for name in (
            *("memory", "against", "fewer", "beyond", "ablations", "helped", "helped_ablations"),
            *("sampling", "delays", "steered", "language", "speed"),
        )
    },
}
FIGURES: dict[str, Callable[[], str]] = {
    "architecture.svg": architecture.figure,
    "diffusion.svg": lambda: figures.paths("ddim"),
    "beso.svg": lambda: figures.paths("beso"),
    "flow.svg": lambda: figures.paths("flow"),
    "imagined.svg": lambda: chain_figures.imagined(_truth()),
    "at-rest.svg": lambda: chain_figures.at_rest(read_json(RESULTS / "deploy" / "kill.json")),
    "scale.svg": lambda: scale_report.figure(_measured_scale()),
    "horizon.svg": lambda: figures.horizon(read_json(RESULTS / "policies.json")),
    "delays.svg": lambda: figures.delays(read_json(RESULTS / "policies.json")),
}


if __name__ == "__main__":
    main()
