"""Faults of imagination, each by its number in docs/faults.md: 39, what it does not know, and 40, what it
rewards wrongly."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from scripted_world import SPEC, STARTS, ScriptedWorld
from steering_toy import Flawed, ToyEnv, ToyPolicy, imagined_and_true, recorded
from tiny import random_episodes

from robopolicy.checkpoint import folder_hash, is_sealed
from robopolicy.cli.judge import refusal
from robopolicy.config import STEER_PRESETS
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.evaluate import compare, evaluate
from robopolicy.protocols import Prediction
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.stats import wilson
from robopolicy.steering.dsrl import Dsrl
from robopolicy.steering.load import load_steerer
from robopolicy.steering.promotion import promote, require_promotion
from robopolicy.steering.replay import Batch, Replay
from robopolicy.steering.steer import steer
from world_models.imagined_env import ImaginedEnv


class Rising(torch.nn.Module):
    """A policy that rises by 0.01 a step, whatever its noise."""

    spec = SPEC

    def initial(self, seeds):
        return {}

    def sample(self, obs, carry, noise):
        return torch.full_like(noise, 0.01), carry


class Drifting(ScriptedWorld):
    """Sound for some chunks of an episode that begins at height 0, and then no more.

    Args:
        sound: chunks.
        how: what happens then: "nan", "inf", or "doubt".
    """

    def __init__(self, sound: int, how: str):
        super().__init__()
        self.sound, self.how = sound, how

    def predict(self, obs, actions, noise):
        states, success, doubt = super().predict(obs, actions, 0 * noise)
        # How high the hand is says how many chunks have passed.
        gone = obs[:, -1, 2] > 0.01 * SPEC.chunk * (self.sound - 0.5)
        if self.how == "doubt":
            doubt = torch.where(gone, 9.0, doubt)
        else:
            states = torch.where(gone[:, None, None], states + float(self.how), states)
        return Prediction(states, success, doubt)


FLAT = STARTS.copy()
FLAT[..., 2] = 0.0
REASONS = {"nan": "diverged", "inf": "diverged", "doubt": "doubt"}


@pytest.mark.parametrize("how", REASONS)
@pytest.mark.parametrize("sound", [0, 1, 2])
def test_fault_39_imagination_that_diverges_is_cut_there_and_nothing_of_it_is_learned_from(sound, how):
    env = ImaginedEnv(Drifting(sound, how), FLAT, 4, doubt_limit=1.0)
    done = rollout(env, Rising(), PriorSteerer(), range(6), "imagined")
    assert {(e.length, e.reason, e.truncated, e.terminated) for e in done} == {
        (sound * SPEC.chunk, REASONS[how], True, False)
    }
    own = dataclasses.replace(STEER_PRESETS["tiny"].dsrl, updates=0, envs=4)
    learner = Dsrl(
        Rising(),
        ImaginedEnv(Drifting(sound, how), FLAT, 4, doubt_limit=1.0),
        random_episodes(SPEC),
        dataclasses.replace(STEER_PRESETS["tiny"], dsrl=own),
        torch.Generator().manual_seed(0),
    )
    before = learner.replay.count
    metrics = [learner.step(i, torch.Generator().manual_seed(i)) for i in range(2 * (sound + 1))]
    assert [m["lost"] for m in metrics] == ([0.0] * sound + [4.0]) * 2
    b = Batch(*learner.replay.split(learner.replay.state()["rows"][before:]))
    lost = b.discount == 0
    assert int(lost.sum()) == 8
    assert all(x.isfinite().all() for x in b)
    assert (b.reward[lost] <= 0).all()
    assert torch.equal(b.features[lost], b.following[lost])  # of what was imagined there, nothing is left


def test_fault_39_transition_that_is_not_finite_is_refused_whole():
    columns = [torch.zeros(3, 2), torch.zeros(3)]
    for column in columns:
        replay, whole = Replay(9, (2, 0)), column[1].clone()
        column[1] = torch.nan
        with pytest.raises(BadInput, match="transition"):
            replay.add(columns)
        assert replay.count == 0
        column[1] = whole


def test_fault_40_false_reward_corner_that_is_doubted_is_kept_out_of(tmp_path):
    """The doubt limit, 1, is the 99th percentile on held-out data."""
    imagined, true = imagined_and_true(lambda n: Flawed(n, doubt_limit=1.0), tmp_path)
    assert imagined > 0.9
    assert true > 0.9


def test_fault_40_false_reward_corner_without_the_guard_is_where_learning_ends(tmp_path):
    """One direction then succeeds whatever the goal, and is right for the half of all starts it leads to."""
    imagined, true = imagined_and_true(lambda n: Flawed(n, doubt_limit=float("inf")), tmp_path)
    assert imagined > 0.9
    assert true < 0.7  # one half; 64 starts are three standard deviations off at 0.69


def test_fault_40_world_without_a_false_reward_the_true_optimum_is_learned(tmp_path):
    imagined, true = imagined_and_true(ToyEnv, tmp_path)
    assert imagined > 0.9
    assert true > 0.9


@pytest.mark.parametrize(("world", "trusted"), [(Flawed, False), (ToyEnv, True)])
def test_fault_40_false_reward_corner_is_flagged_and_not_promoted_and_without_it_promoted(
    tmp_path, world, trusted
):
    """Learned without the guard: what remains are the doubt of the world model, and real evidence."""
    unguarded = {"doubt_limit": float("inf")} if world is Flawed else {}
    policy, seeds = ToyPolicy(gain=0.55), range(900, 1020)  # succeeds nearly as often by itself
    imagined_and_true(lambda n: world(n, **unguarded), tmp_path, policy)
    steerer = load_steerer(tmp_path, policy)
    dreamt = evaluate(world(32, **unguarded), policy, steerer, seeds, "steerer")
    assert (refusal([{"label": "steerer", "doubtful": dreamt.doubtful}]) == "") is trusted

    base, steered = (evaluate(ToyEnv(32), policy, s, seeds, "real") for s in (None, steerer))
    base_hash = {"policy": "p"}
    with pytest.raises(RoboPolicyError, match="not been judged"):
        require_promotion(tmp_path)
    verdict = promote(
        tmp_path,
        {
            "verb": "evaluate",
            "policies": [
                {"label": "base", "hashes": base_hash, "episodes": len(seeds)},
                {
                    "label": "steerer",
                    "hashes": {**base_hash, "steerer": folder_hash(tmp_path)},
                    "episodes": len(seeds),
                },
            ],
            "differences": [{"second": "steerer", **compare(base, steered).to_dict()}],
        },
    )
    assert verdict.promoted is trusted, verdict.reason
    with nullcontext() if trusted else pytest.raises(RoboPolicyError, match="not promoted"):
        require_promotion(tmp_path)


@pytest.mark.parametrize("what", ["policy", "world"])
def test_fault_40_training_that_changes_what_is_frozen_is_refused_and_not_saved(what, tmp_path):
    policy, world = ToyPolicy(), ["w"]

    def meddle(steerer):
        policy.gain.data += what == "policy"
        world[0] += "!" if what == "world" else ""
        return wilson(1, 2)

    tiny = STEER_PRESETS["tiny"]
    with pytest.raises(RoboPolicyError, match=f"changed the frozen {what}"):
        steer(policy, ToyEnv, recorded(20), tmp_path / "s", tiny, 0, meddle, lambda: world[0])
    assert not is_sealed(tmp_path / "s")
