"""Blocks: who does what the sentence says succeeds, and wordings that were held out are new in whole only."""

import numpy as np
import pytest
from serial_env import Serial, expert

from robopolicy.rollout import PriorSteerer, rollout
from sim.blocks import _COLOURS, _GOALS, goal_of, instruction
from sim.tasks import find_task

SEEDS = range(200)


def test_expert_succeeds_at_every_goal():
    done = rollout(Serial("blocks", 2), expert("blocks"), PriorSteerer(), range(24))
    assert all(e.success for e in done)
    assert {goal_of(e.seed) for e in done} == set(_GOALS)
    assert max(e.length for e in done) < find_task("blocks").spec.horizon


def test_expert_of_another_episode_fails():
    class Deaf:
        spec = expert("blocks").spec

        def initial(self, seeds):
            return expert("blocks").initial([s + 1 for s in seeds])

        def sample(self, obs, carry, noise):
            return expert("blocks").sample(obs, carry, noise)

    done = rollout(Serial("blocks"), Deaf(), PriorSteerer(), range(24))
    same = [goal_of(s) == goal_of(s + 1) for s in range(24)]
    assert [e.success for e in done] == same


def test_sentences_say_the_goal_and_only_it():
    said = {instruction(s, familiar) for s in SEEDS for familiar in (True, False)}
    for seed in SEEDS:
        verb, block = goal_of(seed)
        sentence = instruction(seed, True)
        assert any(name in sentence.split() for name in _COLOURS[block])
        others = [n for i, names in enumerate(_COLOURS) if i != block for n in names]
        assert not any(name in sentence.split() for name in others)
        assert (("above" in sentence) | ("hover" in sentence) | ("high" in sentence)) == (verb == "hover")
    assert len(said) == 2 * 4 * 2 * len(_COLOURS)


def test_new_wordings_were_never_demonstrated_but_all_their_words_were():
    familiar, new = ({instruction(s, known) for s in SEEDS} for known in (True, False))
    assert len(familiar) == len(new)
    assert not familiar & new
    words = {w for sentence in familiar for w in sentence.split()}
    assert all(w in words for sentence in new for w in sentence.split())


@pytest.mark.parametrize("verb", ["touch", "hover"])
def test_wrong_block_or_wrong_verb_is_over(verb):
    env = find_task("blocks").make()
    for seed in range(12):
        env.reset(seed=seed)
        right = goal_of(seed) == (verb, 1)
        over = success = False
        point = np.array([*env.blocks[1, :2], 0.5])
        for height in (0.5, 0.0) if verb == "touch" else (0.5,):
            point[2] = height
            for _ in range(30):
                if over or success or (verb == "touch" and height and np.abs(point - env.hand).max() < 0.01):
                    break
                step = np.clip(point - env.hand, -0.1, 0.1).astype(np.float32)
                _, _, success, over, _ = env.step(step)
        assert success == right
        assert over == (not right)
