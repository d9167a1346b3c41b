"""One small picture of a run, for a README: success with intervals, and imagined beside real."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from robopolicy.checkpoint import write_atomic
from robopolicy.errors import BadInput
from robopolicy.report.figures import GAP_LIMIT, percent
from robopolicy.report.gather import IMAGINED, REAL, Judged, Run, gather
from robopolicy.report.svg import FAINT, GRID, INK, PALETTE

_PLACES = {REAL: "real", IMAGINED: "imagined"}
_ROW = 56
# Pillow draws without smoothing, so the picture is drawn larger and scaled down.
_FINER = 4


def summary_png(run_dir: Path, out: Path) -> Path:
    """Draws the success of a run; the same run gives the same bytes.

    Args:
        run_dir: folder of a demo, of an evaluation, or of stage folders.
        out: the PNG file.

    Returns:
        `out`.

    Raises:
        BadInput: if there is nothing to draw, or a file of the run cannot be used; nothing is written.
    """
    run = gather(run_dir)
    if out.is_dir():
        raise BadInput("out", "a file", f"{out} (a folder)")
    pairs = _pairs(run)
    height = max(_ROW * len(run.judged) + 80, 330 if pairs else 0)
    sheet = _Sheet(980 if pairs else 620, height)
    _draw_bars(sheet, run)
    if pairs:
        _draw_gap(sheet, run, pairs)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, sheet.png())
    return out


class _Sheet:
    """A white picture to draw on; coordinates and sizes are pixels of the finished one."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * _FINER, height * _FINER), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._font = ImageFont.load_default(15 * _FINER)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> None:
        self._draw.line(_fine(x1, y1, x2, y2), colour, round(width * _FINER))

    def area(self, corners: list[tuple[float, float]], colour: str) -> None:
        self._draw.polygon(_fine(*(v for corner in corners for v in corner)), colour)

    def box(self, x1: float, y1: float, x2: float, y2: float, colour: str, hatched: bool = False) -> None:
        where = _fine(x1, y1, x2, y2)
        if not hatched:
            self._draw.rectangle(where, colour)
            return
        left, top, right, bottom = (round(v) for v in where)
        size = (max(1, right - left), max(1, bottom - top))
        # Drawn apart, so that the strokes end where the box does.
        inside = Image.new("RGB", size, "white")
        strokes = ImageDraw.Draw(inside)
        for x in range(-size[1], size[0], 8 * _FINER):
            strokes.line((x, size[1], x + size[1], 0), colour, 2 * _FINER)
        self._image.paste(inside, (left, top))
        self._draw.rectangle(where, outline=colour, width=round(1.5 * _FINER))

    def dot(self, x: float, y: float, colour: str, index: int) -> None:
        """A disc or a square, so that colour is not all that tells them apart."""
        corners = _fine(x - 6, y - 6, x + 6, y + 6)
        (self._draw.rectangle if index % 2 else self._draw.ellipse)(corners, colour)

    def text(self, x: float, y: float, text: str, anchor: str, colour: str = INK) -> None:
        """Pillow's anchors: l, m or r across; a (top), m or s (base line) along."""
        self._draw.text((x * _FINER, y * _FINER), text, colour, self._font, anchor)

    def png(self) -> bytes:
        small = self._image.resize((self.width, self.height), Image.Resampling.LANCZOS)
        data = BytesIO()
        small.save(data, "PNG", optimize=True)
        return data.getvalue()


def _fine(*values: float) -> list[float]:
    return [v * _FINER for v in values]


def _pairs(run: Run) -> list[tuple[Judged, Judged]]:
    """Real and imagined success of each policy that was judged in both."""
    return [
        (real, imagined)
        for label in run.labels
        if (real := run.rate(label, REAL)) and (imagined := run.rate(label, IMAGINED))
    ]


def _colour(run: Run, label: str) -> str:
    return PALETTE[run.labels.index(label) % len(PALETTE)]


def _draw_bars(sheet: _Sheet, run: Run) -> None:
    left, right, top = 160, 480, 10
    bottom = top + _ROW * len(run.judged)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * (right - left)
        sheet.line(x, top, x, bottom, GRID)
        sheet.text(x, bottom + 8, f"{tick:.0%}", "ma", FAINT)
    for row, j in enumerate(run.judged):
        y = top + _ROW * (row + 0.5)
        end, low, high = (left + v * (right - left) for v in (j.rate, j.low, j.high))
        sheet.box(left, y - 15, max(end, left + 1), y + 15, _colour(run, j.label), j.where == IMAGINED)
        # White below the whisker keeps it visible on a bar of any colour.
        for paint, width in (("white", 5), (INK, 2)):
            sheet.line(low, y, high, y, paint, width)
            for x in (low, high):
                sheet.line(x, y - 6, x, y + 6, paint, width)
        sheet.text(left - 10, y, f"{j.label}, {_PLACES[j.where]}", "rm")
        sheet.text(right + 18, y, f"{percent(j.rate)} of {j.episodes}", "lm")
    sheet.line(left, top, left, bottom, FAINT)
    sheet.text((left + right) / 2, bottom + 34, "success, with 95% Wilson interval", "ma")


def _draw_gap(sheet: _Sheet, run: Run, pairs: list[tuple[Judged, Judged]]) -> None:
    left, top, side = 700, 10, 250

    def at(imagined: float, real: float) -> tuple[float, float]:
        return left + imagined * side, top + (1 - real) * side

    g = GAP_LIMIT
    sheet.area([at(0, 0), at(g, 0), at(1, 1 - g), at(1, 1), at(1 - g, 1), at(0, g)], GRID)
    sheet.line(*at(0, 0), *at(1, 1), FAINT)
    sheet.line(*at(0, 0), *at(1, 0), FAINT)
    sheet.line(*at(0, 0), *at(0, 1), FAINT)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        sheet.text(at(tick, 0)[0], top + side + 8, f"{tick:.0%}", "ma", FAINT)
        sheet.text(left - 8, at(0, tick)[1], f"{tick:.0%}", "rm", FAINT)
    for n, (real, imagined) in enumerate(pairs):
        colour = _colour(run, real.label)
        sheet.line(*at(imagined.low, real.rate), *at(imagined.high, real.rate), colour, 2)
        sheet.line(*at(imagined.rate, real.low), *at(imagined.rate, real.high), colour, 2)
        sheet.dot(*at(imagined.rate, real.rate), colour, n)
        sheet.dot(left + 16, top + 16 + 22 * n, colour, n)
        sheet.text(left + 30, top + 16 + 22 * n, real.label, "lm")
    sheet.text(left + side / 2, top + side + 34, "imagined (across) and real (up) success", "ma")
