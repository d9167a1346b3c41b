"""Noise-aliased DSRL as its reference structures it, on the parts of Stable-Baselines3.

The policy runs twice in every update: at what followed with the actor's noise, and at what came before with
any noise (Wagenmaker et al. 2025, arXiv 2506.15799, algorithm 1). Only for `benchmarks.updates`: how long
an update takes does not depend on what is learned, so the policy is always shown the same observations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.utils import polyak_update
from torch import Tensor
from torch.nn import functional


class ReferenceNa:
    """The reference's updates.

    Args:
        noise: SAC over the noise; its critic is the noise-aliased one.
        actions: SAC over action chunks; its critics and its replay are used.
        run_policy: noise (B, M) -> normalised action chunks (B, K*A).
    """

    def __init__(self, noise: SAC, actions: SAC, run_policy: Callable[[Tensor], Tensor]):
        self.noise, self.actions, self.run_policy = noise, actions, run_policy

    def train(self, updates: int, batch: int) -> None:
        """Makes so many updates of critics, actor, temperature and targets."""
        for _ in range(updates):
            self._update(batch)

    def _update(self, batch: int) -> None:
        # The optional parts of Stable-Baselines3 are there: `their_side` asks for a tuned temperature.
        noise, critic, target = self.noise, self.actions.critic, self.actions.critic_target
        replay: Any = self.actions.replay_buffer
        log_alpha: Any = noise.log_ent_coef
        data = replay.sample(batch)
        seen, following = data.observations, data.next_observations

        latent, log_prob = noise.actor.action_log_prob(seen)
        alpha = log_alpha.detach().exp()
        _descend(
            noise.ent_coef_optimizer, -(log_alpha * (log_prob + float(noise.target_entropy)).detach()).mean()
        )

        with torch.no_grad():
            then, then_log_prob = noise.actor.action_log_prob(following)
            q = torch.cat(target(following, self.run_policy(then)), 1).amin(1, keepdim=True)
            wanted = data.rewards + self.actions.gamma * (q - alpha * then_log_prob[:, None])
        values = critic(seen, data.actions)
        _descend(critic.optimizer, 0.5 * sum(functional.mse_loss(v, wanted) for v in values))

        with torch.no_grad():
            anything = 2 * torch.rand_like(latent) - 1
            taught = critic(seen, self.run_policy(anything))
        guesses = noise.critic(seen, anything)
        distilled = 0.5 * sum(functional.mse_loss(g, t) for g, t in zip(guesses, taught, strict=True))
        _descend(noise.critic.optimizer, distilled)

        least = torch.cat(noise.critic(seen, latent), 1).amin(1)
        _descend(noise.actor.optimizer, (alpha * log_prob - least).mean())
        polyak_update(critic.parameters(), target.parameters(), self.actions.tau)


def _descend(optimizer: Any, loss: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
