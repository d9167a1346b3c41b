"""Every fault fires its test, and every guard is needed: without it some test fails.

    python -m benchmarks.faults [--only NAME ...]

Runs all tests named test_fault_NN, then takes the guards of the robot loop away one by one, in a copy of this
repository, and runs the tests that need no ROS. A guard without which all tests pass is one that nothing
shows to work. Results: benchmarks/results/faults.json.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from robopolicy.checkpoint import write_json
from robopolicy.results import hardware, versions

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "faults.json"
_COPIED = ("robopolicy", "ros_nodes", "sim", "world_models", "tests", "benchmarks", "pyproject.toml")
_JUDGES = ("tests/faults", "tests/ros_nodes")
_NAME = re.compile(r"test_fault_(\d+)_(\w+)")


@dataclass(frozen=True)
class Guard:
    """A check, and what is left when it is gone.

    Attributes:
        name: what it guards against.
        file: where it is.
        check: its text, which is in the file once.
        gone: what takes its place.
    """

    name: str
    file: str
    check: str
    gone: str


GUARDS = (
    Guard(
        "state not finite",
        "ros_nodes/safety.py",
        "if not (finite and np.isfinite(point).all() and np.isfinite(measured).all()):",
        "if False:",
    ),
    Guard(
        "state repeated or stale",
        "ros_nodes/safety.py",
        "if old or not self._fresh(wall_ns - stamp_ns, self._t.state_max_age_s):",
        "if False:",
    ),
    Guard(
        "chunk that nobody asked for",
        "ros_nodes/safety.py",
        "if self._asked_at is None or self._full():",
        "if False:",
    ),
    Guard(
        "chunk of other joints",
        "ros_nodes/safety.py",
        "if sorted(names) != sorted(self._names):",
        "if False:",
    ),
    Guard(
        "chunk too long or empty",
        "ros_nodes/safety.py",
        "if actions.ndim != 2 or not 1 <= len(actions) <= self._max_chunk or actions.shape[1] != len(names):",
        "if False:",
    ),
    Guard("chunk not finite", "ros_nodes/safety.py", "if not np.isfinite(actions).all():", "if False:"),
    Guard(
        "chunk of an unknown or old state",
        "ros_nodes/safety.py",
        "if not known or not self._fresh(wall_ns - stamp_ns, self._t.chunk_max_age_s):",
        "if False:",
    ),
    Guard(
        "policy server restarted",
        "ros_nodes/safety.py",
        "if self._epoch not in (None, epoch) and self.mode is not Mode.DISARMED:",
        "if False:",
    ),
    Guard(
        "no state for too long",
        "ros_nodes/safety.py",
        "if self._state_at is None or not 0 <= now - self._state_at <= self._t.state_max_age_s:",
        "if self._state_at is None:",
    ),
    Guard(
        "no heartbeat for too long",
        "ros_nodes/safety.py",
        "if self._beat_at is None or not 0 <= now - self._beat_at <= self._t.heartbeat_max_age_s:",
        "if self._beat_at is None:",
    ),
    Guard("camera blind", "ros_nodes/safety.py", "if self._watch.blind(now, self._where()):", "if False:"),
    Guard(
        "another publisher",
        "ros_nodes/safety.py",
        "        if not self._alone:\n            self.stop(Reason.TWO_PUBLISHERS)",
        "",
    ),
    Guard(
        "clock that jumps",
        "ros_nodes/safety.py",
        'if not 0 <= gap <= self._t.tick_gap_s and gap != float("inf"):',
        "if False:",
    ),
    Guard(
        "held for too long",
        "ros_nodes/safety.py",
        "if self.mode is not Mode.RUNNING and now - self._since > self._t.fault_after_s:",
        "if False:",
    ),
    Guard(
        "fault is latched",
        "ros_nodes/safety.py",
        "if self.mode is not Mode.DISARMED or not self.resting:",
        "if False:",
    ),
    Guard(
        "step by step: limits",
        "ros_nodes/stepped.py",
        "command = self._limits.clamp(wanted, self._before, self._point)",
        "command = wanted",
    ),
    Guard(
        "step by step: chunk too old to be played",
        "ros_nodes/stepped.py",
        "if self._chunk and not 0 <= now - self._chunk_at <= self._t.chunk_life_s:",
        "if False:",
    ),
    Guard(
        "step by step: state without an answer",
        "ros_nodes/stepped.py",
        "return Reason.NO_CHUNK if late else Reason.NONE",
        "return Reason.NONE",
    ),
    Guard(
        "by time: position and speed",
        "ros_nodes/motion.py",
        "        return within\n",
        "        return np.ones_like(within)\n",
    ),
    Guard(
        "by time: acceleration",
        "ros_nodes/motion.py",
        "within = np.abs(then.a) <= b.acceleration * (1 + _ROUNDING)",
        "within = np.ones(jerk.shape, bool)",
    ),
    Guard(
        "by time: start outside the limits",
        "ros_nodes/timed.py",
        "if not (inside | paced).all() or self._outside():",
        "if False:",
    ),
    Guard(
        "by time: chunk that begins far away",
        "ros_nodes/timed.py",
        "if self.mode is not Mode.RUNNING and (far & ~self._bounds.paced).any():",
        "if False:",
    ),
    Guard(
        "by time: chunk whose time is over",
        "ros_nodes/timed.py",
        "if times[-1] <= now:",
        "if False:",
    ),
    Guard(
        "by time: arm that does not follow",
        "ros_nodes/timed.py",
        "        if (far & ~self._bounds.paced).any():\n            return Reason.TRACKING",
        "",
    ),
    Guard(
        "by time: point outside its box",
        "ros_nodes/timed.py",
        "if self._outside() and not self._drive.moved_by:",
        "if False:",
    ),
    Guard(
        "by time: policy that wants beyond a limit",
        "ros_nodes/timed.py",
        "if self._beyond_since is not None and now - self._beyond_since > self._t.fault_after_s:",
        "if False:",
    ),
    Guard(
        "message too large",
        "ros_nodes/parse.py",
        "if max(len(message.name), len(message.position)) > _MAX_JOINTS:",
        "if False:",
    ),
    Guard(
        "observation not finite or out of range",
        "robopolicy/serve.py",
        'obs = spec.check_obs(obs, "obs")',
        "pass",
    ),
    Guard(
        "chunk of the policy not finite",
        "robopolicy/serve.py",
        "if chunk.shape != prior.shape or not np.isfinite(chunk).all():",
        "if False:",
    ),
    Guard(
        "noise of a steerer",
        "robopolicy/serve.py",
        "if not (torch.isfinite(noise).all() and noise.abs().max() <= MAX_NOISE):",
        "if False:",
    ),
)


def main() -> None:
    """Runs both and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these guards, and no fault tests")
    args = parser.parse_args()
    console = Console()
    if args.only:
        removed = {g.name: caught(g) for g in GUARDS if g.name in args.only}
        console.print(removed)
        return
    faults = fired()
    table = Table("fault", "test", "fired")
    for number, row in sorted(faults.items(), key=lambda x: int(x[0])):
        table.add_row(number, ", ".join(row["test"]), "yes" if row["fired"] else "NO")
    console.print(table)
    removed = {}
    for guard in GUARDS:
        removed[guard.name] = caught(guard)
        console.print(f"without the guard against {guard.name}: {removed[guard.name] or 'NOTHING FAILS'}")
    write_json(RESULTS, summary(faults, removed))


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
        ran = _run(copy, [*_JUDGES, "-x", "-m", "not ros"])
    return next((name for name, passed in ran.items() if not passed), "")


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
