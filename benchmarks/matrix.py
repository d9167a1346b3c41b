"""Does the wheel install and work: alone, with each extra, with all of them, on each Python that is claimed?

    python -m benchmarks.matrix [--only plain sim ...] [--check]

Builds wheel and source archive, makes a clean environment for each case, installs the wheel there with what
the index offers today, or the oldest that is claimed, and runs what a user of it would run first. With
--check it writes no results and ends with an error if a case fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from robopolicy.checkpoint import read_json, write_json
from robopolicy.results import hardware

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "matrix.json"
_PLAIN = (
    "import importlib.util, robopolicy, world_models.load, robopolicy.policies.load; "
    "assert not any(map(importlib.util.find_spec, ('robosuite', 'metaworld', 'rclpy')))"
)
_HELP = "from robopolicy.cli import main; assert main(['train', '--help']) == 0"
_COLLECT = (
    "from robopolicy.cli import main\n"
    "if __name__ == '__main__':\n"
    "    line = 'collect --task lift --episodes 1 --expert careful --processes 1 --out demos'\n"
    "    assert main(line.split()) == 0\n"
    "    assert main('train --dataset demos --preset tiny --steps 2 --out policy'.split()) == 0\n"
)
# Of what was installed, what most often decides whether it works.
_SHOWN = ("torch", "lerobot", "diffusers", "numpy", "gymnasium", "mujoco", "robosuite", "ros-jazzy-rclpy")
_NODES = "import ros_nodes.gate_node, ros_nodes.policy_node, ros_nodes.eye_node"
_WORKERS = (
    "from robopolicy.backends import workers\n"
    "from math import sqrt\n"
    "def made(): return sqrt\n"
    "if __name__ == '__main__':\n"
    "    with workers(made, 'ray', 2) as run: assert dict(run([1, 4, 9])) == {0: 1, 1: 2, 2: 3}\n"
)
_TOGETHER = ("sim", "ros", "report", "tensorboard", "ray", "bench", "docs")
_REPORT = "import robopolicy.report.page"


@dataclass(frozen=True)
class Case:
    """An environment and what has to run in it.

    Attributes:
        extras: of the wheel.
        script: what is run there.
        python: version.
        source: install the source archive instead of the wheel.
        pins: versions to install with it.
    """

    extras: tuple[str, ...]
    script: str
    python: str = "3.12"
    source: bool = False
    pins: tuple[str, ...] = ()


CASES = {
    "plain": Case((), _PLAIN),
    "source archive": Case((), _HELP, source=True),
    "sim": Case(("sim",), _COLLECT),
    "ros": Case(("ros",), _NODES),
    "report": Case(("report",), _REPORT),
    "tensorboard": Case(("tensorboard",), "import tensorboard"),
    "wandb": Case(("wandb",), "import wandb"),
    "ray": Case(("ray",), _WORKERS),
    "bench": Case(("bench",), "import stable_baselines3"),
    "docs": Case(("docs",), "import zensical"),
    "together": Case(_TOGETHER, f"{_COLLECT}    {_NODES}\n"),
    # What LeRobot of the version that is claimed takes at least; at most is what the index offers today.
    "oldest torch": Case(("sim",), _COLLECT, pins=("torch==2.7.0", "torchvision==0.22.0")),
    "python 3.13": Case(("sim",), _COLLECT, "3.13"),
}


def main() -> None:
    """Runs the cases and writes the results after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a case does")
    args = parser.parse_args()
    console, found = Console(), read_json(RESULTS)["cases"] if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        dist = Path(folder) / "dist"
        building = ["uv", "build", "--quiet", "--python", sys.executable, "--out-dir", str(dist), str(ROOT)]
        _run(building, Path(folder))
        for name in args.only:
            found[name] = tried(CASES[name], dist, Path(folder) / name.replace(" ", "-"))
            console.print(f"{name}: {'works' if found[name]['works'] else found[name]['error']}")
            if not args.check:
                write_json(RESULTS, {"schema": 1, "cases": found, "hardware": hardware()})
    if args.check and not all(found[name]["works"] for name in args.only):
        raise SystemExit("a wheel that does not work")


def tried(case: Case, dist: Path, folder: Path) -> dict[str, Any]:
    """What came of a case, and the versions that were installed."""
    folder.mkdir()
    (folder / "first.py").write_text(case.script)
    (archive,) = dist.glob("*.tar.gz" if case.source else "*.whl")
    wanted = f"robopolicy[{','.join(case.extras)}] @ {archive.as_uri()}"
    python, began = str(folder / "env" / "bin" / "python"), time.perf_counter()
    row: dict[str, Any] = {"extras": list(case.extras), "python": case.python, "works": False, "error": ""}
    try:
        _run(["uv", "venv", "--quiet", "--python", _python(case.python), "env"], folder)
        _run(["uv", "pip", "install", "--quiet", "--python", python, wanted, *case.pins], folder)
        frozen = _run(["uv", "pip", "freeze", "--python", python], folder)
        found = dict(x.split("==") for x in frozen.splitlines() if x.count("==") == 1)
        row["versions"] = {name: found[name] for name in _SHOWN if name in found}
        _run([python, "first.py"], folder)
        row["works"] = True
    except subprocess.CalledProcessError as e:
        row["error"] = e.stderr.strip().splitlines()[-1:] or f"exit code {e.returncode}"
    return {**row, "seconds": round(time.perf_counter() - began, 1)}


def _python(version: str) -> str:
    """An interpreter of this version that runs here, else the version itself, for uv to look for."""
    if version == "{}.{}".format(*sys.version_info):
        return sys.executable
    shims = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"))
    return str(shims[-1]) if shims else version


def _run(command: list[str], folder: Path) -> str:
    """Standard output of a command, uv being that of this environment."""
    if command[0] == "uv":
        command = [str(Path(sys.executable).with_name("uv")), *command[1:]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=900)
    return done.stdout


if __name__ == "__main__":
    main()
