"""Implicit Q-learning: values of the best that was done, without asking a critic about anything else.

Kostrikov et al. 2021 (arXiv 2110.06169). With surplus u = Q(s, x) - V(s) of what x was done:

    V:      |expectile - 1(u < 0)| u^2                         (eq. 5)
    Q:      (r + discount V(s') - Q(s, x))^2                   (eq. 6)
    actor:  exp(beta u) log pi(x | s), the weight at most 100  (eq. 7)
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from robopolicy.steering.critics import Critics, CriticSettings
from robopolicy.steering.networks import Mlp

_MOST_WEIGHT = 100.0


class Iql:
    """Trains critics, whatever they judge, together with a value of what is seen.

    Args:
        critics: of inputs (B, features + chosen).
        features: F.
        config: expectile and beta.
        lr: learning rate.
        tau: Polyak rate of the targets.
        generator: draws the initial weights of the value.
    """

    def __init__(
        self,
        critics: Critics,
        features: int,
        config: CriticSettings,
        lr: float,
        tau: float,
        generator: Generator,
    ):
        self.critics, self.config, self.tau = critics, config.iql, tau
        self.value = Mlp([features, *[config.hidden] * config.layers, 1], 1, generator)
        self.adam = torch.optim.Adam([*critics.net.parameters(), *self.value.parameters()], lr, fused=True)

    def update(
        self, features: Tensor, chosen: Tensor, reward: Tensor, following: Tensor, discount: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One update; (B,) weight of what was chosen for an actor, and the loss."""
        x = torch.cat([features, chosen], 1)
        with torch.no_grad():
            best = self.critics.backup(x)
            wanted = reward + discount * self.value(following)[0, :, 0]
        surplus = best - self.value(features)[0, :, 0]
        slope = torch.where(surplus < 0, 1 - self.config.expectile, self.config.expectile)
        loss = (slope * surplus.square()).mean()
        loss = loss + 0.5 * (self.critics(x) - wanted).square().mean(1).sum()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.critics.follow(self.tau)
        return self.weight(surplus.detach()), loss.detach()

    def weight(self, surplus: Tensor) -> Tensor:
        """(B,) how much an actor should imitate what was worth so much more than usual."""
        return (self.config.beta * surplus).exp().clamp(max=_MOST_WEIGHT)
