"""`robopolicy doctor`: what is wrong with this machine, and the cure."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from robopolicy.cli.common import say

State = Literal["ok", "warn", "fail"]
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_CORE = ("torch", "lerobot", "diffusers", "numpy", "safetensors", "gymnasium", "tyro", "rich")
_PROBE_S = 60.0


@dataclass(frozen=True)
class Doctor:
    """Check this machine: Python, packages that do not go together, graphics, ROS 2, cores, memory, disk.

    Example: robopolicy doctor
    """


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        state: "ok", "warn" (something optional does not work) or "fail".
        subject: what was looked at.
        text: what was found.
        cure: what to do about it.
    """

    state: State
    subject: str
    text: str
    cure: str = ""


def doctor(args: Doctor) -> int:
    """Prints every finding; 1 if something fails."""
    from rich.markup import escape

    findings = diagnose()
    for f in findings:
        say(f"[{_COLOURS[f.state]}]{f.state:<5}[/]{f.subject:<12}{escape(f.text)}", markup=True)
        if f.cure:
            say(f"{'':17}-> {f.cure}")
    return int(any(f.state == "fail" for f in findings))


def diagnose(env: Mapping[str, str] | None = None) -> list[Finding]:
    """All findings on this machine.

    Args:
        env: environment variables; those of this process by default.
    """
    env = os.environ if env is None else env
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        lambda: packages(_version),
        _opencv,
        _graphics,
        lambda: ros(env, _version),
        lambda: _threads(env),
        _machine,
    )
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Finding]:
    fits = sys.version_info >= (3, 12)
    cure = "" if fits else "make setup finds or fetches Python 3.12"
    yield Finding("ok" if fits else "fail", "python", platform.python_version(), cure)


def packages(installed: Callable[[str], str | None]) -> Iterator[Finding]:
    """The core packages, and pairs that are known not to work together.

    Args:
        installed: version of a package, none if it is missing.
    """
    found = {name: installed(name) for name in _CORE}
    missing = [name for name, v in found.items() if v is None]
    if missing:
        yield Finding("fail", "packages", f"missing: {', '.join(missing)}", "make setup")
    else:
        text = ", ".join(f"{name} {v}" for name, v in found.items())
        yield Finding("ok", "packages", text)
    numpy = found["numpy"]
    if numpy and not numpy.startswith("2."):
        yield Finding("fail", "numpy", f"{numpy}; LeRobot needs 2", "pip install 'numpy>=2,<3'")
    mujoco, robosuite = installed("mujoco"), installed("robosuite")
    if mujoco is None or robosuite is None:
        yield Finding("warn", "simulator", "not installed", "pip install 'robopolicy[sim]'")
    elif robosuite == "1.5.1" and mujoco != "3.3.0":
        text = f"robosuite 1.5.1 with mujoco {mujoco}; later ones settle differently or fail"
        yield Finding("fail", "simulator", text, "pip install mujoco==3.3.0")
    elif robosuite != "1.5.1":
        cure = "pip install robosuite==1.5.1 mujoco==3.3.0"
        yield Finding("warn", "simulator", f"robosuite {robosuite}; tested with 1.5.1", cure)
    else:
        yield Finding("ok", "simulator", f"robosuite {robosuite}, mujoco {mujoco}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _opencv() -> Iterator[Finding]:
    both = [name for name in ("opencv-python", "opencv-python-headless") if _version(name)]
    if not both:
        return
    error = _probe("import cv2")
    cure = "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless"
    if error:
        yield Finding("fail", "opencv", f"{' and '.join(both)}: {error}", cure)
    else:
        note = " (both installed, one overwrote the other; it works)" if len(both) > 1 else ""
        yield Finding("ok", "opencv", f"import cv2 works{note}")


def _graphics() -> Iterator[Finding]:
    names = [name for name in ("EGL", "OSMesa") if ctypes.util.find_library(name)]
    if names:
        yield Finding("ok", "graphics", f"off-screen rendering by {' or '.join(names)}")
    else:
        cure = "Debian: apt install libegl1 libgl1-mesa-dri, or libosmesa6"
        yield Finding("warn", "graphics", "no EGL, no OSMesa: all but pictures of the simulator works", cure)


def ros(env: Mapping[str, str], installed: Callable[[str], str | None]) -> Iterator[Finding]:
    """rclpy, and whether two ROS installations are mixed.

    Args:
        env: environment variables.
        installed: version of a package, none if it is missing.
    """
    sourced = [name for name in ("AMENT_PREFIX_PATH", "ROS_DISTRO") if env.get(name)]
    wheels = installed("ros-jazzy-rclpy")
    if sourced and wheels:
        cure = "use one of them: open a shell without the ROS set-up file, or a venv without the extra 'ros'"
        yield Finding("warn", "ros mixed", f"wheels, and {' and '.join(sourced)} is set", cure)
    if find_spec("rclpy") is None:
        yield Finding("warn", "ros", "no rclpy: everything but deploy works", "pip install 'robopolicy[ros]'")
        return
    error = _probe("import rclpy")
    if error:
        yield Finding("fail", "ros", error, "pip install --force-reinstall 'robopolicy[ros]'")
    else:
        yield Finding("ok", "ros", f"rclpy works ({f'wheels {wheels}' if wheels else 'installation'})")
        from ros_nodes.security import unenforced

        if open_to_all := unenforced(env):
            cure = "for a real arm: robopolicy contract --security ROBOT --out policy.xml (docs/deploy.md)"
            yield Finding("warn", "ros security", f"not enforced: {open_to_all}", cure)
        else:
            yield Finding("ok", "ros security", "enforced")


def _threads(env: Mapping[str, str]) -> Iterator[Finding]:
    threads = env.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > _cores():
        text = f"OMP_NUM_THREADS={threads}, but {_cores()} cores"
        yield Finding("warn", "threads", text, f"export OMP_NUM_THREADS={_cores()}")
    else:
        yield Finding("ok", "threads", f"OMP_NUM_THREADS={threads or 'not set'}")


def _machine() -> Iterator[Finding]:
    few = _cores() < 2
    cure = "slower, nothing else" if few else ""
    yield Finding("warn" if few else "ok", "cores", str(_cores()), cure)
    memory = _memory_gb()
    if memory is not None:
        little = memory < 6
        cure = "close other programs: the chain needs up to 6 GB" if little else ""
        yield Finding("warn" if little else "ok", "memory", f"{memory:.1f} GB free", cure)
    disk = shutil.disk_usage(Path.cwd()).free / 1e9
    state: State = "ok" if disk > 5 else "warn" if disk > 0.5 else "fail"
    yield Finding(state, "disk", f"{disk:.0f} GB free here", "" if state == "ok" else "make room for 5 GB")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float | None:
    if find_spec("psutil") is None:
        return None
    import psutil

    return psutil.virtual_memory().available / 1e9


def _probe(code: str) -> str:
    """Runs code in a process of its own, where it may crash; the last line of its error, "" if none."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{code!r} takes longer than {_PROBE_S:.0f} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"{code!r} ended with code {done.returncode}"
