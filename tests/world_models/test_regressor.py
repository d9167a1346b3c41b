"""The regressor learns numbers where they are known and the probability of events."""

import pytest
import torch
from tiny import normal

from robopolicy.train import seeded_init
from world_models.regressor import Regressor


@pytest.fixture
def net():
    with seeded_init(0):
        return Regressor(cond_dim=2, values=3, flags=2, width=32, blocks=1)


def fit(net, cond, target, known, steps=300):
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        net.loss(cond, target, known).backward()
        optimizer.step()
    return net(cond).detach()


def test_regressor_recovers_a_function_and_the_probability_of_an_event(net):
    cond = normal(512, 2)
    values = torch.stack([cond[:, 0], cond.prod(1), cond[:, 1].sin()], 1)
    sure = cond[:, :1].sign()
    rare = (torch.rand(512, 1, generator=torch.Generator().manual_seed(1)) < 0.2).float() * 2 - 1
    found = fit(net, cond, torch.cat([values, sure, rare], 1), torch.ones(512, 5))
    assert (found[:, :3] - values).pow(2).mean() < 0.01
    assert (found[:, 3:4].sign() == sure).float().mean() > 0.97
    assert found[:, 4].mean().item() == pytest.approx(rare.mean().item(), abs=0.05)


def test_loss_ignores_what_is_not_known(net):
    torch.nn.init.normal_(net.out.weight)
    cond, target, known = normal(8, 2), normal(8, 5, seed=1).sign(), torch.ones(8, 5)
    known[:, 1], known[:, 4] = 0, 0
    other = target.clone()
    other[:, 1], other[:, 4] = 1e6, -target[:, 4]
    assert net.loss(cond, target, known) == net.loss(cond, other, known)
    assert net.loss(cond, target, torch.ones(8, 5)) != net.loss(cond, other, torch.ones(8, 5))


def test_loss_of_nothing_known_is_zero(net):
    assert net.loss(normal(8, 2), normal(8, 5), torch.zeros(8, 5)) == 0


def test_regressor_without_flags_learns_values_alone():
    net = Regressor(cond_dim=2, values=3, flags=0, width=8, blocks=1)
    assert torch.isfinite(net.loss(normal(8, 2), normal(8, 3), torch.ones(8, 3)))
    assert net(normal(8, 2)).shape == (8, 3)
