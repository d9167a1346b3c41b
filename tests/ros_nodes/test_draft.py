"""A drafted contract fits its Spec, and allows what was demonstrated and little more."""

import dataclasses

import numpy as np
import pytest
from tiny import random_episodes, tiny_spec, write_dataset

from robopolicy.cli import main
from robopolicy.seeding import stream
from robopolicy.types import Episode
from ros_nodes.contract import Contract
from ros_nodes.draft import draft
from sim.tasks import TASKS


def made_up(spec, count=5, length=40):
    """Episodes with numbers from the middle half of the Spec's ranges."""
    episodes = []
    for i in range(count):
        rng = stream(0, "draft", i)

        def numbers(bounds, rows, rng=rng):
            middle, half = bounds.mean(0), np.ptp(bounds, 0) / 4
            return (middle + rng.uniform(-half, half, (rows, len(half)))).astype(np.float32)

        states, actions = numbers(spec.state_range, length + 1), numbers(spec.action_range, length)
        none = np.zeros((0, spec.chunk, spec.action_dim), np.float32)
        rest = none, np.zeros(0, int), np.zeros(0, np.float32)
        episodes.append(Episode(i, states, actions, True, True, False, *rest))
    return episodes


def read(tmp_path, text):
    (tmp_path / "arm.yaml").write_text(text)
    return Contract.load(tmp_path / "arm.yaml")


@pytest.mark.parametrize("task", [t for t in TASKS if not t.startswith("cue-m")])
def test_draft_fits_the_spec_of_every_task(tmp_path, task):
    spec = TASKS[task].spec
    contract = read(tmp_path, draft(spec, made_up(spec)))
    contract.check_spec(spec)
    assert set(contract.elements) == set(spec.state_names)
    assert contract.fps == spec.fps


def test_draft_allows_what_was_demonstrated_and_little_more(tmp_path):
    spec = TASKS["lift"].spec
    episodes = made_up(spec)
    limits = read(tmp_path, draft(spec, episodes)).limits
    commands = np.concatenate([e.actions for e in episodes])
    kept = (commands >= limits.low - 1e-6) & (commands <= limits.high + 1e-6)
    assert kept.mean() >= 0.98
    assert (limits.high <= 0.55 * spec.action_range[1]).all()
    (moving,) = (f for f in spec.action if f.moves)
    went = np.concatenate([e.states[:, spec.slice_of(moving.moves)] for e in episodes])
    assert (limits.box_low < went.min(0)).all()
    assert (limits.box_high > went.max(0)).all()
    assert (limits.box_high - limits.box_low < 1.2 * np.ptp(went, 0)).all()


def test_draft_of_still_demonstrations_can_be_read(tmp_path):
    spec = tiny_spec()
    still = [dataclasses.replace(e, actions=np.zeros_like(e.actions)) for e in random_episodes(spec)]
    limits = read(tmp_path, draft(spec, still)).limits
    assert (limits.max_change > 0).all()
    assert not limits.hold.any()


def test_verb_writes_a_new_file_and_never_over_another(tmp_path, capsys):
    data = write_dataset(tmp_path / "set", tiny_spec(), random_episodes(tiny_spec()))
    line = f"contract --dataset {data} --out {tmp_path}/new/arm.yaml --frame base"
    assert main(line.split()) == 0
    text = (tmp_path / "new/arm.yaml").read_text()
    assert "12 episodes of push" in text
    assert Contract.load(tmp_path / "new/arm.yaml").frame == "base"
    assert main(line.split()) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "new/arm.yaml").read_text() == text
