"""Best of N: learns, in imagination, a critic of actions that ranks the frozen policy's own samples.

The critic is trained by implicit Q-learning on recorded and imagined chunks: it is never asked about an
action that nobody took, so training runs the policy only to imagine. See `steering/candidates.py` for
how the samples come about.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from robopolicy.config import SteerConfig
from robopolicy.protocols import Policy
from robopolicy.steering.actors import ActorConfig
from robopolicy.steering.candidates import CandidateActor
from robopolicy.steering.critics import Critics
from robopolicy.steering.imagination import ImaginedEnv, Slots, credit, tally
from robopolicy.steering.iql import Iql
from robopolicy.steering.parts import Parts, pack, unpack
from robopolicy.steering.replay import Batch, Replay
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.steering.transitions import recorded_chunks
from robopolicy.types import Episode


class BestOfN:
    """A `robopolicy.train.Learner`: one step imagines one chunk in every slot, then updates.

    Args:
        policy: frozen and without memory; called through `sample` only.
        env: imagination.
        episodes: real ones, of anyone: they give the normalisation and the first transitions.
        config: settings.
        generator: draws the initial weights and the candidates' rotations.
    """

    def __init__(
        self,
        policy: Policy,
        env: ImaginedEnv,
        episodes: Sequence[Episode],
        config: SteerConfig,
        generator: Generator,
    ):
        self.config, own, spec = config, config.best_of_n, policy.spec
        self.steerer = NoiseSteerer(ActorConfig.of(config), spec, generator, policy)
        assert isinstance(self.steerer.actor, CandidateActor)
        self.actions, self.slots = self.steerer.actor.actions, Slots(env, policy)
        for one in (self.steerer.features, self.actions):
            one.fit(episodes, spec)
        f, a = self.steerer.features.size, self.actions.size
        self.critics = Critics(self.steerer.actor.critic)
        self.iql = Iql(self.critics, f, config, own.lr, own.tau, generator)

        self.replay = Replay(own.capacity, (f, a, 0, f, 0))
        b = recorded_chunks(episodes, spec, config)
        seen, following = (x.unflatten(1, self.steerer.features.shape) for x in (b.features, b.following))
        self._add(seen, b.latent.unflatten(1, self.actions.shape), b.reward, following, b.discount)
        self.prefilled = self.replay.count

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        """Imagines one chunk per slot, stores it, and makes `updates` gradient updates."""
        metrics, own = self._imagine(generator), self.config.best_of_n
        rows = self.replay.sample(own.updates * own.batch, generator).split(own.batch)
        losses = [self.iql.update(*self.replay.split(r))[1] for r in rows]
        return metrics | {"loss": torch.stack(losses).mean().item()}

    @torch.no_grad()
    def _imagine(self, generator: Generator) -> dict[str, float]:
        self.slots.restart(generator)
        before, spec = self.slots.obs, self.slots.policy.spec
        noise = torch.randn(len(before), spec.chunk, spec.action_dim, generator=generator)
        # Half of the slots show what the critic holds best, so that it finds out where it is wrong; the
        # others what the policy does otherwise.
        half = len(before) // 2
        noise[:half] = self.steerer.noise(before[:half], noise[:half])
        outcome = self.slots.act(noise)
        reward, discount = credit(outcome, self.config)
        self._add(before, self.slots.actions, reward, self.slots.obs, discount)
        return tally(outcome, reward)

    def _add(self, obs: Tensor, actions: Tensor, reward: Tensor, following: Tensor, discount: Tensor) -> None:
        seen, then = self.steerer.features(obs), self.steerer.features(following)
        self.replay.add(Batch(seen, self.actions(actions), reward, then, discount))

    @property
    def _parts(self) -> Parts:
        return {
            "steerer": self.steerer,
            "critics": self.critics,
            "value": self.iql.value,
            "adam": self.iql.adam,
            "replay": self.replay,
            "slots": self.slots,
        }

    def state(self) -> dict[str, Tensor]:
        """Weights, optimiser, replay and the slots with their environment."""
        return pack(self._parts)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack(self._parts, tensors)
