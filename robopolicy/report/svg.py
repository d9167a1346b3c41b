"""A small drawing kit: one pair of axes as inline SVG. No scripts, no fonts, nothing to fetch.

Plots are drawn 400 units wide, so that their text is readable on a telephone as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's palette, told apart with every kind of colour vision; without its yellow, which fails on
# white.
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
INK, FAINT, GRID = "#1b1f24", "#57606a", "#e3e6ea"
WIDTH = 400


@dataclass(frozen=True)
class Axis:
    """A scale between `low` and `high`.

    Attributes:
        low: smallest value.
        high: largest value.
        label: what it measures, with its unit.
        log: equal steps are equal ratios.
        percent: ticks as percentages.
        ticks: where to put them; at round numbers by default.
    """

    low: float
    high: float
    label: str = ""
    log: bool = False
    percent: bool = False
    ticks: tuple[float, ...] | None = None

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`, clipped to a little beyond."""
        low, high, v = self.low, self.high, value
        if self.log:
            low, high, v = math.log(low), math.log(high), math.log(max(value, low * 1e-3))
        return min(1.02, max(-0.02, (v - low) / (high - low)))

    def marks(self) -> list[float]:
        """Where ticks go."""
        if self.ticks is not None:
            return list(self.ticks)
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if self.high / self.low < 100 else (1,)
            marks = [m * 10.0**e for e in exponents for m in steps]
        else:
            rough = (self.high - self.low) / 4
            unit = 10.0 ** math.floor(math.log10(rough))
            step = min((s * unit for s in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
            first = math.ceil(self.low / step - 1e-9)
            marks = [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [m for m in marks if self.low * (1 - 1e-9) <= m <= self.high * (1 + 1e-9) or not self.log]

    def text(self, value: float) -> str:
        if self.percent:
            return f"{value:.0%}"
        if abs(value) >= 1000:
            return f"{value / 1000:g}k"
        return f"{value:.6g}"


def around(values: Sequence[float], label: str = "", margin: float = 0.05) -> Axis:
    """An axis that holds all values with some room at both ends."""
    low, high = min(values), max(values)
    room = margin * (high - low) or 0.5 * abs(high) or 0.5
    return Axis(low - room, high + room, label)


class Plot:
    """Axes to draw on; coordinates are the data's.

    Args:
        title: short; shown above the plot by the page and read aloud.
        alt: what there is to see, in a sentence or two.
        x: horizontal axis.
        y: vertical axis.
        height: of the whole drawing.
        left: room for the labels of the vertical axis.
        square: the same length for both axes.
    """

    def __init__(
        self, title: str, alt: str, x: Axis, y: Axis, height: int = 250, left: int = 52, square: bool = False
    ):
        self.title, self.alt, self.x, self.y = title, alt, x, y
        self.left, self.right, self.top = left, WIDTH - 20, 12
        if square:
            height = self.right - left + self.top + 46
        self.height, self.bottom = height, height - 46
        self._parts: list[str] = []
        self._legend: list[tuple[str, str, str]] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data lies in the drawing."""
        return (
            self.left + self.x.share(x) * (self.right - self.left),
            self.bottom - self.y.share(y) * (self.bottom - self.top),
        )

    def line(self, xs: Sequence[float], ys: Sequence[float], colour: str, dash: str = "", width: float = 2):
        points = " ".join(_point(*self.at(x, y)) for x, y in zip(xs, ys, strict=True))
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width:g}"'
            f' stroke-linejoin="round" stroke-linecap="round"{dashed}/>'
        )

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str):
        there = [self.at(x, y) for x, y in zip(xs, high, strict=True)]
        back = [self.at(x, y) for x, y in zip(xs, low, strict=True)]
        points = " ".join(_point(*p) for p in [*there, *reversed(back)])
        self._parts.append(f'<polygon points="{points}" fill="{colour}" opacity="0.18"/>')

    def marker(self, x: float, y: float, shape: str, colour: str, hollow: bool = False, size: float = 5):
        cx, cy = self.at(x, y)
        self._parts.append(_shape(cx, cy, shape, colour, hollow, size))

    def text(self, x: float, y: float, text: str, anchor: str = "start", dx: float = 0, dy: float = 0):
        cx, cy = self.at(x, y)
        self._parts.append(_text(cx + dx, cy + dy, text, anchor))

    def raw(self, svg: str):
        """Adds SVG as it is; the caller escapes."""
        self._parts.append(svg)

    def legend(self, name: str, colour: str, shape: str = "line"):
        """A name below the plot; `shape` is "line", "dash" or a marker's."""
        self._legend.append((name, colour, shape))

    def svg(self) -> str:
        """The drawing."""
        rows = _legend_rows(self._legend, self.left)
        height = self.height + 18 * len(rows)
        body = [*self._grid(), *self._parts, *_legend_svg(rows, self.height)]
        return picture(self.title, self.alt, body, WIDTH, height)

    def _grid(self) -> list[str]:
        parts = []
        for value in self.y.marks():
            _, y = self.at(self.x.low, value)
            parts.append(_rule(self.left, y, self.right, y, GRID))
            parts.append(_text(self.left - 6, y + 4, self.y.text(value), "end", FAINT))
        for value in self.x.marks():
            x, _ = self.at(value, self.y.low)
            parts.append(_rule(x, self.bottom, x, self.bottom + 4, FAINT))
            parts.append(_text(x, self.bottom + 17, self.x.text(value), "middle", FAINT))
        parts.append(_rule(self.left, self.bottom, self.right, self.bottom, FAINT))
        middle = (self.left + self.right) / 2
        parts.append(_text(middle, self.bottom + 35, self.x.label, "middle"))
        if self.y.label:
            cy = (self.top + self.bottom) / 2
            turned = f'transform="rotate(-90 12 {cy:.1f})"'
            parts.append(
                f'<text x="12" y="{cy:.1f}" text-anchor="middle" {turned}>{escape(self.y.label)}</text>'
            )
        return parts


def picture(title: str, alt: str, parts: Sequence[str], width: float, height: float) -> str:
    """Wraps shapes into one accessible SVG element that scales with the page."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}. {escape(alt)}"'
        f' font-size="12" fill="{INK}">' + "".join(parts) + "</svg>"
    )


def standalone(svg: str) -> bytes:
    """A drawing as a file of its own: with its name space, and white behind it whatever the page is."""
    return svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff"', 1).encode()


def _point(x: float, y: float) -> str:
    return f"{x:.1f},{y:.1f}"


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _shape(x: float, y: float, shape: str, colour: str, hollow: bool, size: float) -> str:
    paint = f'fill="{"#fff" if hollow else colour}" stroke="{colour}" stroke-width="2"'
    if shape == "square":
        return f'<rect x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size}" height="{2 * size}" {paint}/>'
    if shape == "diamond":
        r = 1.4 * size
        return f'<path d="M{x:.1f},{y - r:.1f}l{r:g},{r:g}l{-r:g},{r:g}l{-r:g},{-r:g}z" {paint}/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {paint}/>'


def _legend_rows(items: Sequence[tuple[str, str, str]], left: int) -> list[list[tuple[float, str, str, str]]]:
    """Places names side by side, in as many rows as they need; widths are estimates from their length."""
    rows: list[list[tuple[float, str, str, str]]] = []
    x = float(WIDTH)
    for name, colour, shape in items:
        width = 34 + 6.4 * len(name)
        if x + width > WIDTH:
            rows.append([])
            x = float(left)
        rows[-1].append((x, name, colour, shape))
        x += width
    return rows


def _legend_svg(rows: Sequence[Sequence[tuple[float, str, str, str]]], top: float) -> list[str]:
    parts = []
    for i, row in enumerate(rows):
        y = top + 18 * i + 6
        for x, name, colour, shape in row:
            if shape in ("line", "dash"):
                dashed = ' stroke-dasharray="4 3"' if shape == "dash" else ""
                parts.append(
                    f'<line x1="{x:.1f}" y1="{y}" x2="{x + 18:.1f}" y2="{y}" stroke="{colour}"'
                    f' stroke-width="2"{dashed}/>'
                )
            else:
                hollow = shape.startswith("hollow ")
                parts.append(_shape(x + 9, y, shape.removeprefix("hollow "), colour, hollow, 4))
            parts.append(_text(x + 24, y + 4, name, "start"))
    return parts
