"""The pessimistic ensemble, the soft actor, and implicit Q-learning."""

import dataclasses

import pytest
import torch
from steering_toy import SPEC

from robopolicy.config import DsrlConfig, IqlConfig, SteerConfig
from robopolicy.steering.actors import ActorConfig, SquashedActor
from robopolicy.steering.critics import Critics, SoftActor, critic_net
from robopolicy.steering.iql import Iql

CONFIG = SteerConfig(hidden=16)


def critics(count, inputs=3):
    config = dataclasses.replace(CONFIG, critics=count)
    return Critics(critic_net(inputs, config, torch.Generator().manual_seed(0)))


def test_critics_value_is_the_least_of_all_and_of_two_the_lesser():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    for count in (1, 2, 5):
        made = critics(count)
        each = made(x)
        assert each.shape == (count, 50)
        assert torch.equal(made.least(x), each.min(0).values)
        assert torch.equal(made.backup(x), each.min(0).values)  # targets start as the critics
    two = critics(2)
    assert torch.equal(two.least(x), torch.minimum(*two(x)))


def test_critics_more_of_them_never_value_anything_higher():
    x, many = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), critics(6)
    few = critics(2)
    for a, b in zip(few.net.parameters(), many.net.parameters(), strict=True):
        a.data = b.data[:2]
    assert (many.least(x) <= few.least(x)).all()
    assert (many.least(x) < few.least(x)).any()


def test_critics_targets_follow_by_tau():
    made = critics(2)
    before = [p.clone() for p in made.slow.parameters()]
    for p in made.net.parameters():
        p.data += 1
    made.follow(0.25)
    for old, p in zip(before, made.slow.parameters(), strict=True):
        torch.testing.assert_close(p, old + 0.25)
    assert not any(p.requires_grad for p in made.slow.parameters())


def actor():
    config = dataclasses.replace(CONFIG, dsrl=DsrlConfig(noise="chunk"))
    made = SquashedActor(ActorConfig.of(config), SPEC, 4, torch.Generator().manual_seed(3))
    for p in made.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3))
    return made


def test_squashed_actor_log_probability_of_what_it_drew_is_the_one_it_gave():
    g = torch.Generator().manual_seed(0)
    features, eps = torch.randn(50, 4, generator=g), torch.randn(50, 4, generator=g)
    latent, log_prob = actor().sample(features, eps)
    far = latent.abs().amax(1) > 0.999  # there single precision forgets what was drawn
    torch.testing.assert_close(actor().log_prob(features, latent)[~far], log_prob[~far], rtol=1e-3, atol=1e-3)
    assert far.float().mean() < 0.5


def test_soft_actor_finds_the_best_latent_and_imitates_the_heaviest():
    g = torch.Generator().manual_seed(0)
    features, best = torch.randn(64, 4, generator=g), torch.tensor([0.5, -0.5, 0.0, 0.2])
    improved = SoftActor(actor(), DsrlConfig(lr=0.01))
    for _ in range(300):
        eps = torch.randn(64, 4, generator=g)
        improved.improve(features, eps, lambda x: -(x[:, 4:] - best).square().sum(1))
    mode = torch.tanh(improved.actor.moments(features)[0])
    torch.testing.assert_close(mode, best.expand_as(mode), rtol=0, atol=0.1)

    imitator = SoftActor(actor(), DsrlConfig(lr=0.01))
    latent = torch.cat([best.expand(32, 4), -best.expand(32, 4)])
    weight = torch.cat([torch.ones(32), torch.zeros(32)])
    for _ in range(300):
        imitator.imitate(features, latent, weight)
    mode = torch.tanh(imitator.actor.moments(features[:32])[0])
    torch.testing.assert_close(mode, best.expand_as(mode), rtol=0, atol=0.1)


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_iql_value_is_the_expectile_of_what_was_done_and_critics_know_each(expectile):
    """Of a fair coin that pays 1 or nothing the expectile tau is tau."""
    config = dataclasses.replace(CONFIG, iql=IqlConfig(expectile=expectile))
    made = critics(2)
    iql = Iql(made, 2, config, 1e-2, 0.1, torch.Generator().manual_seed(0))
    seen, coin = torch.zeros(64, 2), torch.arange(64.0)[:, None] % 2
    for _ in range(300):
        weight, _ = iql.update(seen, coin, coin[:, 0], seen, torch.zeros(64))
    q = made.least(torch.cat([seen, coin], 1))
    torch.testing.assert_close(q, coin[:, 0], rtol=0, atol=0.05)
    torch.testing.assert_close(iql.value(seen)[0, :, 0], torch.full((64,), expectile), rtol=0, atol=0.05)
    wanted = (config.iql.beta * (coin[:, 0] - expectile)).exp()
    torch.testing.assert_close(weight, wanted, rtol=0.2, atol=0)
    assert iql.weight(torch.tensor([1e3])).item() == 100


def test_iql_values_the_future_only_as_far_as_it_is_discounted():
    made = critics(2)
    iql = Iql(made, 2, CONFIG, 1e-2, 0.1, torch.Generator().manual_seed(0))
    here, there = torch.zeros(64, 2), torch.ones(64, 2)
    seen, then = torch.cat([here, there]), torch.cat([there, there])
    reward, discount = (
        torch.cat([torch.zeros(64), torch.ones(64)]),
        torch.cat([torch.full((64,), 0.5), torch.zeros(64)]),
    )
    for _ in range(400):
        iql.update(seen, torch.zeros(128, 1), reward, then, discount)
    value = iql.value(torch.stack([here[0], there[0]]))[0, :, 0]
    torch.testing.assert_close(value, torch.tensor([0.5, 1.0]), rtol=0, atol=0.05)
