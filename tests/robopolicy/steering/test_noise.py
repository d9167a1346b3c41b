"""Bounded noise and aimless actions stay in range and vary as they should."""

import pytest
import torch

from robopolicy.steering.noise import RandomPolicy, UniformNoise
from sim.tasks import LIFT


@pytest.mark.parametrize("repeat", [False, True])
def test_bounded_noise_is_uniform_within_its_bound(repeat):
    prior = torch.randn(4000, 8, 4, generator=torch.Generator().manual_seed(0))
    noise = UniformNoise(1.5, repeat).noise(torch.zeros(4000, 2, 15), prior)
    assert noise.shape == prior.shape
    assert noise.abs().max() <= 1.5
    assert torch.histc(noise[:, 0], 10, -1.5, 1.5) == pytest.approx(1600, rel=0.15)
    assert bool((noise == noise[:, :1]).all()) == repeat


def test_random_actions_are_smooth_and_fill_their_range():
    policy, generator = RandomPolicy(LIFT), torch.Generator().manual_seed(0)
    carry, obs, parts = policy.initial(range(50)), torch.zeros(50, 2, LIFT.state_dim), []
    for _ in range(20):
        noise = torch.randn(50, LIFT.chunk, LIFT.action_dim, generator=generator)
        actions, carry = policy.sample(obs, carry, noise)
        LIFT.check_action(actions.numpy())
        parts.append(actions)
    share = torch.cat(parts, 1) / torch.from_numpy(LIFT.action_range[1])
    assert share.max() > 0.95
    assert share.min() < -0.95
    assert (share[:, 1:] - share[:, :-1]).abs().mean() < 0.3
