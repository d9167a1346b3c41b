"""Faults of learning, each by its number in docs/faults.md: 36 to 38, 41 and 42."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_env import SPEC as COUNTED
from counting_env import run as count_to
from fresh import fresh_python
from reach_by_script import SPEC as REACH
from reach_by_script import ReachByScript
from steering_toy import SPEC, Chain, ToyEnv, ToyPolicy, Walker
from tiny import (
    POLICY,
    normal,
    observations,
    random_episodes,
    same_episode,
    tiny_policy,
    tiny_spec,
    write_dataset,
)
from trainings import tiny_member, trainings

from robopolicy.checkpoint import load_tensors, tensor_hash
from robopolicy.cli import main
from robopolicy.config import STEER_PRESETS
from robopolicy.data.windows import PolicyWindows
from robopolicy.devices import Devices
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.policies.learners import PolicyLearner
from robopolicy.policies.load import load_policy
from robopolicy.policies.proof import check_proof, proof
from robopolicy.policies.train import save_policy, train_policy
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.serve import PolicyService
from robopolicy.stats import Rate, wilson
from robopolicy.steering.dsrl import Dsrl
from robopolicy.steering.replay import Batch
from robopolicy.steering.steer import BestKeeper
from robopolicy.train import fit

PRESET = STEER_PRESETS["tiny"]
TINY = dataclasses.replace(PRESET, dsrl=dataclasses.replace(PRESET.dsrl, updates=0))
ROBOT = tiny_spec()


def steerer(env, policy, episodes) -> Dsrl:
    return Dsrl(policy, env, episodes, TINY, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("goal", range(1, COUNTED.horizon + 1))
def test_fault_36_episode_that_ends_anywhere_in_a_chunk_is_not_acted_in_beyond(goal):
    inner, outcomes = count_to(goal)
    assert inner.count == goal
    assert sum(o[4]["executed"] for o in outcomes) == goal
    assert [o[2] for o in outcomes].index(True) == (goal - 1) // COUNTED.chunk
    assert sum(o[2] for o in outcomes) == 1
    assert not any(o[3] for o in outcomes)


def test_fault_36_time_limit_in_a_chunk_truncates_and_does_not_terminate():
    inner, outcomes = count_to(goal=99)
    assert inner.count == COUNTED.horizon
    assert [o[3] for o in outcomes] == [False, False, True, False, False]
    assert not any(o[2] for o in outcomes)
    assert outcomes[2][4]["reason"] == "horizon"


@pytest.mark.parametrize("end", [1, 2, 3, 4])
def test_fault_36_success_anywhere_in_an_imagined_chunk_stops_there(end):
    """The reference goes on acting after `done` inside a chunk, and stores what it sees then."""
    spec = dataclasses.replace(SPEC, chunk=4, obs_steps=1, horizon=8)
    policy, env = Walker(spec), Chain(2, spec, end - 0.5, starts=1)
    episodes = rollout(Chain(2, spec, 9.0, starts=1), policy, PriorSteerer(), [0, 1])
    made = steerer(env, policy, episodes)
    before = made.replay.count
    made.step(0, torch.Generator().manual_seed(0))
    b = Batch(*made.replay.split(made.replay.state()["rows"][before:]))
    x = b.following[:, 0] * made.steerer.features.std[0] + made.steerer.features.mean[0]
    torch.testing.assert_close(x, torch.full((len(x),), float(end)))
    assert set(env.applied.tolist()) == {end}
    assert set(b.reward.tolist()) == {1}
    assert set(b.discount.tolist()) == {0}


@pytest.mark.parametrize("horizon", [2, 50])
def test_fault_36_value_of_a_chain_is_the_analytic_one_with_and_without_a_time_limit(horizon):
    """The reference stores time-outs as terminations: then Q(0) would be 0 under a limit of 2."""
    spec = dataclasses.replace(SPEC, chunk=1, obs_steps=1, horizon=horizon)
    policy, env = Walker(spec), Chain(8, spec)
    made = steerer(env, policy, rollout(Chain(4, spec), policy, PriorSteerer(), range(8)))
    for i in range(12):
        made.step(i, torch.Generator().manual_seed(i))
    features, std = made.steerer.features, made.steerer.features.std[0]
    b = Batch(*made.replay.split(made.replay.state()["rows"]))
    here, there = ((x[:, 0] * std + features.mean[0]).round().long() for x in (b.features, b.following))
    q = torch.zeros(4, dtype=torch.float64)
    for _ in range(10):
        backup = b.reward + b.discount * q[there]
        q = torch.stack([*(backup[here == s].mean() for s in range(3)), torch.tensor(0.0).double()])
    gamma = TINY.gamma
    torch.testing.assert_close(q[:3], torch.tensor([gamma**2, gamma, 1.0]).double(), rtol=0, atol=1e-6)


def _policy() -> PolicyLearner:
    return PolicyLearner(tiny_policy(ROBOT), PolicyWindows(random_episodes(ROBOT), ROBOT), POLICY)


LEARNERS = {"policy": _policy, "world": tiny_member}


def poison(learner, what: str) -> None:
    """Makes the next gradient NaN, in one weight or by one sample, or the rate of learning infinite."""
    if what == "gradient":
        parameter = learner.optimizer.param_groups[0]["params"][0]
        parameter.register_hook(lambda g: g.index_fill(0, torch.tensor([0]), torch.nan))
    elif what == "sample":
        learner.cond[:, 0] = torch.nan
    else:
        learner.config = dataclasses.replace(learner.config, lr=torch.inf)


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("what", ["gradient", "sample"])
def test_fault_37_gradient_that_is_not_finite_is_not_applied(kind, what, tmp_path):
    progress = tmp_path / "progress.safetensors"

    def trained(said: str) -> str:
        learner = LEARNERS[kind]()
        states = {}

        def at(step: int, _: dict) -> None:
            states[step] = tensor_hash(learner.state())
            if step == 3:
                poison(learner, what)

        with pytest.raises(RoboPolicyError, match=said):
            fit(learner, 12, 0, "toy", progress, save_every_s=0, on_step=at, quiet=True)
        assert tensor_hash(learner.state()) == states[3]
        return states[3]

    last = trained("toy: norm of the gradient is nan at step 4; last progress kept")
    tensors, meta = load_tensors(progress)
    assert (tensor_hash(tensors), meta["next"]) == (last, 4)


@pytest.mark.parametrize("kind", LEARNERS)
def test_fault_37_what_is_not_finite_is_never_saved(kind, tmp_path):
    learner, progress = LEARNERS[kind](), tmp_path / "progress.safetensors"

    def at(step: int, _: dict) -> None:
        if step == 3:
            poison(learner, "rate")

    with pytest.raises(RoboPolicyError, match=r"toy: not finite after step 5: .*; last progress kept"):
        fit(learner, 12, 0, "toy", progress, save_every_s=0, on_step=at, quiet=True)
    assert load_tensors(progress)[1]["next"] == 4
    steps = []
    rows = fit(LEARNERS[kind](), 12, 0, "toy", progress, on_step=lambda s, _: steps.append(s), quiet=True)
    assert steps == list(range(4, 12))  # from there it goes on,
    assert [r["step"] for r in rows] == list(range(12))  # and the curve is whole


class Spoiled:
    """A learner whose loss is not finite at step 2."""

    def __init__(self, loss: float):
        self.loss = loss

    def step(self, index, generator):
        return {"loss": self.loss if index == 2 else 0.0}

    def state(self):
        return {}

    def load_state(self, tensors):
        pass


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_fault_37_loss_that_is_not_finite_stops_at_its_step_and_again_when_repeated(tmp_path, loss):
    for _ in range(2):
        with pytest.raises(RoboPolicyError, match=f"loss is {loss} at step 2; last progress kept"):
            fit(Spoiled(loss), 5, 0, "toy", tmp_path / "p", save_every_s=0, quiet=True)
        assert load_tensors(tmp_path / "p")[1]["next"] == 2


@pytest.mark.parametrize("first", [True, False])
def test_fault_37_evaluation_that_is_not_a_number_is_never_the_best(first):
    nan = float("nan")
    rates = iter([Rate(0, 4, nan, nan, nan)] if first else [wilson(1, 4), Rate(0, 4, nan, nan, nan)])
    keeper = BestKeeper(Spoiled(0.0), torch.nn.Linear(1, 1), lambda _: next(rates), 1, 9)
    if not first:
        keeper.step(0, torch.Generator())
    with pytest.raises(RoboPolicyError, match="says nan"):
        keeper.step(1, torch.Generator())
    assert keeper.best_at == (-1 if first else 0)


def test_fault_38_same_seed_elsewhere_gives_the_same_and_another_seed_does_not(tmp_path, monkeypatch):
    here, other = trainings(0), trainings(1)
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "helpers"))
    code = "from trainings import trainings; print(*trainings(0))"
    done = fresh_python("-c", code, cwd=tmp_path)
    assert done.stdout.split() == here, done.stderr
    assert not set(here) & set(other)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 7])
def test_fault_38_environment_more_changes_no_episode_of_the_others(count):
    wanted = rollout(ToyEnv(3), ToyPolicy(), PriorSteerer(), range(9))
    got = rollout(ToyEnv(count), ToyPolicy(), PriorSteerer(), range(9))
    assert all(same_episode(a, b) for a, b in zip(wanted, got, strict=True))
    fewer = rollout(ToyEnv(count), ToyPolicy(), PriorSteerer(), range(4, 9))
    assert all(same_episode(a, b) for a, b in zip(wanted[4:], fewer, strict=True))


class Full:
    """A learner for which memory is not enough, in step 3."""

    def __init__(self):
        self.tried, self.weight = 0, torch.zeros(1)

    def step(self, index, generator):
        self.tried += 1
        if index == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.weight += 1
        return {"loss": 0.0}

    def state(self):
        return {"weight": self.weight}

    def load_state(self, tensors):
        self.weight = tensors["weight"]


def test_fault_41_memory_full_in_training_keeps_the_progress_and_says_what_helps(tmp_path):
    learner = Full()
    with pytest.raises(RoboPolicyError, match=r"memory is full at step 3; .* batch.*; last progress kept"):
        fit(learner, 9, 0, "toy", tmp_path / "p", save_every_s=0, quiet=True)
    assert learner.tried == 4  # once: a smaller batch would be another training
    tensors, meta = load_tensors(tmp_path / "p")
    assert (tensors["weight"].item(), meta["next"]) == (3, 3)


class Crowded(ReachByScript):
    """A policy for which memory is not enough."""

    asked = 0

    def sample(self, obs, carry, noise):
        self.asked += 1
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_fault_41_memory_full_in_inference_is_an_error_and_not_tried_again():
    policy = Crowded()
    service = PolicyService(policy, PriorSteerer(), 0)
    session = {name: handler.answer for name, handler in service.connect().items()}
    session["reset"](seed=0)
    with pytest.raises(torch.OutOfMemoryError):
        session["act"](obs=np.zeros((REACH.obs_steps, REACH.state_dim), np.float32), step=0)
    assert policy.asked == 1
    assert service.stats()["count"] == 0


def test_fault_42_precision_that_there_is_not_is_refused():
    with pytest.raises(BadInput, match=r"precision: wanted one of \('fp32', 'bf16'\), got fp16"):
        Devices("fp16")  # type: ignore[arg-type]


def test_fault_42_policy_that_acts_otherwise_than_where_it_was_trained_is_not_served(tmp_path, capsys):
    policy, obs = tiny_policy(ROBOT), observations(ROBOT)
    answers = proof(policy, obs)
    save_policy(policy, tmp_path / "same", answers=answers)
    check_proof(load_policy(tmp_path / "same"), tmp_path / "same")
    answers["actions"][3, 1, 0] += 0.002 * 0.4  # of the action's range
    save_policy(policy, tmp_path / "other", answers=answers)
    with pytest.raises(BadInput, match=r"proof\.safetensors: wanted the actions of where it was made"):
        check_proof(load_policy(tmp_path / "other"), tmp_path / "other")
    assert main(f"serve --policy {tmp_path}/other --address {tmp_path}/socket".split()) == 2
    assert "proof.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "socket").exists()


def test_fault_42_policy_keeps_answers_to_what_was_recorded(tmp_path):
    demos = write_dataset(tmp_path / "demos", ROBOT, random_episodes(ROBOT))
    train_policy([demos], tmp_path / "policy", POLICY, seed=0)
    kept, _ = load_tensors(tmp_path / "policy/proof.safetensors")
    assert len(kept["obs"]) == 8
    check_proof(load_policy(tmp_path / "policy"), tmp_path / "policy")


def test_fault_42_actions_are_alike_alone_or_in_a_batch_compiled_or_in_half_the_precision():
    policy, obs, noise = tiny_policy(ROBOT), observations(ROBOT), normal(5, ROBOT.chunk, ROBOT.action_dim)
    wanted = policy.sample(obs, {}, noise)[0]
    alone = torch.cat([policy.sample(obs[i : i + 1], {}, noise[i : i + 1])[0] for i in range(5)])
    assert torch.allclose(alone, wanted, rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        half = policy.sample(obs, {}, noise)[0]
    assert torch.allclose(half.float(), wanted, rtol=0, atol=1e-2 * 0.4)  # of the action's range
    policy.core.denoiser.compile(backend="eager")
    assert torch.allclose(policy.sample(obs, {}, noise)[0], wanted, rtol=0, atol=1e-6)
