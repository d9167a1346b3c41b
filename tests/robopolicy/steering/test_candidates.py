"""Best-of-n: candidates are draws of the prior, and the choice is a function of what is seen and drawn."""

import dataclasses

import pytest
import torch
from steering_toy import SPEC, ToyEnv, ToyPolicy, recorded

from robopolicy.config import BestOfNConfig, SteerConfig
from robopolicy.errors import BadInput
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.steering.actors import ActorConfig
from robopolicy.steering.candidates import CandidateActor
from robopolicy.steering.dsrl_na import DsrlNa
from robopolicy.steering.steerer import NoiseSteerer

CONFIG = SteerConfig(method="best-of-n", hidden=8, best_of_n=BestOfNConfig(candidates=5))


class Remembering(ToyPolicy):
    def initial(self, seeds):
        return {"memory": torch.zeros(len(seeds), 1)}


def steerer(policy=None, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    made = NoiseSteerer(ActorConfig.of(CONFIG), SPEC, generator, policy or ToyPolicy())
    assert isinstance(made.actor, CandidateActor)
    for p in made.actor.critic.parameters():
        p.data *= scale
    return made


def test_candidates_are_rotations_of_the_prior_which_comes_first():
    actor = steerer().actor
    prior = torch.randn(4000, 2, 2, generator=torch.Generator().manual_seed(1))
    made = actor.candidates(prior)
    assert made.shape == (5, 4000, 2, 2)
    assert torch.equal(made[0], prior)
    eye = torch.eye(4).expand(5, 4, 4)
    torch.testing.assert_close(actor.rotations @ actor.rotations.transpose(1, 2), eye, rtol=0, atol=1e-5)
    for one in made:
        torch.testing.assert_close(torch.cov(one.flatten(1).T), torch.eye(4), rtol=0, atol=0.12)
    # Different ones: else there is nothing to choose from.
    assert (made[1:] - made[:-1]).abs().mean() > 0.5


def test_best_of_n_takes_the_candidate_its_critics_value_most():
    made = steerer(scale=3.0)
    g = torch.Generator().manual_seed(2)
    obs, prior = torch.randn(64, 2, 2, generator=g), torch.randn(64, 2, 2, generator=g)
    chosen, actor = made.noise(obs, prior), made.actor

    def value(noise):
        actions = actor.actions(0.25 * noise)
        return actor.critic(torch.cat([made.features(obs), actions], 1))[..., 0].amin(0)

    each = torch.stack([value(c) for c in actor.candidates(prior)])
    torch.testing.assert_close(value(chosen), each.amax(0))
    assert len(each.argmax(0).unique()) > 2


def test_best_of_n_choice_depends_on_observation_and_prior_alone():
    made = steerer(scale=3.0)
    g = torch.Generator().manual_seed(2)
    obs, prior = torch.randn(8, 2, 2, generator=g), torch.randn(8, 2, 2, generator=g)
    whole = made.noise(obs, prior)
    assert torch.equal(made.noise(obs, prior), whole)
    for i in range(8):
        assert torch.equal(made.noise(obs[i : i + 1], prior[i : i + 1]), whole[i : i + 1])


def test_best_of_n_indifferent_critics_leave_the_prior():
    prior = torch.randn(64, 2, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(steerer(scale=0.0).noise(torch.zeros(64, 2, 2), prior), prior)


def test_best_of_n_without_its_policy_refused():
    with pytest.raises(BadInput, match="policy"):
        NoiseSteerer(ActorConfig.of(CONFIG), SPEC, torch.Generator())


def test_critics_of_actions_of_a_policy_with_memory_refused():
    with pytest.raises(BadInput, match="memory"):
        steerer(Remembering())
    config = dataclasses.replace(CONFIG, method="dsrl-na")
    with pytest.raises(BadInput, match="memory"):
        DsrlNa(Remembering(), ToyEnv(2), recorded(4), config, torch.Generator())


def test_baseline_none_is_the_plain_policy_and_uniform_is_bounded():
    config = dataclasses.replace(CONFIG, method="none")
    none = NoiseSteerer(ActorConfig.of(config), SPEC, torch.Generator())
    steered = rollout(ToyEnv(3), ToyPolicy(), none, range(9))
    plain = rollout(ToyEnv(3), ToyPolicy(), PriorSteerer(), range(9))
    for a, b in zip(steered, plain, strict=True):
        assert (a.states == b.states).all()
    config = dataclasses.replace(CONFIG, method="uniform")
    uniform = NoiseSteerer(ActorConfig.of(config), SPEC, torch.Generator())
    prior = torch.randn(4000, 2, 2, generator=torch.Generator().manual_seed(1))
    out = uniform.noise(torch.zeros(4000, 2, 2), prior)
    assert (out == out[:, :1]).all()
    assert torch.histc(out[:, 0], 10, -1.5, 1.5) == pytest.approx(800, rel=0.15)
