"""Progress bars with an ETA; plain lines every few seconds where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

console = Console(stderr=True)
_LINE_EVERY_S = 15.0


class Progress:
    """`with Progress("train", 1000) as bar: bar.advance()`."""

    def __init__(self, label: str, total: int, done: int = 0, quiet: bool = False):
        self._quiet = quiet
        self.label, self.total, self.done = label, total, done
        self._first, self._began, self._line = done, time.monotonic(), time.monotonic()
        self._bar: RichProgress | None = None

    def __enter__(self) -> Self:
        if console.is_terminal and not self._quiet:
            self._bar = RichProgress(
                TextColumn("{task.description:<24}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, note="")
        return self

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        if self._bar:
            fields: dict[str, Any] = {"note": note} if note else {}
            self._bar.update(self._task, completed=self.done, **fields)
            return
        if self._quiet:
            return
        now = time.monotonic()
        if now - self._line > _LINE_EVERY_S or self.done == self.total:
            self._line = now
            rate = (self.done - self._first) / max(1e-9, now - self._began)
            left = (self.total - self.done) / rate if rate else 0
            line = f"{self.label}: {self.done}/{self.total}, {left:.0f} s left {note}"
            console.print(line, highlight=False)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()


@contextmanager
def live() -> Iterator[Callable[[RenderableType], None]]:
    """A place at the end of the terminal that shows what it is given last; nothing where there is none."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with Live(console=console, refresh_per_second=4, transient=True) as shown:
        yield shown.update
