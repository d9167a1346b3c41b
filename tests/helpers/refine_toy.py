"""The toy of `steering_toy` for refiners: a diffusion policy that was cloned from its aimless walks."""

from __future__ import annotations

import dataclasses
import functools

import torch
from steering_toy import SPEC, ToyEnv, ToyPolicy

from robopolicy.config import PolicyConfig
from robopolicy.data.windows import PolicyWindows
from robopolicy.policies.learners import PolicyLearner
from robopolicy.policies.load import ChunkPolicy
from robopolicy.policies.train import new_policy
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.spec import Field
from robopolicy.types import Episode

# Actions that fill a part of their range, as those of demonstrations do.
WALK = dataclasses.replace(SPEC, action=(Field("dx", 2, "m", -1.0, 1.0),))


def walk_env(count: int, **kwargs) -> ToyEnv:
    return ToyEnv(count, WALK, **kwargs)


class Undecided(ToyPolicy):
    """Goes left or right for a chunk, by the sign of its noise: the two modes of a careless operator."""

    def sample(self, obs, carry, noise):
        way = noise[:, :1, :1].sign().expand_as(noise)
        return 0.4 * way + 0.02 * noise, carry


def walks(count: int) -> list[Episode]:
    """Aimless episodes."""
    return rollout(walk_env(8), Undecided(WALK), PriorSteerer(), range(count))


@functools.cache
def walker(steps: int = 400) -> ChunkPolicy:
    """A diffusion policy that walks like `walks`; about a third of its episodes succeed."""
    episodes = walks(100)
    data = PolicyWindows(episodes, WALK)
    config = PolicyConfig(
        width=64, blocks=1, steps=steps, batch_size=256, lr=1e-2, ema_decay=0.98, inference_steps=4
    )
    policy = new_policy(WALK, config, data, 0)
    learner = PolicyLearner(policy, data, config)
    for i in range(steps):
        learner.step(i, torch.Generator().manual_seed(i))
    policy.core.load_state_dict(learner.ema.average)
    return policy.eval().requires_grad_(False)
