"""Pictures and the page of the study, made of its results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from robopolicy.checkpoint import write_atomic
from robopolicy.report.svg import FAINT, PALETTE, Axis, Plot

_SHAPES = ("circle", "square", "diamond", "triangle")
_TICKS = (0, 0.25, 0.5, 0.75, 1)
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
figure{margin:0;max-width:26rem}.pair{display:flex;flex-wrap:wrap;gap:2rem}.scroll{overflow-x:auto}
table{border-collapse:collapse}td,th{padding:.25rem .6rem;border-bottom:1px solid #e3e6ea;text-align:right}
th:first-child,td:first-child{text-align:left}"""


def scatter(units: Sequence[Mapping[str, Any]]) -> str:
    """Every policy of every unit: imagined against real success."""
    x, y = (Axis(0, 1, f"{where} success", percent=True, ticks=_TICKS) for where in ("imagined", "real"))
    tasks = list(dict.fromkeys(u["task"] for u in units))
    count = sum(len(u["ranking"]["policies"]) for u in units)
    plot = Plot(
        "Real and imagined success",
        f"{count} policies of {len(units)} units; on the diagonal imagination tells the truth.",
        x,
        y,
        left=56,
        square=True,
    )
    plot.line([0, 1], [0, 1], FAINT, "4 3", 1.5)
    for unit in units:
        index = tasks.index(unit["task"])
        colour, shape = PALETTE[index % len(PALETTE)], _SHAPES[index % len(_SHAPES)]
        for row in unit["ranking"]["policies"].values():
            plot.marker(row["imagined"]["rate"], row["real"]["rate"], shape, colour, size=4)
    for index, task in enumerate(tasks):
        plot.legend(task, PALETTE[index % len(PALETTE)], _SHAPES[index % len(_SHAPES)])
    plot.legend("real = imagined", FAINT, "dash")
    return plot.svg()


def write_page(out: Path, tables: Mapping[str, str], units: Sequence[Mapping[str, Any]]) -> None:
    """One HTML file that fetches nothing.

    Args:
        out: the file.
        tables: heading -> table in Markdown.
        units: results of the units.
    """
    parts = [f"<h2>{escape(name)}</h2>{_html(table)}" for name, table in tables.items()]
    body = f"<h1>Does imagination tell the truth?</h1><figure>{scatter(units)}</figure>{''.join(parts)}"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Does imagination tell the truth?</title><style>{_STYLE}</style>"
    )
    page = f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
    write_atomic(out, page.encode())


def _html(markdown: str) -> str:
    """Tables, and what stands between them."""
    blocks = markdown.strip().split("\n\n")
    return "".join(_html_table(b) if b.startswith("|") else f"<p>{escape(b)}</p>" for b in blocks)


def _html_table(markdown: str) -> str:
    lines = [line.strip("| \n").split(" | ") for line in markdown.strip().splitlines()]
    head, rows = lines[0], lines[2:]

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(c)}</{tag}>' for c in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f'<div class="scroll"><table><thead>{row(head, "th")}</thead><tbody>{body}</tbody></table></div>'
