"""The whole chain as a user runs it, at the smallest size that goes through every room."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RATE = {"successes", "episodes", "rate", "low", "high"}
SECONDS = {"setup", "collect", "train", "train_world", "steer", "evaluate", "total"}


def demo(out: Path, *flags: str) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    line = f"-m robopolicy.cli demo --preset tiny --processes 1 --out {out}"
    command = [sys.executable, *line.split(), *flags]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=580, check=False)


def test_demo_reports_every_field_and_once_finished_does_nothing_again(tmp_path):
    out = tmp_path / "demo"
    done = demo(out, "--refresh", "3")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((out / "result.json").read_text())
    for name in ("base", "steered", "steered_refresh"):
        for where in ("real", "imagined"):
            assert result[name][where].keys() == RATE
    assert {"mean", "low", "high"} <= result["paired_difference"].keys()
    assert result["wall_clock_s"].keys() >= SECONDS
    assert result["speed"].keys() == {"imagined_steps_per_s", "real_steps_per_s", "processes"}
    assert result["real_steps_between_world_and_evaluation"] == 0
    assert result["refresh"]["episodes"] == 3
    assert result["refresh"]["real_steps"] > 0
    assert result["promotion"]["promoted"] is False  # on so few episodes nothing is
    assert result["hashes"]["policy"]["before"] == result["hashes"]["policy"]["after"]
    assert result["hashes"]["world"]["before"] == result["hashes"]["world"]["after"]
    assert {
        "schema",
        "task",
        "preset",
        "master_seed",
        "peak_memory_mb",
        "versions",
        "hardware",
    } <= result.keys()
    assert "steered - base" in done.stdout
    assert (out / "report.html").is_file()

    artefacts = [out / name / "manifest.json" for name in ("policy", "world", "steerer")]
    before = [p.stat().st_mtime_ns for p in artefacts]
    again = demo(out, "--refresh", "3")
    assert again.returncode == 0, again.stderr[-3000:]
    assert [p.stat().st_mtime_ns for p in artefacts] == before


def test_demo_of_a_policy_that_remembers(tmp_path):
    done = demo(tmp_path / "demo", "--task", "cue-short", "--policy", "sega")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "demo/result.json").read_text())
    assert result["config"]["train"]["memory"] == "sega"
    assert result["steered"]["real"].keys() == RATE
    assert result["hashes"]["policy"]["before"] == result["hashes"]["policy"]["after"]
