"""What all learners owe: the bound, the end of an episode, bit-exact resume, refusal of NaN."""

import dataclasses
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steering_toy import SPEC, FlippingPolicy, ToyEnv, ToyPolicy, recorded

from robopolicy.checkpoint import tensor_hash
from robopolicy.config import (
    AliasedConfig,
    BaselineConfig,
    BestOfNConfig,
    DsrlConfig,
    PpoConfig,
    SteerConfig,
)
from robopolicy.errors import BadInput
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import torch_seed
from robopolicy.stats import wilson
from robopolicy.steering.actors import ActorConfig, SquashedActor
from robopolicy.steering.imagination import Outcome, credit
from robopolicy.steering.noise import UniformNoise
from robopolicy.steering.replay import Batch
from robopolicy.steering.steer import LEARNERS, BestKeeper
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.train import fit

TINY = SteerConfig(
    hidden=8,
    dsrl=DsrlConfig(envs=4, updates=2, batch=8, capacity=60, learning_starts=8),
    aliased=AliasedConfig(decoded=6, pool=20),
    best_of_n=BestOfNConfig(candidates=3, envs=4, updates=2, batch=8, capacity=60),
    ppo=PpoConfig(envs=4, epochs=2, batch=8),
)
LEARN = ["dsrl", "dsrl-na", "best-of-n", "ppo"]
METHODS = [*LEARN, "none", "uniform"]


def learner(method, env=None, policy=None, config=TINY, episodes=None, seed=0):
    config = dataclasses.replace(config, method=method)
    policy = policy or ToyPolicy()
    episodes = recorded(8, UniformNoise(1.5, repeat=True)) if episodes is None else episodes
    generator = torch.Generator().manual_seed(seed)
    return cast("Any", LEARNERS[method](policy, env or ToyEnv(4), episodes, config, generator))


def steerer_with(method, noise, scale, seed, stochastic=False):
    config = SteerConfig(
        method=method,
        hidden=8,
        dsrl=DsrlConfig(noise=noise, stochastic=stochastic),
        ppo=PpoConfig(noise=noise),
        uniform=BaselineConfig(noise, 1.5),
    )
    generator = torch.Generator().manual_seed(seed)
    made = NoiseSteerer(ActorConfig.of(config), SPEC, generator, ToyPolicy())
    for p in made.actor.parameters():
        p.data = scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    return made


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.sampled_from(["repeat", "chunk"]),
    st.floats(0, 1e4),
    st.integers(0, 99),
    st.booleans(),
)
def test_steerer_whatever_its_weights_and_input_noise_is_finite_and_in_bound(
    method, noise, scale, seed, stochastic
):
    made = steerer_with(method, noise, scale, seed, stochastic)
    g = torch.Generator().manual_seed(seed)
    obs, prior = scale * torch.randn(5, 2, 2, generator=g), 10 * torch.randn(5, 2, 2, generator=g)
    out = made.noise(obs, prior)
    assert out.shape == prior.shape
    assert torch.isfinite(out).all()
    assert out.abs().max() <= made.config.bound
    if noise == "repeat" and method in ("dsrl", "dsrl-na", "uniform"):
        assert (out == out[:, :1]).all()


def test_steerer_clipped_numbers_are_counted():
    made = steerer_with("ppo", "chunk", 0.0, 0)
    made.noise(torch.zeros(1, 2, 2), torch.tensor([[[7.0, 0.0], [-8.0, 1.0]]]))
    assert made.clipped == 2


@pytest.mark.parametrize("which", ["obs", "prior"])
def test_steerer_non_finite_input_refused(which):
    x = {"obs": torch.zeros(1, 2, 2), "prior": torch.zeros(1, 2, 2)}
    x[which][0, 0, 0] = torch.nan
    with pytest.raises(BadInput, match=which):
        steerer_with("dsrl", "repeat", 1.0, 0).noise(**x)


