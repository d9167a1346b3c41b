"""The Gaussian that is distilled, and what PPO holds it to."""

import dataclasses

import torch
from refine_toy import WALK, walk_env, walks
from steering_toy import ToyPolicy

from robopolicy.refine.config import REFINE_PRESETS, GaussianConfig
from robopolicy.refine.ppo_gaussian import PpoGaussian, distilled


def test_distilled_has_the_moments_of_the_policy():
    """The toy plays gain * noise, in a range of +-1: mean 0 and std gain, wherever it is."""
    own = GaussianConfig(width=16, distil_updates=300, distil_batch=256, distil_lr=1e-2)
    new = distilled(ToyPolicy(WALK, 0.25), walks(20), own, torch.Generator().manual_seed(0))
    obs = torch.stack([torch.from_numpy(e.states[:2]) for e in walks(10)])
    mean, log_std = new.moments(new.features(obs))
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=0.06)
    torch.testing.assert_close(log_std.exp(), torch.full_like(mean, 0.25), rtol=0, atol=0.04)


def learner(anchor: float) -> PpoGaussian:
    tiny = REFINE_PRESETS["tiny"]
    config = dataclasses.replace(tiny, gaussian=dataclasses.replace(tiny.gaussian, anchor=anchor))
    return PpoGaussian(ToyPolicy(WALK), walk_env(4), walks(8), config, torch.Generator().manual_seed(0))


def test_ppo_gaussian_begins_at_the_distilled_policy():
    made = learner(0.0)
    metrics = made.step(0, torch.Generator().manual_seed(0))
    fresh = learner(0.0)
    assert metrics["kl_reference"] < 0.1
    assert fresh.policy.hash() == fresh.distilled.hash() == made.distilled.hash() != made.policy.hash()


def test_ppo_gaussian_anchor_keeps_it_nearer():
    kls = []
    for anchor in (0.0, 100.0):
        made = learner(anchor)
        made.adam.param_groups[0]["lr"] = 1e-2
        rows = [made.step(i, torch.Generator().manual_seed(i)) for i in range(4)]
        kls.append(rows[-1]["kl_reference"])
    assert kls[1] < 0.5 * kls[0]


def test_ppo_gaussian_plays_what_the_gaussian_draws():
    """The slots play the chunk as it is: acting by them and by the policy itself is the same."""
    made, noise = learner(0.0), torch.randn(4, WALK.chunk, WALK.action_dim)
    obs = torch.rand(4, WALK.obs_steps, WALK.state_dim)
    mean, log_std = made.policy.moments(made.policy.features(obs))
    played, _ = made.slots.policy.sample(obs, {}, mean + log_std.exp() * noise)
    assert torch.equal(played, made.policy.sample(obs, {}, noise)[0])
