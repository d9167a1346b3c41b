"""PA-RL: optimise actions by a critic, then teach the policy to take them.

Mark et al. 2024 (arXiv 2412.06685): draw chunks from the policy, keep the best by an ensemble, climb
the critics from there, and fit a copy of the policy to the outcome by its own supervised loss. The
critics learn by implicit Q-learning, which asks for no action at the next state. Differing from the
reference on purpose: gradient steps have unit length, since success in [0, 1] has no scale of its own,
and the chunk stays near its draw. Shape letters: B batch, N candidates, K chunk, A action, F features;
chunks are normalised to [-1, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from robopolicy.policies.gaussian import ActionPlayer
from robopolicy.policies.load import ChunkPolicy
from robopolicy.refine.config import PaRlConfig, RefineConfig
from robopolicy.steering.critics import Critics, critic_net
from robopolicy.steering.imagination import ImaginedEnv, Slots, credit, tally
from robopolicy.steering.iql import Iql
from robopolicy.steering.parts import Parts, pack, unpack
from robopolicy.steering.replay import Batch, Replay
from robopolicy.steering.transitions import recorded_chunks
from robopolicy.types import Episode


def optimised(chunks: Tensor, value: Callable[[Tensor], Tensor], own: PaRlConfig) -> tuple[Tensor, Tensor]:
    """The best of some chunks, after climbing `value` from the best few of them.

    Args:
        chunks: (B, N, K, A) in [-1, 1].
        value: differentiable, (B, M, K, A) -> (B, M), each chunk by itself.
        own: how many to keep, how far to climb.

    Returns:
        The chunk (B, K, A), in [-1, 1], and its value (B,): never below that of any chunk given.
    """
    with torch.no_grad():
        top, order = value(chunks).topk(own.keep, 1)
    start = chunks.gather(1, order[..., None, None].expand(-1, -1, *chunks.shape[2:]))
    low, high = (start - own.radius).clamp(min=-1), (start + own.radius).clamp(max=1)
    best, best_value, x = start, top, start
    for _ in range(own.ascents):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(value(x).sum(), x)
        unit = functional.normalize(slope.flatten(2), dim=2).view_as(x)
        x = (x.detach() + own.ascent * unit).clamp(low, high)
        with torch.no_grad():
            now = value(x)
        better = now > best_value
        best = torch.where(better[..., None, None], x, best)
        best_value = torch.where(better, now, best_value)
    best_value, which = best_value.max(1)
    return best[torch.arange(len(best)), which], best_value


class PaRl:
    """A `robopolicy.train.Learner`: one step imagines one chunk in every slot, then updates.

    Args:
        policy: stays as it is; a copy is refined.
        env: imagination.
        episodes: real ones, to learn from first.
        config: settings.
        generator: draws the initial weights.

    Attributes:
        policy: the copy.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        env: ImaginedEnv,
        episodes: Sequence[Episode],
        config: RefineConfig,
        generator: Generator,
    ):
        self.config, own = config, config.pa_rl
        self.original, self.policy = policy, copy.deepcopy(policy)
        self.core = self.policy.core.requires_grad_(True)
        # What is executed is not what the policy drew, so the slots play chunks.
        self.slots = Slots(env, ActionPlayer(policy.spec))
        spec = policy.spec
        features, self.shape = spec.obs_steps * spec.state_dim, (spec.chunk, spec.action_dim)
        size = spec.chunk * spec.action_dim

        self.critics = Critics(critic_net(features + size, config, generator))
        self.iql = Iql(self.critics, features, config, own.lr, own.tau, generator)
        self.distiller = torch.optim.AdamW(self.core.parameters(), own.distil_lr, fused=True)

        b = recorded_chunks(episodes, spec, config)
        seen, following = (
            policy.condition(x.unflatten(1, (spec.obs_steps, spec.state_dim)))
            for x in (b.features, b.following)
        )
        chunks = policy.normalize_actions(b.latent.unflatten(1, self.shape)).clamp(-1, 1).flatten(1)
        self.prefilled = len(chunks)
        widths = (features, size, 0, features, 0)
        self.recorded, self.imagined = Replay(self.prefilled, widths), Replay(own.recent, widths)
        self.recorded.add(Batch(seen, chunks, b.reward, following, b.discount))

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        """Imagines one chunk per slot, updates the critic and, after the warm-up, the policy."""
        own, ready = self.config.pa_rl, index >= self.config.pa_rl.warmup
        metrics = self._imagine(ready, generator)
        metrics["loss"] = torch.stack([self._judge(generator) for _ in range(own.updates)]).mean().item()
        if ready:
            logs = torch.stack([self._distil(generator) for _ in range(own.distil_updates)])
            loss, moved = logs.mean(0).tolist()
            metrics |= {"loss": metrics["loss"] + loss, "distil_loss": loss, "moved": moved}
        return metrics

    def _imagine(self, ready: bool, generator: Generator) -> dict[str, float]:
        """One chunk per slot: the policy's own until the critic is ready, then the optimised one."""
        self.slots.restart(generator)
        before = self.policy.condition(self.slots.obs)
        own = self.config.pa_rl
        chunks = self._candidates(before, own.candidates if ready else 1, generator)
        chunk = optimised(chunks, lambda x: self._rank(before, x), own)[0] if ready else chunks[:, 0]
        outcome = self.slots.act(chunk)
        reward, discount = credit(outcome, self.config)
        after = self.policy.condition(self.slots.obs)
        self.imagined.add(Batch(before, chunk.flatten(1), reward, after, discount))
        return tally(outcome, reward)

    @torch.no_grad()
    def _candidates(self, features: Tensor, count: int, generator: Generator) -> Tensor:
        """(B, N, K, A) chunks as the policy draws them."""
        noise = torch.randn(len(features) * count, *self.shape, generator=generator)
        chunks = self.core.denoise(features.repeat_interleave(count, 0), noise).clamp(-1, 1)
        return chunks.unflatten(0, (-1, count))

    def _rank(self, features: Tensor, chunks: Tensor) -> Tensor:
        """(B, M) the ensemble's mean value of chunks (B, M, K, A)."""
        inputs = torch.cat([features[:, None].expand(-1, chunks.shape[1], -1), chunks.flatten(2)], 2)
        return self.critics(inputs.flatten(0, 1)).mean(0).view(chunks.shape[:2])

    def _judge(self, generator: Generator) -> Tensor:
        """One update of the critics and the state value; its loss."""
        own = self.config.pa_rl
        real = round(own.batch * own.recorded)
        rows = (self.recorded.sample(real, generator), self.imagined.sample(own.batch - real, generator))
        return self.iql.update(*self.imagined.split(torch.cat(rows)))[1]

    def _distil(self, generator: Generator) -> Tensor:
        """One update of the policy; (2,) its loss, and its distance from the original."""
        own = self.config.pa_rl
        b = Batch(*self.imagined.split(self.imagined.sample(own.batch, generator)))
        chunks = b.latent.unflatten(1, self.shape)
        noisy, steps, target = self.core.corrupt(chunks, generator)
        predicted = self.core.denoiser(noisy, steps, b.features)
        with torch.no_grad():
            original = self.original.core.denoiser(noisy, steps, b.features)
        moved = functional.mse_loss(predicted, original)
        loss = functional.mse_loss(predicted, target) + own.anchor * moved
        self.distiller.zero_grad()
        loss.backward()
        self.distiller.step()
        return torch.stack([loss, moved]).detach()

    @property
    def _parts(self) -> Parts:
        return {
            "core": self.core,
            "critics": self.critics,
            "value": self.iql.value,
            "adam": self.iql.adam,
            "distiller": self.distiller,
            "imagined": self.imagined,
            "slots": self.slots,
        }

    def state(self) -> dict[str, Tensor]:
        """Weights, optimisers, imagined chunks and the slots with their environment."""
        return pack(self._parts)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack(self._parts, tensors)
