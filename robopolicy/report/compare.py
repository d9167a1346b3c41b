"""One page of several runs: who succeeded how often, who more often on the same seeds, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from robopolicy.checkpoint import write_atomic
from robopolicy.errors import BadInput
from robopolicy.report import figures
from robopolicy.report.gather import REAL, Difference, Run, gather
from robopolicy.report.page import environment
from robopolicy.seeding import stream
from robopolicy.stats import paired


def compare_runs(folders: Sequence[Path], out: Path) -> Path:
    """Writes a page that compares runs with the first of them.

    Args:
        folders: of runs, as `make_report` takes them.
        out: the HTML file.

    Returns:
        `out`.

    Raises:
        BadInput: if a run cannot be used, or is given twice; nothing is written.
    """
    names = _names(folders)
    if out.is_dir():
        raise BadInput("out", "a file", f"{out} (a folder)")
    runs = {name: gather(folder) for name, folder in zip(names, folders, strict=True)}
    everything = Run({}, [j._replace(label=f"{n}: {j.label}") for n, run in runs.items() for j in run.judged])
    settings = {name: dict(_flat("", run.result.get("config", {}))) for name, run in runs.items()}
    keys = sorted({k for s in settings.values() for k in s})
    differing = [k for k in keys if len({str(s.get(k)) for s in settings.values()}) > 1]
    html = (
        environment()
        .get_template("compare.html")
        .render(
            title=f"{len(runs)} runs: {', '.join(names)}",
            bars=Markup(figures.success_bars(everything)),
            gap=Markup(figures.real_vs_imagined(everything)),
            differences=_differences(runs),
            names=names,
            settings=[(key, [settings[name].get(key, "") for name in names]) for key in differing],
        )
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, html.encode())
    return out


def _names(folders: Sequence[Path]) -> list[str]:
    """Last parts of the folders, as many as tell them apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise BadInput("run", "different folders", [str(f) for f in folders])
    parts = 1
    while len({path.parts[-parts:] for path in paths}) < len(paths):
        parts += 1
    return ["/".join(path.parts[-parts:]) for path in paths]


def _differences(runs: Mapping[str, Run]) -> list[Difference]:
    """Each policy of the later runs against that of its name in the first, where both ran the same seeds."""
    (first, base), *others = runs.items()
    mine, found = _outcomes(base), []
    for name, run in others:
        for label, outcomes in _outcomes(run).items():
            before = mine.get(label, {})
            if before.keys() == outcomes.keys() and outcomes:
                seeds = sorted(outcomes, key=int)
                rng = stream(int(seeds[0]), "bootstrap")
                p = paired([before[s] for s in seeds], [outcomes[s] for s in seeds], rng)
                pair = (f"{first}: {label}", f"{name}: {label}")
                found.append(Difference(*pair, p.mean, p.low, p.high, p.fixed, p.broken, p.p_value))
    return found


def _outcomes(run: Run) -> dict[str, dict[str, bool]]:
    """Real outcomes by policy and seed; of a demo there are none."""
    rows = run.result.get("policies", []) if any(j.where == REAL for j in run.judged) else []
    return {row["label"]: row.get("outcomes", {}) for row in rows}


def _flat(where: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(where, value)]
    return [pair for k, v in value.items() for pair in _flat(f"{where}.{k}" if where else str(k), v)]
