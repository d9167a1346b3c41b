"""The architecture as a figure, drawn from what the code imports."""

from __future__ import annotations

import ast
from collections import Counter
from html import escape
from pathlib import Path

import networkx

from robopolicy.report.svg import FAINT, GRID, INK, PALETTE, picture

ROOT = Path(__file__).parents[1]
ROOMS = ("robopolicy", "world_models", "sim", "ros_nodes")
_ABOUT = {
    "world_models": "learned dynamics, imagination",
    "sim": "simulated tasks, operators",
    "ros_nodes": "contract, safety gate, nodes",
}
_WIDTH, _ROW, _LINE = 760, 46, 6.6
_LEFT, _INNER = 12, 470  # the room robopolicy
_SIDE = 540  # the other rooms


def figure() -> str:
    """Parts of `robopolicy` above those that they import, and how much the other rooms use."""
    modules = {_name(p): p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))}
    used = Counter(
        (part, other) for name, path in modules.items() for part, other in _uses(name, path, modules)
    )
    levels = _levels({(a, b) for a, b in used if _inside(a) and _inside(b)})
    rows = [sorted(p for p, level in levels.items() if level == n) for n in range(max(levels.values()) + 1)]
    lines = [line for row in reversed(rows) for line in _wrapped(row)]
    height = 60 + _ROW * len(lines)
    parts = [_box(_LEFT, 30, _INNER, height - 40, GRID), _text(_LEFT + 10, 22, "robopolicy", bold=True)]
    for i, line in enumerate(lines):
        x = _LEFT + 12.0
        for name in line:
            short = name.removeprefix("robopolicy.")
            width = _LINE * len(short) + 22
            parts += [_box(x, 44 + _ROW * i, width, 30, PALETTE[1]), _text(x + 11, 63 + _ROW * i, short)]
            x += width + 8
    gap = (height - 40) / 3
    for i, room in enumerate(ROOMS[1:]):
        y = 30 + gap * i
        count = sum(n for (a, b), n in used.items() if a == room and _inside(b))
        parts.append(_box(_SIDE, y, _WIDTH - _SIDE - 12, gap - 24, PALETTE[2]))
        parts.append(_text(_SIDE + 12, y + 24, room, bold=True))
        parts += [_text(_SIDE + 12, y + 44, _ABOUT[room], FAINT)]
        parts += [_text(_SIDE + 12, y + 64, f"{count} imports from robopolicy", FAINT)]
        parts += [_text(_SIDE + 12, y + 84, "known to the command line alone", FAINT)]
        middle = y + 34
        parts.append(
            f'<path d="M{_SIDE} {middle:.0f}H{_LEFT + _INNER + 8}m0 0l8 -5v10z" stroke="{INK}" fill="{INK}"/>'
        )
    alt = "; ".join(f"level {n}: {', '.join(row)}" for n, row in enumerate(rows))
    return picture("Who imports whom", f"What is above imports what is below. {alt}", parts, _WIDTH, height)


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _inside(part: str) -> bool:
    return part.startswith("robopolicy.")


def _part(module: str) -> str:
    """A room, or in `robopolicy` a package or module of its first level."""
    first, *rest = module.split(".")
    return f"{first}.{rest[0]}" if first == "robopolicy" and rest else first


def _uses(name: str, path: Path, modules: dict[str, Path]) -> set[tuple[str, str]]:
    """(part, part that it imports) for one module, whether at its top or inside of a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for imported in names:
            while imported and imported not in modules:
                imported = imported.rpartition(".")[0]
            if imported and _part(imported) != _part(name) and imported not in ROOMS:
                found.add((_part(name), _part(imported)))
    return found


def _levels(edges: set[tuple[str, str]]) -> dict[str, int]:
    """How far above what imports nothing a part is; parts that import each other are on one level."""
    graph = networkx.DiGraph(sorted(edges))
    knots = networkx.condensation(graph)
    level: dict[int, int] = {}
    for knot in reversed(list(networkx.topological_sort(knots))):
        level[knot] = max((level[below] + 1 for below in knots.successors(knot)), default=0)
    return {part: level[knot] for part, knot in knots.graph["mapping"].items()}


def _wrapped(row: list[str]) -> list[list[str]]:
    lines: list[list[str]] = [[]]
    room = _INNER - 24.0
    for name in row:
        width = _LINE * len(name.removeprefix("robopolicy.")) + 30
        if room < width and lines[-1]:
            lines.append([])
            room = _INNER - 24.0
        lines[-1].append(name)
        room -= width
    return lines


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {where} rx="5" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str, colour: str = INK, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}"{weight}>{escape(text)}</text>'
