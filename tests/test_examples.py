"""The examples of docs/own.md run as they stand."""

from __future__ import annotations

import re

from fresh import ROOT, fresh_python
from tiny_chain import forge

from robopolicy.cli import main

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own.md").read_text(), re.DOTALL)


def test_examples_of_ones_own_are_short():
    assert len(EXAMPLES) == 4
    assert all(text.count("\n") < 60 for text in EXAMPLES)


def test_policy_of_ones_own_is_judged(tmp_path):
    (tmp_path / "drift.py").write_text(EXAMPLES[0])
    done = fresh_python("drift.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "/4)" in done.stdout


def test_steerer_of_ones_own_is_found_in_imagination(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forge(tmp_path)
    (tmp_path / "steerer.py").write_text(EXAMPLES[1])
    done = fresh_python("steerer.py", "world", "policy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("imagined success")


def test_refiner_of_ones_own_is_judged_like_any_policy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forge(tmp_path)
    (tmp_path / "refiner.py").write_text(EXAMPLES[2])
    done = fresh_python("refiner.py", "world", "policy", "refined", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = map(int, re.findall(r"(\d+) before, (\d+) after", done.stdout)[0])
    assert after >= before
    assert (
        main(
            [
                "imagine",
                "--world",
                "world",
                "--policy",
                "policy",
                "refined",
                "--episodes",
                "8",
                "--out",
                "judged",
            ]
        )
        == 0
    )


VERBS = (
    "dataset verify reach-demos",
    "train --dataset reach-demos --preset tiny --steps 3 --out policy",
)


def test_dataset_of_ones_own_is_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "record.py").write_text(EXAMPLES[3])
    done = fresh_python("record.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for line in VERBS:
        assert main(line.split()) == 0, line
    assert (
        main(["train", "--dataset", "reach-demos", "--preset", "tiny", "--steps", "3", "--out", "policy"])
        == 0
    )
