import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from steering_toy import SPEC, FlippingPolicy, ToyEnv, ToyPolicy, recorded

from robopolicy.checkpoint import REMEMBERED, tensor_hash
from robopolicy.config import STEER_PRESETS, AliasedConfig, BestOfNConfig, DsrlConfig, PpoConfig, SteerConfig
from robopolicy.errors import BadInput, Interrupted
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import episode_seed
from robopolicy.stats import wilson
from robopolicy.steering.load import load_steerer
from robopolicy.steering.noise import UniformNoise
from robopolicy.steering.steer import BestKeeper, imagined_success, steer, trusted_doubt
from robopolicy.steering.steerer import policy_hash

LEARNS = SteerConfig(
    hidden=32,
    eval_every=20,
    dsrl=DsrlConfig(steps=60, envs=16, updates=8, batch=64, learning_starts=64, tau=0.02, lr=3e-3),
    aliased=AliasedConfig(decoded=128, pool=1024),
    best_of_n=BestOfNConfig(candidates=16, steps=40, envs=32, updates=8, batch=64, tau=0.02, lr=3e-3),
    ppo=PpoConfig(steps=20, envs=128, batch=128),
)
LEARN = ["dsrl", "dsrl-na", "best-of-n", "ppo"]
METHODS = [*LEARN, "none", "uniform"]
TINY = STEER_PRESETS["tiny"]


def run(out, method="dsrl", config=TINY, policy=None, **kwargs):
    policy = policy or ToyPolicy()
    episodes = recorded(20) + recorded(40, UniformNoise(1.5, repeat=True))
    arguments = {"validate": imagined_success(ToyEnv(32), policy, 128, 0), **kwargs}
    config = dataclasses.replace(config, method=method)
    return steer(policy, ToyEnv, episodes, out, config, 0, **arguments)


@pytest.mark.parametrize("method", LEARN)
def test_steer_toy_task_learned_and_policy_unchanged(method, tmp_path):
    policy = ToyPolicy()
    before = tensor_hash(policy.state_dict())
    result = run(tmp_path / "s", method, LEARNS, policy, world_hash=lambda: "w")
    assert result["prior"]["rate"] < 0.4
    assert result["best"]["rate"] > 0.9
    assert result["helped"] is True
    assert tensor_hash(policy.state_dict()) == before
    assert result["hashes"]["policy"] == {"before": before, "after": before}
    assert result["hashes"]["world"] == {"before": "w", "after": "w"}
    fresh = rollout(ToyEnv(32), policy, load_steerer(tmp_path / "s", policy), range(900, 964))
    assert sum(e.success for e in fresh) > 0.9 * 64


def test_steer_that_learns_nothing_has_not_helped(tmp_path):
    result = run(tmp_path / "s", "none")
    assert result["best"]["rate"] == result["prior"]["rate"]
    assert result["helped"] is False


def test_steer_a_little_better_by_chance_has_not_helped(tmp_path):
    rates = iter([wilson(60, 128), wilson(64, 128), wilson(66, 128)])
    assert run(tmp_path / "s", "none", validate=lambda steerer: next(rates))["helped"] is False


@pytest.mark.parametrize("method", METHODS)
def test_steerer_loaded_equals_the_saved_one(method, tmp_path):
    run(tmp_path / "a", method)
    run(tmp_path / "b", method)
    a, b = (load_steerer(tmp_path / x, ToyPolicy()) for x in "ab")
    assert tensor_hash(a.state_dict()) == tensor_hash(b.state_dict())
    x = torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(a.noise(x, x), b.noise(x, x))


def test_steerer_of_another_policy_refused(tmp_path):
    run(tmp_path / "s")
    with pytest.raises(BadInput, match="steerer policy"):
        load_steerer(tmp_path / "s", ToyPolicy(gain=0.3))


def test_steerer_of_another_spec_refused(tmp_path):
    run(tmp_path / "s")
    with pytest.raises(BadInput, match="fps"):
        load_steerer(tmp_path / "s", ToyPolicy(dataclasses.replace(SPEC, fps=20)))


def test_steerer_damaged_refused(tmp_path):
    run(tmp_path / "s")
    model = tmp_path / "s" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        load_steerer(tmp_path / "s", ToyPolicy())


def test_steer_folder_in_use_refused(tmp_path):
    run(tmp_path / "s")
    (tmp_path / "s" / REMEMBERED).unlink()
    with pytest.raises(BadInput, match="out"):
        run(tmp_path / "s")


def test_steer_again_says_the_same_and_other_settings_are_refused(tmp_path):
    first = run(tmp_path / "s")
    assert run(tmp_path / "s") == json.loads(json.dumps(first))
    with pytest.raises(BadInput, match="other settings"):
        run(tmp_path / "s", config=dataclasses.replace(TINY, hidden=TINY.hidden + 1))


def interrupting(policy, at):
    """A `validate` in the course of which the user presses Ctrl-C."""
    calls, judge = iter(range(99)), imagined_success(ToyEnv(4), policy, 8, 0)

    def validate(steerer):
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return judge(steerer)

    return validate


