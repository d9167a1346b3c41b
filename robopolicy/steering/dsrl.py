"""DSRL: soft actor-critic in the latent-noise space of a frozen diffusion policy.

The action of the decision process is the noise w that the policy starts from; its step is a whole
chunk (Wagenmaker et al. 2025, arXiv 2506.15799, section 4; SAC: Haarnoja et al. 2018). The policy is
only ever run forward. Differing from the reference on purpose: the bound always holds, a time limit
is not a termination, and nothing is executed after the end of an episode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from robopolicy.config import SteerConfig
from robopolicy.protocols import Policy
from robopolicy.steering.imagination import ImaginedEnv, Slots, credit, part
from robopolicy.steering.networks import Mlp
from robopolicy.steering.replay import Batch, Replay
from robopolicy.steering.steerer import ActorConfig, NoiseSteerer, SquashedActor
from robopolicy.steering.transitions import recorded_transitions
from robopolicy.train import load_optimizer_state, optimizer_state
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
        self.steerer = NoiseSteerer(ActorConfig.of(config), policy.spec, generator)
        self.steerer.features.fit(episodes, policy.spec)
        assert isinstance(self.steerer.actor, SquashedActor)
        self.actor, self.slots = self.steerer.actor, Slots(env, policy)
        features, size = self.steerer.features.size, self.actor.size

        sizes = [features + size, *[config.hidden] * config.layers, 1]
        self.critic = Mlp(sizes, 2, generator)
        self.target = Mlp(sizes, 2, generator).requires_grad_(False)
        self.target.load_state_dict(self.critic.state_dict())
        self.log_alpha = torch.tensor(math.log(own.alpha), requires_grad=True)
        self.target_entropy = -float(size)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), own.lr, fused=True)
        self.actor_adam = torch.optim.Adam([*self.actor.parameters(), self.log_alpha], own.lr, fused=True)

        self.replay = Replay(own.capacity, features, size)
        self.replay.add(recorded_transitions(episodes, policy, self.steerer, config))
        self.prefilled = self.replay.count

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        """Imagines one chunk per slot, stores it, and makes `updates` gradient updates."""
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
        alpha = self.log_alpha.exp().item()
        return {"loss": loss, "value": value, "entropy": entropy, "alpha": alpha}

    @torch.no_grad()
    def _imagine(self, generator: Generator) -> dict[str, float]:
        self.slots.restart(generator)
        before = self.steerer.features(self.slots.obs)
        eps = torch.randn(len(before), self.actor.size, generator=generator)
        latent, _ = self.actor.sample(before, eps)
        outcome = self.slots.act(self.actor.expand(latent))
        reward, discount = credit(outcome, self.config)
        after = self.steerer.features(self.slots.obs)
        self.replay.add(Batch(before, latent, reward, after, discount))
        return {
            "ended": float(outcome.ended.sum()),
            "succeeded": float((outcome.success & outcome.terminated).sum()),
            "lost": float(outcome.lost.sum()),
            "doubt": float(outcome.doubt.mean()),
            "reward": float(reward.mean()),
        }

    def _update(self, rows: Tensor, eps: Tensor) -> Tensor:
        """One update of critics, actor, temperature and targets; (3,) loss, value, entropy."""
        b = self.replay.split(rows)
        alpha = self.log_alpha.detach().exp()

        with torch.no_grad():
            following, log_prob = self.actor.sample(b.following, eps[0])
            q = self.target(torch.cat([b.following, following], 1))[..., 0].amin(0)
            wanted = b.reward + b.discount * (q - alpha * log_prob)
        inputs = rows[:, : b.features.shape[1] + b.latent.shape[1]]  # features and latent lie side by side
        values = self.critic(inputs)[..., 0]  # (2, B)
        loss = 0.5 * (values - wanted).square().mean(1).sum()
        self.critic_adam.zero_grad()
        loss.backward()
        self.critic_adam.step()

        latent, log_prob = self.actor.sample(b.features, eps[1])
        q = self.critic(torch.cat([b.features, latent], 1))[..., 0].amin(0)
        surplus = -log_prob.detach().mean() - self.target_entropy
        actor_loss = (alpha * log_prob - q).mean()
        self.actor_adam.zero_grad()
        # Only towards the actor: the critics' weight gradients would be thrown away.
        both = actor_loss + self.log_alpha * surplus
        both.backward(inputs=[*self.actor.parameters(), self.log_alpha])
        self.actor_adam.step()

        with torch.no_grad():
            # A bonus that dies lets the actor settle on one flaw of the world model.
            self.log_alpha.clamp_(min=math.log(self.config.dsrl.alpha_floor))
            for old, new in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                old.lerp_(new, self.config.dsrl.tau)
        return torch.stack([loss + actor_loss, values.mean(), -log_prob.mean()]).detach()

    def state(self) -> dict[str, Tensor]:
        """Weights, optimisers, temperature, replay and the slots with their environment."""
        groups = {
            "steerer": self.steerer.state_dict(),
            "critic": self.critic.state_dict(),
            "target": self.target.state_dict(),
            "replay": self.replay.state(),
            "slots": self.slots.state(),
        }
        flat = {f"{group}.{k}": v.detach().clone() for group, d in groups.items() for k, v in d.items()}
        flat |= optimizer_state(self.critic_adam, "critic_adam")
        flat |= optimizer_state(self.actor_adam, "actor_adam")
        return flat | {"log_alpha": self.log_alpha.detach().clone()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        for name in ("steerer", "critic", "target"):
            getattr(self, name).load_state_dict(part(tensors, name))
        self.replay.load_state(part(tensors, "replay"))
        self.slots.load_state(part(tensors, "slots"))
        load_optimizer_state(self.critic_adam, "critic_adam", tensors)
        load_optimizer_state(self.actor_adam, "actor_adam", tensors)
        self.log_alpha.data.copy_(tensors["log_alpha"])
