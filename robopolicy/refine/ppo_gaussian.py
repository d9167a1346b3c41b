"""World4RL's way: a Gaussian policy, refined by PPO in imagination.

Li et al. 2025 (arXiv 2509.19080, section III): imitate with a Gaussian, bound its std, then clipped PPO
inside the frozen world model. Here the Gaussian imitates the given policy instead of demonstrations, by
maximum likelihood at the recorded states: so it can be had of any policy, and begins where that one is.
Two modes become one wide mode between them; what is lost there PPO has to win back.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from robopolicy.data.windows import PolicyWindows
from robopolicy.policies.gaussian import ActionPlayer, GaussianPolicy
from robopolicy.protocols import Policy
from robopolicy.refine.config import GaussianConfig, RefineConfig
from robopolicy.steering.imagination import ImaginedEnv, Slots
from robopolicy.steering.networks import Mlp
from robopolicy.steering.ppo import ClippedPpo
from robopolicy.train import descend, warm_cosine
from robopolicy.types import Episode


class PpoGaussian(ClippedPpo):
    """PPO over the normalised chunks of a Gaussian policy, held to what it was distilled to be.

    A run that is resumed distils again, with the same outcome.

    Args:
        policy: stays as it is; a Gaussian is distilled from it.
        env: imagination.
        episodes: real ones, for their states.
        config: settings.
        generator: draws the initial weights and the distillation.

    Attributes:
        policy: the Gaussian.
    """

    def __init__(
        self,
        policy: Policy,
        env: ImaginedEnv,
        episodes: Sequence[Episode],
        config: RefineConfig,
        generator: Generator,
    ):
        own = config.gaussian
        self.policy = distilled(policy, episodes, own, generator)
        self.distilled = copy.deepcopy(self.policy).requires_grad_(False)
        features = policy.spec.obs_steps * policy.spec.state_dim
        value = Mlp([features, *[config.hidden] * config.layers, 1], 1, generator)
        # The chunk that is drawn is what PPO calls noise, so the slots play it as it is.
        slots, new = Slots(env, ActionPlayer(policy.spec)), self.policy
        super().__init__(
            slots, new, lambda obs, _: new.features(obs), new, value, config, own.ppo, own.anchor
        )

    def reference(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std of the Gaussian as it was distilled."""
        return self.distilled.moments(features)


def distilled(
    policy: Policy, episodes: Sequence[Episode], own: GaussianConfig, generator: Generator
) -> GaussianPolicy:
    """The Gaussian under which the chunks that `policy` takes at recorded states are likeliest.

    Args:
        policy: what to imitate; asked as at the start of an episode, if it has a memory.
        episodes: real ones, at least one step.
        own: size of the network and of the training.
        generator: of every random draw.
    """
    spec = policy.spec
    new = GaussianPolicy(spec, own.width, own.blocks, generator)
    # In deployment an episode ends at success; what was recorded beyond is for world models.
    windows = PolicyWindows([e.until_success() for e in episodes], spec)
    new.fit(windows.states)
    adam = torch.optim.AdamW(new.parameters(), own.distil_lr, fused=True)
    for i in range(own.distil_updates):
        obs = windows.obs(torch.randint(len(windows), (own.distil_batch,), generator=generator))
        noise = torch.randn(own.distil_batch, spec.chunk, spec.action_dim, generator=generator)
        actions, _ = policy.sample(obs, policy.initial([0] * len(obs)), noise)
        mean, log_std = new.moments(new.features(obs))
        error = (2 * (actions - new.low) / (new.high - new.low) - 1 - mean) * torch.exp(-log_std)
        loss = (0.5 * error.square() + log_std).mean()
        for group in adam.param_groups:
            group["lr"] = own.distil_lr * warm_cosine(i / own.distil_updates)
        adam.zero_grad()
        loss.backward()
        descend(adam, new.parameters())
    return new