@pytest.mark.parametrize("method", LEARN)
def test_steer_interrupted_and_run_again_gives_the_same_steerer(method, tmp_path):
    policy = ToyPolicy()
    whole = run(tmp_path / "whole", method, policy=policy, validate=interrupting(policy, -1))
    with pytest.raises(Interrupted):
        run(tmp_path / "part", method, policy=policy, validate=interrupting(policy, 1))
    again = run(tmp_path / "part", method, policy=policy, validate=interrupting(policy, -1))
    assert again == whole


def test_steer_resumed_with_other_episodes_refused(tmp_path):
    policy = ToyPolicy()
    with pytest.raises(Interrupted):
        run(tmp_path / "s", policy=policy, validate=interrupting(policy, 1))
    with pytest.raises(BadInput, match="progress"):
        steer(policy, ToyEnv, recorded(3), tmp_path / "s", TINY, 0, interrupting(policy, -1))


def test_steer_without_episodes_refused_and_nothing_written(tmp_path):
    with pytest.raises(BadInput, match="episodes"):
        steer(ToyPolicy(), ToyEnv, [], tmp_path / "s", TINY, 0, lambda s: wilson(1, 2))
    assert not (tmp_path / "s").exists()


def test_policy_hash_of_what_has_no_weights_refused():
    class Lambda:
        spec = SPEC

    with pytest.raises(BadInput, match="policy"):
        policy_hash(Lambda())  # type: ignore[arg-type]


def test_best_keeper_keeps_the_highest_lower_end_and_the_earlier_of_equals():
    class Counting:
        """A learner whose only weight is how often it was stepped."""

        prefilled = 0

        def __init__(self):
            self.steerer = torch.nn.Linear(1, 1, bias=False)

        def step(self, index, generator):
            self.steerer.weight.data.fill_(index + 1.0)
            return {"loss": 0.0}

    # 3/3 has the higher rate, 95/100 the higher lower end.
    rates = iter([wilson(3, 3), wilson(95, 100), wilson(95, 100), wilson(10, 100)])
    learner = Counting()
    keeper = BestKeeper(learner, learner.steerer, lambda s: next(rates), every=2, steps=7)  # type: ignore[arg-type]
    for i in range(7):
        keeper.step(i, torch.Generator())
    assert [at for at, _ in keeper.curve] == [2, 4, 6, 7]
    assert keeper.best["weight"].item() == 4


class Doubting(ToyEnv):
    """Doubts the more, the farther out it is."""

    def step(self, actions):
        outcome = super().step(actions)
        outcome[4]["doubt"] = np.abs(self.obs[:, -1, 0])
        return outcome


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_trusted_doubt_lets_this_share_of_the_plain_successes_stand(share):
    limit = trusted_doubt(Doubting(32), ToyPolicy(), 200, 0, share)
    seeds = [episode_seed(0, "validation", i) for i in range(200)]
    won = [e for e in rollout(Doubting(32), ToyPolicy(), PriorSteerer(), seeds) if e.success]
    stands = np.mean([e.doubt.max() <= limit for e in won])
    assert stands == pytest.approx(share, abs=1.5 / len(won))


def test_trusted_doubt_of_a_policy_that_never_succeeds_goes_by_all_its_episodes():
    env = Doubting(8, threshold=1e6)
    assert 0 < trusted_doubt(env, ToyPolicy(), 20, 0, 0.5) < 10


def test_trusted_doubt_of_a_model_that_cannot_doubt_is_no_limit():
    assert trusted_doubt(ToyEnv(8), ToyPolicy(), 20, 0, 0.5) == float("inf")


@pytest.mark.parametrize("method", ["dsrl", "ppo"])
def test_steer_what_only_memory_tells_is_learned(method, tmp_path):
    policy = FlippingPolicy()
    longer = {
        n: dataclasses.replace(getattr(LEARNS, n), steps=3 * getattr(LEARNS, n).steps)
        for n in ("dsrl", "ppo")
    }
    result = run(tmp_path / "s", method, dataclasses.replace(LEARNS, **longer), policy)
    assert result["prior"]["rate"] < 0.4
    assert result["best"]["rate"] > 0.9
    steerer = load_steerer(tmp_path / "s", policy)
    done = rollout(ToyEnv(32), policy, steerer, range(900, 964))
    assert sum(e.success for e in done) > 0.9 * 64
    alone = rollout(ToyEnv(1), policy, steerer, range(900, 905))
    assert all(np.allclose(a.actions, b.actions, atol=1e-5) for a, b in zip(alone, done[:5], strict=True))


@pytest.mark.parametrize("method", ["dsrl-na", "best-of-n"])
def test_steer_critics_of_actions_alone_refuse_memory(method, tmp_path):
    with pytest.raises(BadInput, match="without memory"):
        run(tmp_path / "s", method, policy=FlippingPolicy())
