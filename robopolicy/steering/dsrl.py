"""DSRL: soft actor-critic in the latent-noise space of a frozen diffusion policy.

The action of the decision process is the noise w that the policy starts from; its step is a whole
chunk (Wagenmaker et al. 2025, arXiv 2506.15799, section 4; SAC: Haarnoja et al. 2018). The policy is
only ever run forward. Differing from the reference on purpose: the bound always holds, a time limit
is not a termination, and nothing is executed after the end of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from robopolicy.config import SteerConfig
from robopolicy.errors import BadInput
from robopolicy.protocols import Policy
from robopolicy.steering.actors import ActorConfig, SquashedActor
from robopolicy.steering.critics import Critics, SoftActor, critic_net
from robopolicy.steering.imagination import ImaginedEnv, Slots, credit, tally
from robopolicy.steering.iql import Iql
from robopolicy.steering.parts import Parts, pack, unpack
from robopolicy.steering.replay import Batch, Replay
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.steering.transitions import recorded_transitions
from robopolicy.types import Episode


class Dsrl:
    """A `robopolicy.train.Learner`: one step imagines one chunk in every slot, then updates.

    Args:
        policy: frozen; called through `sample` only.
        env: imagination.
        episodes: real ones: they give the normalisation and the first transitions.
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
        self.config, own = config, config.dsrl
        self.steerer = NoiseSteerer(ActorConfig.of(config), policy.spec, generator, policy)
        self.steerer.features.fit(episodes, policy.spec)
        assert isinstance(self.steerer.actor, SquashedActor)
        self.actor, self.slots = self.steerer.actor, Slots(env, policy)
        self.soft = SoftActor(self.actor, own)
        features, size = self.steerer.features.size, self.actor.size
        self.critics = Critics(critic_net(features + size, config, generator))
        self.adam = torch.optim.Adam(self.critics.net.parameters(), own.lr, fused=True)

        self.replay = Replay(own.capacity, (features, size, 0, features, 0))
        self.replay.add(recorded_transitions(episodes, policy, self.steerer, config))
        self.prefilled = self.replay.count
        if config.warm_start and not self.prefilled:
            raise BadInput("warm_start", "recorded chunks whose noise the steerer could choose", "none")

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        """Imagines one chunk per slot, stores it, and makes `updates` gradient updates."""
        if index == 0:
            self._warm_start(generator)
        metrics = self._imagine(generator)
        own = self.config.dsrl
        if self.replay.count < own.learning_starts or not own.updates:
            return metrics | {"loss": 0.0}
        return metrics | self.learn(generator)

    def learn(self, generator: Generator) -> dict[str, float]:
        """Makes `updates` gradient updates on transitions drawn from the replay."""
        own = self.config.dsrl
        rows = self.replay.sample(own.updates * own.batch, generator)
        eps = torch.randn(own.updates, 2, own.batch, self.actor.size, generator=generator)
        logs = [self._update(r, e) for r, e in zip(rows.split(own.batch), eps, strict=True)]
        loss, value, entropy = torch.stack(logs).mean(0).tolist()
        return {"loss": loss, "value": value, "entropy": entropy, "alpha": self.soft.alpha.item()}

    def _warm_start(self, generator: Generator) -> None:
        """Implicit Q-learning on what was recorded: critics and actor begin with what is known."""
        if not self.config.warm_start:
            return
        own = self.config.dsrl
        iql = Iql(self.critics, self.steerer.features.size, self.config, own.lr, own.tau, generator)
        for _ in range(self.config.warm_start):
            b = Batch(*self.replay.split(self.replay.sample(own.batch, generator)))
            weight, _ = iql.update(*b)
            self.soft.imitate(b.features, b.latent, weight)

    @torch.no_grad()
    def _imagine(self, generator: Generator) -> dict[str, float]:
        self.slots.restart(generator)
        before = self.steerer.features(self.slots.obs, self.slots.carry)
        eps = torch.randn(len(before), self.actor.size, generator=generator)
        latent, _ = self.actor.sample(before, eps)
        outcome = self.slots.act(self.actor.expand(latent))
        reward, discount = credit(outcome, self.config)
        after = self.steerer.features(self.slots.obs, self.slots.carry)
        self.replay.add(Batch(before, latent, reward, after, discount))
        return tally(outcome, reward)

    def _update(self, rows: Tensor, eps: Tensor) -> Tensor:
        """One update of critics, actor, temperature and targets; (3,) loss, value, entropy."""
        b = Batch(*self.replay.split(rows))
        with torch.no_grad():
            following, log_prob = self.actor.sample(b.following, eps[0])
            q = self.critics.backup(torch.cat([b.following, following], 1))
            wanted = b.reward + b.discount * (q - self.soft.alpha * log_prob)
        inputs = rows[:, : b.features.shape[1] + b.latent.shape[1]]  # features and latent lie side by side
        values = self.critics(inputs)  # (critics, B)
        loss = 0.5 * (values - wanted).square().mean(1).sum()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

        actor_loss, entropy = self.soft.improve(b.features, eps[1], self.critics.least)
        self.critics.follow(self.config.dsrl.tau)
        return torch.stack([loss + actor_loss, values.mean(), entropy]).detach()

    @property
    def _parts(self) -> Parts:
        return {
            "steerer": self.steerer,
            "soft": self.soft,
            "critics": self.critics,
            "adam": self.adam,
            "replay": self.replay,
            "slots": self.slots,
        }

    def state(self) -> dict[str, Tensor]:
        """Weights, optimisers, temperature, replay and the slots with their environment."""
        return pack(self._parts)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack(self._parts, tensors)
