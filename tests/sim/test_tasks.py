"""Tasks are found by name, ours and the user's; the document about them says what they are."""

import re
import sys

import numpy as np
import pytest

from robopolicy.cli import main
from robopolicy.data.episodes import load_episodes
from robopolicy.errors import BadInput
from sim.tasks import TASKS, Task, find_task
from source_tree import ROOT

DOCUMENT = (ROOT / "docs" / "tasks.md").read_text()


def described(name: str, task: Task) -> str:
    """Beginning and end of the task's line in the table."""
    recipe = task.demonstrations
    operators = task.experts()[recipe.expert].operators
    given = f"{recipe.episodes} {recipe.imperfection}" + (f", `{recipe.where}`" if recipe.where else "")
    strategies = ", ".join(o.strategy for o in operators)
    return f"| `{name}` | * | {task.spec.robot} | {task.spec.horizon} | {strategies} | {given} |"


def test_document_lists_every_task_as_it_is():
    lines = [re.sub(r"^(\| `[^`]+` \|)[^|]+\|", r"\1 * |", x) for x in DOCUMENT.splitlines()]
    assert [x for x in lines if x.startswith("| `")] == [described(n, t) for n, t in TASKS.items()]


@pytest.fixture
def gates(tmp_path, monkeypatch):
    """The document's example, saved where it says, for a user who stands in that folder."""
    code = DOCUMENT.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) < 60
    (tmp_path / "gates.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    return tmp_path


def test_document_example_is_recorded_with_successes_and_failures(gates):
    command = "collect --task gates:TASK --episodes 12 --processes 1 --out demos"
    assert main(command.split()) == 0
    episodes = load_episodes([gates / "demos"])
    assert {e.success for e in episodes if e.strategy == "narrow"} == {True, False}
    assert {e.success for e in episodes if e.strategy == "wide"} == {True}


def test_document_example_same_seed_same_start(gates):
    env = find_task("gates:TASK").make()
    first, other, again = (env.reset(seed=s)[0] for s in (1, 2, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["gates:NONE", "gates:SPEC", "nowhere:TASK", ":TASK", "gates:"])
def test_find_task_module_without_such_a_task_refused(gates, name):
    with pytest.raises(BadInput, match=r"sim\.tasks\.Task"):
        find_task(name)
