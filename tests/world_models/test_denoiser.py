"""EDM: the preconditioning is Karras et al.'s, and its sampler samples."""

import itertools

import pytest
import torch
from tiny import normal

from robopolicy.train import seeded_init
from world_models.denoiser import Denoiser, GaussianErrors, euler_sample, karras_levels

SIGMAS = torch.tensor([[0.02], [0.5], [1.0], [10.0]])


@pytest.fixture
def net():
    with seeded_init(0):
        return Denoiser(dim=3, cond_dim=2, width=16, blocks=1)


def test_denoiser_with_zero_network_output_returns_c_skip_x(net):
    x = normal(4, 3)
    assert torch.allclose(net(x, SIGMAS, normal(4, 2)), x / (1 + SIGMAS**2))


def test_denoiser_with_constant_network_output_adds_c_out(net):
    x = normal(4, 3)
    torch.nn.init.ones_(net.out.bias)
    wanted = x / (1 + SIGMAS**2) + SIGMAS / (1 + SIGMAS**2).sqrt()
    assert torch.allclose(net(x, SIGMAS, normal(4, 2)), wanted)


def test_preconditioning_of_unit_variance_data_gives_a_unit_variance_target():
    # F's target is (clean - c_skip x) / c_out; Karras et al. 2022 choose c_skip, c_out for this.
    clean, noise, sigma = normal(100_000, 1), normal(100_000, 1, seed=1), 0.7
    x = clean + sigma * noise
    target = (clean - x / (1 + sigma**2)) / (sigma / (1 + sigma**2) ** 0.5)
    assert target.std().item() == pytest.approx(1, abs=0.01)


def test_loss_falls_as_the_network_learns(net):
    cond = normal(64, 2)
    clean = torch.cat([cond, cond[:, :1]], 1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for i in range(150):
        loss = net.loss(clean, cond, torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_karras_levels_fall_from_high_to_low_to_zero(steps):
    levels = karras_levels(steps, high=10.0, low=0.02)
    assert len(levels) == steps + 1
    assert levels[0] == pytest.approx(10.0)
    assert levels[-1] == 0
    assert all(a > b for a, b in itertools.pairwise(levels))
    if steps > 1:
        assert levels[-2] == pytest.approx(0.02)


def gaussian(mean: float, std: float):
    """The exact denoiser of data from N(mean, std^2)."""
    return lambda x, sigma: (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)


def test_euler_sample_with_exact_denoiser_recovers_mean_and_variance():
    noise = normal(20_000, 1)
    x = euler_sample(gaussian(0.4, 0.8), noise, karras_levels(200, high=80.0))
    assert x.mean().item() == pytest.approx(0.4, abs=0.03)
    assert x.std().item() == pytest.approx(0.8, abs=0.03)


def test_euler_sample_ends_at_the_mean_when_the_data_is_a_point():
    x = euler_sample(gaussian(0.4, 0.0), normal(5, 1), karras_levels(3))
    assert torch.allclose(x, torch.full_like(x, 0.4))


def test_gaussian_errors_learn_mean_and_spread_of_what_the_condition_decides():
    with seeded_init(0):
        net = GaussianErrors(dim=1, cond_dim=1, width=16, blocks=1)
    cond = normal(4000, 1).sign()
    clean = 0.5 * cond + torch.where(cond > 0, 0.2, 1.0) * normal(4000, 1, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for i in range(300):
        loss = net.loss(clean, cond, torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for sign, spread in ((1.0, 0.2), (-1.0, 1.0)):
        drawn = net.sample(normal(20_000, 1, seed=2), torch.full((20_000, 1), sign))
        assert drawn.mean().item() == pytest.approx(0.5 * sign, abs=0.1)
        assert drawn.std().item() == pytest.approx(spread, rel=0.15)
