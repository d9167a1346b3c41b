"""Memory tasks: those who remember succeed, those who guess do not, and the same seed is the same episode."""

import dataclasses

import numpy as np
import pytest
import torch
from serial_env import Serial, expert

from robopolicy.rollout import PriorSteerer, rollout
from sim.memory_env import GOALS
from sim.tasks import MEMORY, find_task

STILL = np.zeros(3, np.float32)


@pytest.mark.parametrize("name", MEMORY)
def test_expert_succeeds(name):
    done = rollout(Serial(name, 2), expert(name), PriorSteerer(), range(20))
    assert all(e.success for e in done)
    assert max(e.length for e in done) < find_task(name).spec.horizon


@pytest.mark.parametrize("name", ["cue-short", "count", "return", "tour", "errand"])
def test_expert_who_forgets_fails(name):
    class Forgetful:
        spec = dataclasses.replace(find_task(name).spec, chunk=1)

        def initial(self, seeds):
            return expert(name).initial(seeds)

        def sample(self, obs, carry, noise):
            carry = {**carry, "phase": torch.zeros_like(carry["phase"])}
            return expert(name).sample(obs, carry, noise)

    done = rollout(Serial(name), Forgetful(), PriorSteerer(), range(12))
    assert sum(e.success for e in done) <= 6


@pytest.mark.parametrize("name", MEMORY)
def test_same_seed_same_episode_and_other_seed_another(name):
    env = find_task(name).make()

    def played(seed):
        first, _ = env.reset(seed=seed)
        return np.stack([first, *(env.step(STILL)[0] for _ in range(60))])

    assert np.array_equal(played(3), played(3))
    assert not np.array_equal(played(3), played(4))


def test_cue_is_shown_for_a_chunk_and_then_no_more_until_long_after_the_signal():
    env = find_task("cue-medium").make()
    for seed in range(20):
        env.reset(seed=seed)
        states, over = [], False
        while not over:
            state, _, won, over, _ = env.step(STILL)
            states.append(state)
        lamps, go = np.array(states)[:, 3:7], np.array(states)[:, 7]
        assert not won
        assert lamps.sum() in (7, 8)  # the step before the first action may be one of them
        assert (lamps.max(0) > 0).sum() == 1
        assert go.argmax() - np.flatnonzero(lamps.max(1))[-1] >= 53
        assert len(states) < env.spec.horizon


@pytest.mark.parametrize("lamp", range(len(GOALS)))
def test_cue_only_the_right_corner_counts(lamp):
    env = find_task("cue-short").make()
    for seed in range(6):
        env.reset(seed=seed)
        over = success = False
        state = env._state()
        while not (over or success):
            goal = np.array([*GOALS[lamp], 0.0]) * (state[7] >= 1)
            step = np.clip(goal - env.hand, -0.1, 0.1).astype(np.float32)
            state, _, success, over, _ = env.step(step)
        assert success == (env.cue == lamp)
        assert env.steps < env.go + 12


def test_signal_grows_for_a_chunk_before_it_is_due():
    env = find_task("count").make()
    state, _ = env.reset(seed=1)
    brightness = [float(state[3])]
    while len(brightness) <= env.signals[-1] + 1:
        brightness.append(float(env.step(STILL)[0][3]))
    for signal in env.signals:
        before = brightness[signal - 8 : signal + 2]
        assert before == [*np.arange(9) / 8, 0.0]
    assert sum(b > 0 for b in brightness) == 8 * len(env.signals)


def played(env, targets, early=False, seed=0):
    """Goes to each target and home, at the signals or before them; whether it succeeded and was stopped."""
    env.reset(seed=seed)
    success = over = False
    for at, target in zip(env.signals[: len(targets)], targets, strict=True):
        while not (over or success or early or env.steps > at):
            _, _, success, over, _ = env.step(STILL)
        for point in (np.array(target), np.zeros(3)):
            while not (over or success) and np.abs(point - env.hand).max() > 0.01:
                step = np.clip(point - env.hand, -0.1, 0.1).astype(np.float32)
                _, _, success, over, _ = env.step(step)
    return success, over


UP, LEFT, RIGHT = (0.0, 0.0, 0.6), (-0.6, 0.0, 0.0), (0.6, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("count-once", [RIGHT]),
        ("count-once", [UP, UP]),
        ("count-twice", [UP, RIGHT]),
        ("count-twice", [UP, UP, UP]),
        ("count", [UP, UP, RIGHT]),
        ("count", [UP, UP, UP, UP]),
        ("count", [RIGHT]),
        ("return", [LEFT, LEFT]),
        ("return", [RIGHT]),
    ],
)
def test_wrong_thing_at_a_signal_is_over(name, targets):
    assert played(find_task(name).make(), targets) == (False, True)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("count-once", [UP, RIGHT]),
        ("count-twice", [UP, UP, RIGHT]),
        ("count", [UP, UP, UP, RIGHT]),
        ("return", [LEFT, RIGHT]),
    ],
)
def test_right_things_at_the_signals_succeed_and_before_them_do_not(name, targets):
    assert played(find_task(name).make(), targets) == (True, False)
    assert played(find_task(name).make(), targets, early=True) == (False, True)


def test_tour_counts_only_the_corners_of_the_lamps_in_their_order_and_at_the_signals():
    env = find_task("tour").make()
    env.reset(seed=0)
    corners = [(*xy, 0.0) for xy in GOALS[env.cues]]
    assert played(env, corners) == (True, False)
    assert played(env, [corners[1], corners[0], corners[2]]) == (False, True)
    assert played(env, corners, early=True) == (False, True)


def test_errand_asks_for_each_thing_once_and_counts_only_the_corner_it_was_shown_in():
    env, both = find_task("errand").make(), set()
    for seed in range(20):
        first, _ = env.reset(seed=seed)
        states = np.stack([first, *(env.step(STILL)[0] for _ in range(env.signals[-1]))])
        lamps, things, signal = states[:, 3:7], states[:, 7:9], states[:, 9]
        lit, due = lamps.max(1) > 0, np.flatnonzero(signal == 1)
        assert np.array_equal(things.sum(1) > 0, lit | (signal > 0))
        assert things.sum(1).max() == 1
        kept = {int(t.argmax()): int(c.argmax()) for t, c in zip(things[lit], lamps[lit], strict=True)}
        asked = things[due].argmax(1).tolist()
        assert sorted(asked) == sorted(kept) == [0, 1]
        assert env.corners.tolist() == [kept[a] for a in asked]
        both.add(tuple(env.corners) == tuple(env.cues))
        corners = [(*xy, 0.0) for xy in GOALS[env.corners]]
        assert played(env, corners, seed=seed) == (True, False)
        assert played(env, corners[::-1], seed=seed) == (False, True)
    assert both == {True, False}


def test_tour_shows_each_lamp_for_a_chunk_and_none_twice_in_a_row():
    env = find_task("tour").make()
    for seed in range(20):
        env.reset(seed=seed)
        states = np.stack([env._state(), *(env.step(STILL)[0] for _ in range(env.signals[0]))])
        lamps, signal = states[:, 3:7], states[:, 7]
        lit = lamps.max(1) > 0
        begun = np.flatnonzero(lit & ~np.append(False, lit[:-1]))
        assert (lamps[begun].argmax(1) == env.cues).all()
        assert (np.diff(env.cues) != 0).all()
        assert (lamps.sum(1) <= 1).all()
        assert lit.sum() == 8 * len(env.cues)
        assert (np.diff(begun) >= 16).all()
        assert signal[: begun[-1] + 24].max() == 0
