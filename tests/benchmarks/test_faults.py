"""The guards that benchmarks/faults.py takes away are where it says they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults import GUARDS, ROOT, Guard, summary


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.name)
def test_guard_is_in_its_file_once(guard: Guard):
    assert (ROOT / guard.file).read_text().count(guard.check) == 1


def test_every_fault_has_a_test():
    texts = [p.read_text() for p in Path(ROOT, "tests").rglob("test_*.py")]
    missing = [n for n in range(1, 43) if not any(f"def test_fault_{n:02d}_" in t for t in texts)]
    assert missing == []


def test_summary_counts_what_was_caught():
    found = summary({"1": {"test": ["a"], "fired": True}}, {"one": "test_a", "two": ""})
    assert found["guards_removed"] == {"total": 2, "caught": 1}
