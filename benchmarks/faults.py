"""Every fault fires its test, and every guard is needed: without it some test fails.

    python -m benchmarks.faults [--only NAME ...]

Runs all tests named test_fault_NN, then takes the guards (benchmarks/guards.py) away one by one, in a copy of
this repository, and runs the tests of its fault, or those of the robot loop that need no ROS. A guard without
which all tests pass is one that nothing shows to work. Results: benchmarks/results/faults.json.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.guards import GUARDS, Guard
from robopolicy.checkpoint import read_json, write_json
from robopolicy.results import hardware, versions

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "faults.json"
_COPIED = ("robopolicy", "ros_nodes", "sim", "world_models", "tests", "benchmarks", "pyproject.toml")
_ROBOT_LOOP = ("tests/faults/test_robot_loop.py", "tests/ros_nodes")
_NAME = re.compile(r"test_fault_(\d+)_(\w+)")


def main() -> None:
    """Runs both and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    again = "only these guards again, in results that are there"
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[g.name for g in GUARDS], help=again)
    args = parser.parse_args()
    console = Console()
    before = read_json(RESULTS) if args.only else {"faults": fired(), "caught_by": {}}
    faults, removed = before["faults"], before["caught_by"]
    table = Table("fault", "test", "fired")
    for number, row in sorted(faults.items(), key=lambda x: int(x[0])):
        table.add_row(number, ", ".join(row["test"]), "yes" if row["fired"] else "NO")
    console.print(table)
    for guard in (g for g in GUARDS if not args.only or g.name in args.only):
        removed[guard.name] = caught(guard)
        console.print(f"without the guard against {guard.name}: {removed[guard.name] or 'NOTHING FAILS'}")
    kept = read_json(RESULTS).get("kills") if RESULTS.is_file() else None
    write_json(RESULTS, summary(faults, removed) | ({"kills": kept} if kept else {}))


def summary(faults: dict[str, Any], removed: dict[str, str]) -> dict[str, Any]:
    """The results file."""
    total = {"total": len(removed), "caught": sum(bool(test) for test in removed.values())}
    common = {"versions": versions(), "hardware": hardware()}
    return {"schema": 1, "faults": faults, "guards_removed": total, "caught_by": removed, **common}


def fired() -> dict[str, Any]:
    """By fault: its tests, and whether all of them ran and passed."""
    faults: dict[str, Any] = {}
    for name, passed in _run(ROOT, ["tests", "-k", "test_fault_"]).items():
        if match := _NAME.search(name):
            row = faults.setdefault(str(int(match[1])), {"test": [], "fired": True})
            if (test := match[0]) not in row["test"]:
                row["test"].append(test)
            row["fired"] = row["fired"] and passed
    return faults


def caught(guard: Guard) -> str:
    """The first test that fails without a guard, "" if none does."""
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        copy = Path(folder)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
            else:
                shutil.copy(source, copy / name)
        path = copy / guard.file
        text = path.read_text()
        assert text.count(guard.check) == 1, f"{guard.file} has not one {guard.check!r}"
        path.write_text(text.replace(guard.check, guard.gone))
        ran = _run(copy, [*_judges(guard.fault), "-x", "-m", "not ros"])
    return next((name for name, passed in ran.items() if not passed), "")


def _judges(fault: int) -> list[str]:
    """What pytest is to run: the tests of a fault, or of the robot loop."""
    if not fault:
        return list(_ROBOT_LOOP)
    named = f"test_fault_{fault:02d}_"
    files = sorted(Path(ROOT, "tests/faults").glob("test_*.py"))
    return [*(str(f.relative_to(ROOT)) for f in files if named in f.read_text()), "-k", named]


def _run(folder: Path, arguments: list[str]) -> dict[str, bool]:
    """Test -> whether it passed; one that was skipped did not."""
    with tempfile.TemporaryDirectory(prefix="junit-") as out:
        report = Path(out) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        subprocess.run([*command, *arguments], cwd=folder, capture_output=True, check=False)
        cases = ET.parse(report).getroot().iter("testcase")
        return {f"{c.get('classname')}::{c.get('name')}": _passed(c) for c in cases}


def _passed(case: ET.Element) -> bool:
    return not any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))


if __name__ == "__main__":
    main()
