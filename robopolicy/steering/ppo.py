"""PPO over the noise of a frozen policy, started exactly at the prior N(0, I).

Clipped surrogate and generalised advantages as in Schulman et al. 2017 (arXiv 1707.06347, eq. 7, 11);
the actor is mean + std * prior, so at the start steered and plain policy are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from robopolicy.config import SteerConfig
from robopolicy.protocols import Policy
from robopolicy.steering.actors import ActorConfig, PriorActor
from robopolicy.steering.imagination import ImaginedEnv, Slots, credit
from robopolicy.steering.networks import Mlp
from robopolicy.steering.parts import Parts, pack, unpack
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.types import Episode

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Ppo:
    """A `robopolicy.train.Learner`: one step imagines one episode per slot, then learns from them.

    Args:
        policy: frozen; called through `sample` only.
        env: imagination.
        episodes: real ones; they give the normalisation.
        config: settings.
        generator: draws the initial weights.
    """

    prefilled = 0  # on-policy: recorded transitions are of no use

    def __init__(
        self,
        policy: Policy,
        env: ImaginedEnv,
        episodes: Sequence[Episode],
        config: SteerConfig,
        generator: Generator,
    ):
        self.config = config
        self.steerer = NoiseSteerer(ActorConfig.of(config), policy.spec, generator)
        self.steerer.features.fit(episodes, policy.spec)
        assert isinstance(self.steerer.actor, PriorActor)
        self.actor, self.slots = self.steerer.actor, Slots(env, policy)
        self.value = Mlp([self.steerer.features.size, *[config.hidden] * config.layers, 1], 1, generator)
        self.adam = torch.optim.Adam(
            [*self.actor.parameters(), *self.value.parameters()], config.ppo.lr, fused=True
        )

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        """One iteration: imagine, estimate advantages, a few epochs of minibatches."""
        data, metrics = self._imagine(generator)
        own, logs = self.config.ppo, []
        for _ in range(own.epochs):
            order = torch.randperm(len(data[0]), generator=generator)
            logs += [self._update(*(x[i] for x in data)) for i in order.split(own.batch)]
        names = ("loss", "value_loss", "kl", "kl_prior", "entropy")
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
            features = self.steerer.features(slots.obs)
            prior = torch.randn(len(features), spec.chunk, spec.action_dim, generator=generator)
            noise = self.actor.noise(features, prior, slots.obs)
            outcome = slots.act(noise.clamp(-self.config.ppo.bound, self.config.ppo.bound))
            reward, discount = credit(outcome, self.config)
            value = self.value(features)[0, :, 0]
            following = self.value(self.steerer.features(slots.obs))[0, :, 0]
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
            later = delta[t] + self.config.gamma * self.config.ppo.lam * goes_on[t] * later
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
        """One minibatch; (5,) loss, value loss, KL to the old actor and to the prior, entropy."""
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        new, mean, log_std = self._log_prob(features, noise)
        ratio = (new - old).exp()
        clipped = ratio.clamp(1 - self.config.ppo.clip, 1 + self.config.ppo.clip)
        gain = torch.minimum(ratio * advantage, clipped * advantage).mean()
        value_loss = functional.mse_loss(self.value(features)[0, :, 0], wanted)
        loss = 0.5 * value_loss - gain
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        kl = (ratio - 1 - (new - old)).mean()  # unbiased and never negative (Schulman 2020)
        with torch.no_grad():
            size = noise[0].numel()
            kl_prior = size * (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).mean()
            entropy = size * (log_std + 0.5 + _HALF_LOG_2PI).mean()
        return torch.stack([loss, value_loss, kl, kl_prior, entropy]).detach()

    @property
    def _parts(self) -> Parts:
        # Every step starts all slots anew, so they hold nothing to keep.
        return {"steerer": self.steerer, "value": self.value, "adam": self.adam}

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser."""
        return pack(self._parts)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack(self._parts, tensors)