def test_squashed_actor_log_probability_equals_change_of_variables():
    actor = steerer_with("dsrl", "chunk", 0.3, 3).actor
    assert isinstance(actor, SquashedActor)
    g = torch.Generator().manual_seed(0)
    features, eps = torch.randn(50, 4, generator=g), torch.randn(50, 4, generator=g)
    latent, log_prob = actor.sample(features, eps)
    mean, log_std = actor.moments(features)
    normal = torch.distributions.Normal(mean.double(), log_std.double().exp())
    z = mean.double() + log_std.double().exp() * eps
    wanted = (normal.log_prob(z) - torch.log1p(-torch.tanh(z).square())).sum(-1)
    torch.testing.assert_close(log_prob.double(), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(latent, torch.tanh(z).float())


def test_dsrl_untrained_steerer_starts_near_the_prior_mean():
    made = learner("dsrl").steerer
    assert made.noise(torch.rand(9, 2, 2), torch.zeros(9, 2, 2)).abs().max() < 0.1


@pytest.mark.parametrize("noise", ["repeat", "chunk"])
def test_ppo_untrained_is_exactly_the_prior(noise):
    config = dataclasses.replace(TINY, ppo=dataclasses.replace(TINY.ppo, noise=noise))
    made, policy = learner("ppo", config=config).steerer, ToyPolicy()
    prior = torch.randn(500, 2, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made.noise(torch.rand(500, 2, 2), prior), prior)
    steered = rollout(ToyEnv(3), policy, made, range(9))
    plain = rollout(ToyEnv(3), policy, PriorSteerer(), range(9))
    for a, b in zip(steered, plain, strict=True):
        assert (a.states == b.states).all()


@pytest.mark.parametrize("method", LEARN)
def test_learner_broken_environment_refused(method):
    made = learner(method, ToyEnv(4, broken_at=1))
    with pytest.raises(BadInput, match="env obs"):
        made.step(0, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", LEARN)
def test_learner_step_draws_only_from_its_generator(method):
    hashes = []
    for _ in range(2):
        made, before = learner(method), torch.random.get_rng_state()
        for i in range(3):
            made.step(i, torch.Generator().manual_seed(i))
        assert torch.equal(torch.random.get_rng_state(), before)
        hashes.append(tensor_hash(made.state()))
        torch.manual_seed(len(hashes))
    assert hashes[0] == hashes[1]


class Killed(Exception):
    pass


@pytest.mark.parametrize(("method", "warm_start"), [*((m, 0) for m in LEARN), ("dsrl", 3), ("dsrl-na", 3)])
@pytest.mark.parametrize("killed_at", [1, 4])
def test_learner_killed_and_resumed_equals_uninterrupted_to_the_bit(method, warm_start, killed_at, tmp_path):
    def keeper():
        made = learner(method, config=dataclasses.replace(TINY, warm_start=warm_start))

        def validate(steerer):  # depends on the weights only, like a real evaluation
            out = steerer.noise(torch.ones(1, 2, 2), torch.ones(1, 2, 2))
            return wilson(int(out.abs().sum() * 1000) % 7, 7)

        return BestKeeper(made, made.steerer, validate, every=2, steps=7)

    def die(i, metrics):
        if i == killed_at:
            raise Killed

    ticks = iter(range(0, 10_000, 100))
    whole = keeper()
    fit(whole, 7, 3, "whole", quiet=True)
    file = tmp_path / "progress.safetensors"
    with pytest.raises(Killed):
        fit(keeper(), 7, 3, "part", file, clock=lambda: next(ticks), on_step=die, quiet=True)
    resumed = keeper()
    fit(resumed, 7, 3, "part", file, quiet=True)
    assert file.is_file()
    assert tensor_hash(resumed.state()) == tensor_hash(whole.state())
    assert [r.successes for _, r in resumed.curve] == [r.successes for _, r in whole.curve]


@pytest.mark.parametrize(("limit", "wanted"), [("horizon", 0.97), ("doubt", 0.0), ("diverged", 0.0)])
def test_credit_only_a_time_limit_keeps_its_future(limit, wanted):
    yes, no = torch.tensor([True]), torch.tensor([False])
    lost = yes if limit != "horizon" else no
    outcome = Outcome(yes, success=no, terminated=no, lost=lost, ended=yes, doubt=torch.zeros(1))
    reward, discount = credit(outcome, dataclasses.replace(TINY, doubt_cost=0.25))
    assert discount.item() == pytest.approx(wanted)
    assert reward.item() == (-0.25 if limit != "horizon" else 0.0)


@given(st.floats(0, 100))
def test_credit_reward_falls_with_doubt_and_stays_in_range(doubt):
    yes, no = torch.tensor([True]), torch.tensor([False])
    reward, _ = credit(Outcome(yes, yes, yes, no, yes, torch.tensor([doubt])), TINY)
    excess = max(0.0, doubt - TINY.doubt_free) / (1 - TINY.doubt_free)
    wanted = max(-1.0, 1 - TINY.doubt_penalty * excess)
    assert reward.item() == pytest.approx(wanted, abs=1e-5)


def test_dsrl_never_acts_in_a_slot_that_has_ended():
    class Strict(ToyEnv):
        def step(self, actions):
            assert not self.ended.any()
            return super().step(actions)

    made = learner("dsrl", Strict(4))
    for i in range(12):
        made.step(i, torch.Generator().manual_seed(i))


def test_dsrl_doubtful_ends_are_stored_without_a_future():
    config = dataclasses.replace(TINY, doubt_cost=0.5, dsrl=dataclasses.replace(TINY.dsrl, updates=0))
    made = learner("dsrl", ToyEnv(4, doubt_beyond=0.3), config=config, episodes=recorded(2))
    lost = 0.0
    for i in range(6):
        lost += made.step(i, torch.Generator().manual_seed(i))["lost"]
    b = Batch(*made.replay.split(made.replay.state()["rows"]))
    assert lost > 0
    assert ((b.reward <= -0.5) & (b.discount == 0)).sum() == lost


def test_dsrl_temperature_falls_to_its_floor_and_no_further():
    own = dataclasses.replace(TINY.dsrl, lr=0.2, alpha=0.1, alpha_floor=0.05, updates=4)
    made, seen = learner("dsrl", config=dataclasses.replace(TINY, dsrl=own)), []
    for i in range(8):
        seen.append(made.step(i, torch.Generator().manual_seed(i))["alpha"])
    assert min(seen) == pytest.approx(0.05)


@pytest.mark.parametrize(("doubt_beyond", "wanted"), [(1e-6, 0.0), (float("inf"), 0.97)])
def test_ppo_return_bootstraps_at_a_time_limit_and_not_at_doubt(doubt_beyond, wanted):
    spec = dataclasses.replace(SPEC, horizon=2)
    config = dataclasses.replace(TINY, doubt_penalty=0.0)
    env = ToyEnv(4, spec, threshold=99.0, doubt_beyond=doubt_beyond)
    episodes = rollout(ToyEnv(2, spec), ToyPolicy(spec), PriorSteerer(), range(4))
    made = learner("ppo", env, ToyPolicy(spec), config, episodes)
    for p in made.value.parameters():
        p.data.zero_()
    made.value.biases[-1].data.fill_(1.0)  # every state is worth 1
    data, _ = made._imagine(torch.Generator().manual_seed(torch_seed(0, "test")))
    torch.testing.assert_close(data[4], torch.full_like(data[4], wanted))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"gamma": 1.0},
        {"method": "magic"},
        {"hidden": 0},
        {"eval_every": 0},
        {"critics": 0},
        {"warm_start": -1},
    ],
)
def test_config_out_of_range_refused(kwargs):
    with pytest.raises(BadInput, match=next(iter(kwargs))):
        SteerConfig(**kwargs)


@pytest.mark.parametrize("kwargs", [{"bound": 0.0}, {"alpha_floor": 1.0}, {"noise": "pink"}])
def test_dsrl_config_out_of_range_refused(kwargs):
    with pytest.raises(BadInput, match=next(iter(kwargs))):
        SteerConfig(dsrl=DsrlConfig(**kwargs))


def test_steerer_without_the_memory_it_learned_with_refused():
    policy = FlippingPolicy()
    steerer = NoiseSteerer(ActorConfig.of(SteerConfig()), SPEC, torch.Generator(), policy)
    with pytest.raises(BadInput, match="memory"):
        steerer.noise(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2))
