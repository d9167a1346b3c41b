"""DSRL with a noise-aliased critic: it judges actions, so any recorded action teaches it.

Wagenmaker et al. 2025 (arXiv 2506.15799, section 4.2). F(s, w) is the frozen policy, only run forward:

    Q_A(s, a)  learns  r + discount [ min Q_A'(s', F(s', w')) - alpha log pi(w' | s') ],  w' ~ pi(. | s')
    Q_W(s, w)  learns  Q_A(s, F(s, w)), member by member,                                 any w
    pi         maximises min Q_W + alpha entropy

Running F in every update would cost more than all the rest, so each step runs it on a few transitions and
keeps them in a pool that the updates draw from: w' is a few steps old, which for an off-policy critic
is as good as new. "Any w" is uniform in the box that the actor chooses from, not normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from robopolicy.config import SteerConfig
from robopolicy.errors import BadInput
from robopolicy.protocols import Policy
from robopolicy.steering.actors import ActorConfig, Features, SquashedActor
from robopolicy.steering.candidates import decoder
from robopolicy.steering.critics import Critics, SoftActor, critic_net
from robopolicy.steering.imagination import ImaginedEnv, Slots, credit, tally
from robopolicy.steering.iql import Iql
from robopolicy.steering.parts import Parts, pack, unpack
from robopolicy.steering.replay import Batch, Replay
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.steering.transitions import recorded_chunks
from robopolicy.types import Episode


class Decoded(NamedTuple):
    """Transitions at which the policy was run.

    Attributes:
        features: (B, F) what was seen.
        actions: (B, K*A) what was done, normalised.
        any_actions: (B, K*A) what the policy would have done with the noise of `any_latent`.
        any_latent: (B, M) noise drawn without regard to anything.
        reward: (B,) reward of the chunk.
        following: (B, F) what was seen next.
        following_actions: (B, K*A) what the policy does next with the actor's noise.
        following_log_prob: (B,) log-probability of that noise.
        discount: (B,) weight of the value of `following`.
    """

    features: Tensor
    actions: Tensor
    any_actions: Tensor
    any_latent: Tensor
    reward: Tensor
    following: Tensor
    following_actions: Tensor
    following_log_prob: Tensor
    discount: Tensor


class DsrlNa:
    """A `robopolicy.train.Learner`: one step imagines one chunk in every slot, then updates.

    Args:
        policy: frozen and without memory; called through `sample` only.
        env: imagination.
        episodes: real ones, of anyone: they give the normalisation and the first transitions.
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
        self.config, own, spec = config, config.dsrl, policy.spec
        if spec.pictures:  # it would keep a hundred thousand of them
            raise BadInput("method", "dsrl where a policy reads pictures", "dsrl-na")
        self.decode = decoder(policy)
        self.steerer = NoiseSteerer(ActorConfig.of(config), spec, generator, policy)
        self.actions = Features(spec, "actions")
        for one in (self.steerer.features, self.actions):
            one.fit(episodes, spec)
        assert isinstance(self.steerer.actor, SquashedActor)
        self.actor, self.slots = self.steerer.actor, Slots(env, policy)
        self.soft = SoftActor(self.actor, own)
        f, a, m = self.steerer.features.size, self.actions.size, self.actor.size
        self.critics = Critics(critic_net(f + a, config, generator))
        self.aliased = critic_net(f + m, config, generator)
        nets = [*self.critics.net.parameters(), *self.aliased.parameters()]
        self.adam = torch.optim.Adam(nets, own.lr, fused=True)

        self.replay = Replay(own.capacity, (f, a, 0, f, 0))  # observations and actions as they are
        self.replay.add(recorded_chunks(episodes, spec, config))
        self.prefilled = self.replay.count
        self.pool = Replay(config.aliased.pool, (f, a, a, m, 0, f, a, 0, 0))

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
        """Runs the policy on a few transitions, and makes `updates` gradient updates on the pool."""
        own = self.config.dsrl
        self._decode(generator)
        rows = self.pool.sample(own.updates * own.batch, generator).split(own.batch)
        eps = torch.randn(own.updates, own.batch, self.actor.size, generator=generator)
        logs = [self._update(Decoded(*self.pool.split(r)), e) for r, e in zip(rows, eps, strict=True)]
        loss, value, entropy = torch.stack(logs).mean(0).tolist()
        return {"loss": loss, "value": value, "entropy": entropy, "alpha": self.soft.alpha.item()}

    def _warm_start(self, generator: Generator) -> None:
        """Implicit Q-learning on the recorded actions; the actor imitates whichever noise does well."""
        own = self.config.dsrl
        iql = Iql(self.critics, self.steerer.features.size, self.config, own.lr, own.tau, generator)
        for i in range(self.config.warm_start):
            if i % own.updates == 0:
                self._decode(generator)
            d = Decoded(*self.pool.split(self.pool.sample(own.batch, generator)))
            iql.update(d.features, d.actions, d.reward, d.following, d.discount)
            loss, taught = self._distilled(d)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            surplus = taught.amin(0) - iql.value(d.features).detach()[0, :, 0]
            self.soft.imitate(d.features, d.any_latent, iql.weight(surplus))

    @torch.no_grad()
    def _imagine(self, generator: Generator) -> dict[str, float]:
        self.slots.restart(generator)
        obs = self.slots.obs
        eps = torch.randn(len(obs), self.actor.size, generator=generator)
        latent, _ = self.actor.sample(self.steerer.features(obs), eps)
        outcome = self.slots.act(self.actor.expand(latent))
        reward, discount = credit(outcome, self.config)
        seen, done, then = (x.flatten(1) for x in (obs, self.slots.actions, self.slots.obs))
        self.replay.add(Batch(seen, done, reward, then, discount))
        return tally(outcome, reward)

    @torch.no_grad()
    def _decode(self, generator: Generator) -> None:
        """Runs the policy on some transitions, for the pool."""
        n, m = self.config.aliased.decoded, self.actor.size
        b = Batch(*self.replay.split(self.replay.sample(n, generator)))
        obs = torch.cat([b.features, b.following]).unflatten(1, self.steerer.features.shape)
        here, there = self.steerer.features(obs).chunk(2)
        any_latent = 2 * torch.rand(n, m, generator=generator) - 1
        latent, log_prob = self.actor.sample(there, torch.randn(n, m, generator=generator))
        made = self.actions(self.decode(obs, self.actor.expand(torch.cat([any_latent, latent]))))
        done = self.actions(b.latent.unflatten(1, self.actions.shape))
        any_actions, actions = made.chunk(2)
        self.pool.add(
            Decoded(here, done, any_actions, any_latent, b.reward, there, actions, log_prob, b.discount)
        )

    def _distilled(self, d: Decoded) -> tuple[Tensor, Tensor]:
        """Loss of Q_W, and what it should be (critics, B)."""
        with torch.no_grad():
            taught = self.critics(torch.cat([d.features, d.any_actions], 1))
        guess = self.aliased(torch.cat([d.features, d.any_latent], 1))[..., 0]
        return 0.5 * (guess - taught).square().mean(1).sum(), taught

    def _update(self, d: Decoded, eps: Tensor) -> Tensor:
        """One update of both critics, actor, temperature and targets; (3,) loss, value, entropy."""
        with torch.no_grad():
            q = self.critics.backup(torch.cat([d.following, d.following_actions], 1))
            wanted = d.reward + d.discount * (q - self.soft.alpha * d.following_log_prob)
        values = self.critics(torch.cat([d.features, d.actions], 1))  # (critics, B)
        loss = 0.5 * (values - wanted).square().mean(1).sum() + self._distilled(d)[0]
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

        actor_loss, entropy = self.soft.improve(d.features, eps, lambda x: self.aliased(x)[..., 0].amin(0))
        self.critics.follow(self.config.dsrl.tau)
        return torch.stack([loss + actor_loss, values.mean(), entropy]).detach()

    @property
    def _parts(self) -> Parts:
        return {
            "steerer": self.steerer,
            "soft": self.soft,
            "critics": self.critics,
            "aliased": self.aliased,
            "adam": self.adam,
            "replay": self.replay,
            "pool": self.pool,
            "slots": self.slots,
        }

    def state(self) -> dict[str, Tensor]:
        """Weights, optimisers, temperature, replay, pool and the slots with their environment."""
        return pack(self._parts)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack(self._parts, tensors)
