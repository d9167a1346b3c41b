"""The parts of soft actor-critic: a pessimistic ensemble of critics; an actor with its temperature."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from robopolicy.config import DsrlConfig, IqlConfig
from robopolicy.steering.actors import SquashedActor
from robopolicy.steering.networks import Mlp
from robopolicy.steering.parts import Parts, pack, unpack


class CriticSettings(Protocol):
    """What shapes critics and their training; see `robopolicy.config.SteerConfig`."""

    @property
    def hidden(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def critics(self) -> int: ...
    @property
    def iql(self) -> IqlConfig: ...


def critic_net(inputs: int, config: CriticSettings, generator: Generator) -> Mlp:
    """As many critics as `config` wants."""
    return Mlp([inputs, *[config.hidden] * config.layers, 1], config.critics, generator)


class Critics(nn.Module):
    """Critics and their slowly following targets.

    The value of an input is the least that any critic gives it: of two as in SAC; of more, it is the more
    pessimistic the thinner the data (SAC-N: An et al. 2021, arXiv 2110.01548, section 3).

    Args:
        net: the critics.
    """

    def __init__(self, net: Mlp):
        super().__init__()
        self.net, self.slow = net, copy.deepcopy(net).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (critics, B)."""
        return self.net(x)[..., 0]

    def least(self, x: Tensor) -> Tensor:
        """(B,) the least of the critics."""
        return self(x).amin(0)

    def backup(self, x: Tensor) -> Tensor:
        """(B,) the least of the targets."""
        return self.slow(x)[..., 0].amin(0)

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """Moves the targets a step of `tau` towards the critics."""
        for old, new in zip(self.slow.parameters(), self.net.parameters(), strict=True):
            old.lerp_(new, tau)


class SoftActor:
    """An actor that maximises value plus entropy, at a temperature that keeps its entropy near -M.

    Haarnoja et al. 2018 (arXiv 1812.05905, eq. 7 and 18).

    Args:
        actor: what is trained.
        config: learning rate and temperature.
    """

    def __init__(self, actor: SquashedActor, config: DsrlConfig):
        self.actor, self.floor = actor, math.log(config.alpha_floor)
        self.log_alpha = torch.tensor(math.log(config.alpha), requires_grad=True)
        self.target_entropy = -float(actor.size)
        self.adam = torch.optim.Adam([*actor.parameters(), self.log_alpha], config.lr, fused=True)

    @property
    def alpha(self) -> Tensor:
        return self.log_alpha.detach().exp()

    def improve(
        self, features: Tensor, eps: Tensor, value: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """One update towards what `value` (B, F+M) -> (B,) holds best.

        Returns:
            Loss and entropy, both scalars.
        """
        alpha = self.alpha
        latent, log_prob = self.actor.sample(features, eps)
        q = value(torch.cat([features, latent], 1))
        surplus = -log_prob.detach().mean() - self.target_entropy
        loss = (alpha * log_prob - q).mean()
        self.adam.zero_grad()
        # Only towards the actor: the critics' weight gradients would be thrown away.
        both = loss + self.log_alpha * surplus
        both.backward(inputs=[*self.actor.parameters(), self.log_alpha])
        self.adam.step()
        with torch.no_grad():
            # A bonus that dies lets the actor settle on one flaw of the world model.
            self.log_alpha.clamp_(min=self.floor)
        return loss.detach(), -log_prob.detach().mean()

    def imitate(self, features: Tensor, latent: Tensor, weight: Tensor) -> None:
        """One update towards latents (B, M) that were taken, each with its weight (B,)."""
        loss = -(weight * self.actor.log_prob(features, latent)).mean()
        self.adam.zero_grad()
        loss.backward(inputs=list(self.actor.parameters()))
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        """Optimiser and temperature; the actor is saved with its steerer."""
        return {**pack(self._parts), "log_alpha": self.log_alpha.detach().clone()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack(self._parts, tensors)
        self.log_alpha.data.copy_(tensors["log_alpha"])

    @property
    def _parts(self) -> Parts:
        return {"adam": self.adam}
