"""PPO over the noise of a frozen policy, started exactly at the prior N(0, I).

Clipped surrogate and generalised advantages as in Schulman et al. 2017 (arXiv 1707.06347, eq. 7, 11);
the actor is mean + std * prior, so at the start steered and plain policy are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from robopolicy.config import PpoConfig, SteerConfig
from robopolicy.protocols import Carry, Policy
from robopolicy.steering.actors import ActorConfig, PriorActor
from robopolicy.steering.imagination import ImaginedEnv, Prices, Slots, credit
from robopolicy.steering.networks import Mlp
from robopolicy.steering.parts import Parts, pack, unpack
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.types import Episode

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Actor(Protocol):
    """What `ClippedPpo` can train: a Gaussian over what a policy is told."""

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std, (B, K, A) or of a shape that broadcasts to it."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class ClippedPpo:
    """PPO of a Gaussian over the noise of whatever policy the slots hold.

    A `robopolicy.train.Learner`: one step imagines one episode per slot, then learns from them.

    Args:
        slots: imagination and the policy that turns noise into a chunk.
        trained: the module that is trained and saved; holds `actor`.
        features: observations (B, T, D) -> (B, F).
        actor: what chooses the noise.
        value: of features.
        prices: gamma, and what doubt costs.
        own: settings.
        anchor: weight of the KL divergence to the moments that `reference` gives.
    """

    prefilled = 0  # on-policy: recorded transitions are of no use

    def __init__(
        self,
        slots: Slots,
        trained: nn.Module,
        features: Callable[[Tensor, Carry], Tensor],
        actor: Actor,
        value: Mlp,
        prices: Prices,
        own: PpoConfig,
        anchor: float = 0.0,
    ):
        self.slots, self.trained, self.features = slots, trained, features
        self.actor, self.value = actor, value
        self.prices, self.own, self.anchor = prices, own, anchor
        self.adam = torch.optim.Adam([*actor.parameters(), *value.parameters()], own.lr, fused=True)

    def reference(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std that the actor is held to: the prior N(0, I)."""
        return torch.zeros(()), torch.zeros(())

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        """One iteration: imagine, estimate advantages, a few epochs of minibatches."""
        data, metrics = self._imagine(generator)
        own, logs = self.own, []
        for _ in range(own.epochs):
            order = torch.randperm(len(data[0]), generator=generator)
            logs += [self._update(*(x[i] for x in data)) for i in order.split(own.batch)]
        names = ("loss", "value_loss", "kl", "kl_reference", "entropy")
        return metrics | dict(zip(names, torch.stack(logs).mean(0).tolist(), strict=True))

    @torch.no_grad()
    def _imagine(self, generator: Generator) -> tuple[list[Tensor], dict[str, float]]:
        """One episode per slot: features, noise, log-probability, advantage and return of each chunk."""
        spec, slots = self.slots.policy.spec, self.slots
        slots.ended[:] = True
        slots.restart(generator)
        steps: list[list[Tensor]] = []
        succeeded = lost = 0.0
        while not slots.ended.all():
            features = self.features(slots.obs, slots.carry)
            prior = torch.randn(len(features), spec.chunk, spec.action_dim, generator=generator)
            mean, log_std = self.actor.moments(features)
            noise = mean + log_std.exp() * prior
            outcome = slots.act(noise.clamp(-self.own.bound, self.own.bound))
            reward, discount = credit(outcome, self.prices)
            value = self.value(features)[0, :, 0]
            following = self.value(self.features(slots.obs, slots.carry))[0, :, 0]
            delta = reward + discount * following - value
            log_prob, _, _ = self._log_prob(features, noise)
            steps.append([features, noise, log_prob, delta, value, outcome.active, ~outcome.ended])
            succeeded += float((outcome.success & outcome.terminated).sum())
            lost += float(outcome.lost.sum())
        features, noise, log_prob, delta, value, active, goes_on = (
            torch.stack(x) for x in zip(*steps, strict=True)
        )
        advantage, later = torch.zeros_like(delta), torch.zeros(len(slots.ended))
        for t in reversed(range(len(delta))):
            # Across an end nothing flows back; a time limit has bootstrapped in its delta.
            later = delta[t] + self.prices.gamma * self.own.lam * goes_on[t] * later
            advantage[t] = later
        data = [x[active] for x in (features, noise, log_prob, advantage, advantage + value)]
        n = len(slots.ended)
        return data, {"ended": float(n), "succeeded": succeeded, "lost": lost, "chunks": float(active.sum())}

    def _log_prob(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log pi(noise) (B,), and the moments of pi."""
        mean, log_std = self.actor.moments(features)
        each = -0.5 * ((noise - mean) * torch.exp(-log_std)).square() - log_std - _HALF_LOG_2PI
        return each.flatten(1).sum(1), mean, log_std

    def _update(
        self, features: Tensor, noise: Tensor, old: Tensor, advantage: Tensor, wanted: Tensor
    ) -> Tensor:
        """One minibatch; (5,) loss, value loss, KL to the old actor and to the reference, entropy."""
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        new, mean, log_std = self._log_prob(features, noise)
        ratio = (new - old).exp()
        clipped = ratio.clamp(1 - self.own.clip, 1 + self.own.clip)
        gain = torch.minimum(ratio * advantage, clipped * advantage).mean()
        value_loss = functional.mse_loss(self.value(features)[0, :, 0], wanted)
        held = self._divergence(mean, log_std, *self.reference(features)) * noise[0].numel()
        loss = 0.5 * value_loss - gain + self.anchor * held
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        kl = (ratio - 1 - (new - old)).mean()  # unbiased and never negative (Schulman 2020)
        entropy = noise[0].numel() * (log_std + 0.5 + _HALF_LOG_2PI).mean()
        return torch.stack([loss, value_loss, kl, held, entropy]).detach()

    @staticmethod
    def _divergence(mean: Tensor, log_std: Tensor, other: Tensor, other_log_std: Tensor) -> Tensor:
        """KL of one Gaussian from another, per number, on average."""
        ratio = log_std - other_log_std
        shift = (mean - other) * torch.exp(-other_log_std)
        return (0.5 * (shift.square() + (2 * ratio).exp() - 1) - ratio).mean()

    @property
    def _parts(self) -> Parts:
        # Every step starts all slots anew, so they hold nothing to keep.
        return {"trained": self.trained, "value": self.value, "adam": self.adam}

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser."""
        return pack(self._parts)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack(self._parts, tensors)


class Ppo(ClippedPpo):
    """PPO over the noise of a frozen policy.

    Args:
        policy: frozen; called through `sample` only.
        env: imagination.
        episodes: real ones; they give the normalisation.
        config: settings.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        policy: Policy,
        env: ImaginedEnv,
        episodes: Sequence[Episode],
        config: SteerConfig,
        generator: Generator,
    ):
        self.steerer = NoiseSteerer(ActorConfig.of(config), policy.spec, generator, policy)
        features, actor = self.steerer.features, self.steerer.actor
        features.fit(episodes, policy.spec)
        assert isinstance(actor, PriorActor)
        value = Mlp([features.size, *[config.hidden] * config.layers, 1], 1, generator)
        super().__init__(Slots(env, policy), self.steerer, features, actor, value, config, config.ppo)
