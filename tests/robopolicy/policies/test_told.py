"""Policies that are told what to do obey sentences and goals, and guidance is what it says."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import POLICY, normal, random_episodes, tiny_spec

from robopolicy.data.windows import PolicyWindows
from robopolicy.errors import BadInput
from robopolicy.policies.learners import TaskLearner
from robopolicy.policies.load import load_policy
from robopolicy.policies.told import Told, by_goal, by_words, told
from robopolicy.policies.train import new_policy, save_policy
from robopolicy.train import fit

SPEC = tiny_spec()
CONFIG = dataclasses.replace(POLICY, task_size=8, batch_size=64, steps=300, lr=3e-3)
WORDS = ("go up", "go down")


def episodes():
    """Half of them go up and say so, the others down, from the same place."""
    made = []
    for i, e in enumerate(random_episodes(SPEC, 24)):
        down = i % 2
        actions = np.zeros_like(e.actions)
        actions[:, 2] = -0.1 if down else 0.1
        states = np.repeat(e.states[:1], len(e.states), 0)
        states[:, 2] = np.linspace(0, -0.5 if down else 0.5, len(states))
        made.append(
            dataclasses.replace(
                e, states=states.astype(np.float32), actions=actions, instruction=WORDS[down], success=True
            )
        )
    return made


DATA = PolicyWindows(episodes(), SPEC)


@pytest.fixture(scope="module")
def policy():
    made = new_policy(SPEC, CONFIG, DATA, 0)
    learner = TaskLearner(made, DATA, CONFIG)
    fit(learner, CONFIG.steps, 0, "policy", quiet=True)
    made.core.load_state_dict(learner.ema.average)
    return made.eval().requires_grad_(False)


def starts(count):
    return DATA.obs(torch.arange(len(DATA)))[: count * 10 : 10]


def climbed(policy, task, count=6):
    obs = starts(count)
    actions, _ = policy.sample(obs, {"task": task.expand(count, -1)}, normal(count, SPEC.chunk, 3))
    return actions[..., 2].mean(1)


def test_sentences_are_obeyed(policy):
    up, down = by_words(policy, WORDS)
    assert (climbed(policy, up) > 0.05).all()
    assert (climbed(policy, down) < -0.05).all()


def test_goals_are_obeyed(policy):
    first, last = DATA.changes()
    for i in (0, 1):
        task = by_goal(policy, first[i : i + 1], last[i : i + 1])
        assert (climbed(policy, task) * (-1) ** i > 0.05).all()


def test_sentence_and_what_it_leads_to_are_close(policy):
    first, last = DATA.changes()
    match = by_words(policy, WORDS) @ by_goal(policy, first, last).T
    assert (match[0, ::2] > match[1, ::2]).all()
    assert (match[1, 1::2] > match[0, 1::2]).all()


def test_guidance_of_nothing_ignores_what_is_said_and_more_goes_beyond(policy):
    up, down = by_words(policy, WORDS)
    config = policy.core.config
    try:
        config.guidance = 0.0
        assert torch.equal(climbed(policy, up), climbed(policy, down))
        assert torch.allclose(climbed(policy, up), climbed(policy, torch.zeros(8)), atol=1e-6)
        gaps = []
        for config.guidance in (0.5, 1.0):
            gaps.append((climbed(policy, up) - climbed(policy, down)).mean())
        assert gaps[0] < gaps[1] + 1e-3
    finally:
        config.guidance = 1.0


def test_told_policy_carries_the_sentence_of_each_seed(policy):
    made = told(policy, lambda seed: WORDS[seed % 2])
    assert isinstance(made, Told)
    carry = made.initial([4, 5, 6])
    assert torch.allclose(carry["task"], by_words(policy, [WORDS[0], WORDS[1], WORDS[0]]), atol=1e-6)
    obs, noise = starts(3), normal(3, SPEC.chunk, 3)
    actions, after = made.sample(obs, carry, noise)
    assert torch.equal(after["task"], carry["task"])
    assert torch.equal(actions, policy.sample(obs, carry, noise)[0])
    assert made.hash() == policy.hash()


def test_saved_and_opened_is_told_the_same(policy, tmp_path):
    save_policy(policy, tmp_path)
    again = load_policy(tmp_path)
    assert torch.equal(by_words(again, WORDS), by_words(policy, WORDS))
    assert torch.equal(climbed(again, by_words(again, WORDS)[0]), climbed(policy, by_words(policy, WORDS)[0]))


def test_lerobots_batches_tell_by_their_task(policy):
    unit = policy.normalize(starts(2))
    n = SPEC.proprio_dim
    batch = {"observation.state": unit[..., :n], "observation.environment_state": unit[..., n:]}
    noise = normal(2, SPEC.chunk, 3)
    chunk = policy.core.predict_action_chunk({**batch, "task": list(WORDS)}, noise=noise)
    actions = policy.sample(starts(2), {"task": by_words(policy, WORDS)}, noise)[0]
    assert torch.allclose(policy.normalize_actions(actions), chunk.clamp(-1, 1), atol=1e-5)
    policy.core.reset()
    now = {k: v[:, -1] for k, v in batch.items()}
    first = policy.core.select_action({**now, "task": list(WORDS)}, noise=noise)
    still = {k: v[:, -1:].expand_as(v) for k, v in batch.items()}
    chunk = policy.core.predict_action_chunk({**still, "task": list(WORDS)}, noise=noise)
    assert torch.allclose(first, chunk[:, 0], atol=1e-6)


def test_few_labels_leave_most_sentences_unread():
    config = dataclasses.replace(CONFIG, labelled=0.25)
    learner = TaskLearner(new_policy(SPEC, config, DATA, 0), DATA, config)
    told = torch.unique(DATA.episode[learner.labelled])
    assert len(told) / len(DATA.episodes) == pytest.approx(0.25, abs=0.05)
    assert torch.isin(DATA.episode, told).sum() == len(learner.labelled)
    silent = [dataclasses.replace(e, instruction="") for e in episodes()]
    data = PolicyWindows(silent, SPEC)
    assert not TaskLearner(new_policy(SPEC, CONFIG, data, 0), data, CONFIG).labelled.numel()


def test_what_cannot_be_told_or_has_not_been_is_refused(policy):
    plain = new_policy(SPEC, POLICY, DATA, 0)
    with pytest.raises(BadInput, match="told"):
        by_words(plain, WORDS)
    with pytest.raises(BadInput, match="told"):
        policy.condition(starts(1))
    assert told(plain, lambda seed: "go up") is plain
    assert told(policy, None) is policy
    with pytest.raises(ValueError, match="task_size"):
        new_policy(SPEC, dataclasses.replace(CONFIG, memory="sega"), DATA, 0)
