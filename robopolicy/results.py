"""What every verb leaves behind: `result.json`, with enough beside the numbers to trace and repeat them."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import psutil
import torch

import robopolicy
from robopolicy.checkpoint import REMEMBERED, write_json

RESULT = "result.json"
SCHEMA = 1
_PACKAGES = ("torch", "lerobot", "diffusers", "mujoco", "robosuite", "numpy")
_SAMPLE_S = 0.5


def write_result(out: Path, verb: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `out/result.json` and returns what is in it.

    Args:
        out: folder of the verb's output; made if it is missing.
        verb: what ran.
        fields: "config" and the verb's own results; JSON-able and finite.
    """
    common = {"schema": SCHEMA, "verb": verb, "config": fields.get("config", {})}
    result = {**common, "versions": versions(), "hardware": hardware(), **fields}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULT, result)
    (out / REMEMBERED).unlink(missing_ok=True)
    return result


def versions() -> dict[str, str | None]:
    """Of Python, this project and the packages that decide its numbers; null if not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "robopolicy": robopolicy.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory, operating system, graphics processor."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "platform": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class PeakMemory:
    """Largest resident memory of this process and its children together, sampled while inside.

    `with PeakMemory() as memory: ...; memory.mb`. Pages that processes share count once for each, so the
    number is an upper bound.
    """

    def __init__(self, every_s: float = _SAMPLE_S):
        self.mb = 0.0
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self._sample()

    def _sample(self) -> None:
        own = psutil.Process()
        total = 0
        for process in [own, *own.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile
                continue
        self.mb = max(self.mb, round(total / 1e6, 1))


class Stopwatch:
    """Wall-clock seconds by stage: `with watch.stage("collect"): ...; watch.seconds["collect"]`.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.seconds: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to `name`, also if it ends in an error."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + self._clock() - began, 3)

    @property
    def total(self) -> float:
        return round(sum(self.seconds.values()), 3)
