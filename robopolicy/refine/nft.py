"""DiffusionNFT: a diffusion policy learns from good and bad imagined episodes by its forward process.

Zheng et al. 2025 (arXiv 2509.16117, eq. 5 and 8): chunks of the old policy are noised as in imitation,
and with r in [0, 1] for how well they went,

    loss = r |positive - target|^2 + (1 - r) |negative - target|^2,
    positive = (1 - beta) old + beta new,   negative = (1 + beta) old - beta new,

where old and new are the two denoisers' predictions. The paper writes it for velocities; sample and noise
prediction are affine in them at a given noise level, so only the weight of the levels differs. r is 1/2
for an episode as good as its group, which starts from one state and meets one world noise; then nothing
pulls but the old policy. No likelihood, no critic, and no gradient through the sampler.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from robopolicy.policies.load import ChunkPolicy
from robopolicy.refine.config import RefineConfig
from robopolicy.steering.imagination import ImaginedEnv, Slots, credit
from robopolicy.steering.parts import Parts, pack, unpack
from robopolicy.types import Episode


def contrast(new: Tensor, old: Tensor, target: Tensor, merit: Tensor, beta: float) -> Tensor:
    """The contrastive loss, one number.

    Each of the two errors is divided by its own mean absolute size, which evens out the noise levels as
    in the reference.

    Args:
        new: (B, K, A) prediction that is trained.
        old: (B, K, A) prediction of the policy that acted.
        target: (B, K, A) what imitation would regress on.
        merit: (B,) in [0, 1].
        beta: distance of the implicit policies from the old one.
    """
    losses = []
    for way in (beta, -beta):
        error = old - target + way * (new - old)
        scale = error.detach().abs().mean((1, 2)).clamp(min=1e-5)
        losses.append(error.square().mean((1, 2)) / scale)
    positive, negative = losses
    return (merit * positive + (1 - merit) * negative).mean()


def merits(returns: Tensor, chunks: Tensor, group: int, limit: float) -> Tensor:
    """(N,) returns of episodes -> (N,) in [0, 1]: 1/2 + z / (2 limit), with z the score within each `group`.

    An episode counts as often as it has `chunks` (N,). Failures last longer: scored by the episode, most
    chunks would be bad ones, and a policy that is mostly pushed away blows up its own errors.
    """
    grouped, weight = returns.view(-1, group), chunks.view(-1, group).float()
    weight = weight / weight.sum(1, keepdim=True)
    centred = grouped - (weight * grouped).sum(1, keepdim=True)
    spread = (weight * centred.square()).sum(1, keepdim=True).sqrt()
    return (0.5 + centred / spread.clamp(min=1e-4) / (2 * limit)).clamp(0, 1).flatten()


class Nft:
    """A `robopolicy.train.Learner`: one step imagines one episode per slot, then learns from them.

    Args:
        policy: stays as it is; a copy is refined.
        env: imagination.
        episodes: not used.
        config: settings.
        generator: not used: nothing is drawn before the first step.

    Attributes:
        policy: the copy.
    """

    prefilled = 0  # recorded chunks have no group to be compared with

    def __init__(
        self,
        policy: ChunkPolicy,
        env: ImaginedEnv,
        episodes: Sequence[Episode],
        config: RefineConfig,
        generator: Generator,
    ):
        self.config, self.original = config, policy
        self.policy, self.old = copy.deepcopy(policy), copy.deepcopy(policy)
        self.core = self.policy.core.requires_grad_(True)
        self.slots = Slots(env, self.old)
        self.adam = torch.optim.AdamW(self.core.parameters(), config.nft.lr, fused=True)

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        """One iteration: imagine with the old policy, learn, let the old policy follow."""
        (condition, chunks, merit), metrics = self._imagine(generator)
        own, logs = self.config.nft, []
        for _ in range(own.epochs):
            order = torch.randperm(len(condition), generator=generator)
            for i in order.split(own.batch):
                logs.append(self._update(condition[i], chunks[i], merit[i], generator))
        with torch.no_grad():
            for old, new in zip(self.old.parameters(), self.policy.parameters(), strict=True):
                old.lerp_(new, 1 - own.keep_old)
        return metrics | dict(zip(("loss", "moved"), torch.stack(logs).mean(0).tolist(), strict=True))

    @torch.no_grad()
    def _imagine(self, generator: Generator) -> tuple[list[Tensor], dict[str, float]]:
        """One episode per slot: condition, normalised chunk and merit of each chunk."""
        spec, slots, own = self.policy.spec, self.slots, self.config.nft
        slots.ended[:] = True
        slots.restart(generator, own.group)
        steps: list[list[Tensor]] = []
        returns, weight = torch.zeros(own.envs), 1.0
        succeeded = lost = 0.0
        while not slots.ended.all():
            condition = self.old.condition(slots.obs)
            noise = torch.randn(own.envs, spec.chunk, spec.action_dim, generator=generator)
            actions, _ = self.old.sample(slots.obs, slots.carry, noise)
            outcome = slots.act(noise)
            reward, _ = credit(outcome, self.config)
            returns += weight * reward * outcome.active
            weight *= self.config.gamma
            steps.append([condition, self.old.normalize_actions(actions), outcome.active])
            succeeded += float((outcome.success & outcome.terminated).sum())
            lost += float(outcome.lost.sum())
        condition, chunks, active = (torch.stack(x) for x in zip(*steps, strict=True))
        merit = merits(returns, active.sum(0), own.group, own.advantage_limit).expand(active.shape)
        metrics = {
            "ended": float(own.envs),
            "succeeded": succeeded,
            "lost": lost,
            "return": float(returns.mean()),
        }
        return [x[active] for x in (condition, chunks, merit)], metrics

    def _update(self, condition: Tensor, chunks: Tensor, merit: Tensor, generator: Generator) -> Tensor:
        """One minibatch; (2,) loss and distance from the original policy."""
        own = self.config.nft
        noisy, steps, target = self.core.corrupt(chunks, generator)
        new = self.core.denoiser(noisy, steps, condition)
        with torch.no_grad():
            old = self.old.core.denoiser(noisy, steps, condition)
            original = self.original.core.denoiser(noisy, steps, condition)
        moved = functional.mse_loss(new, original)
        loss = contrast(new, old, target, merit, own.beta) + own.anchor * moved
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return torch.stack([loss, moved]).detach()

    @property
    def _parts(self) -> Parts:
        # Every step starts all slots anew, so they hold nothing to keep.
        return {"core": self.core, "old": self.old.core, "adam": self.adam}

    def state(self) -> dict[str, Tensor]:
        """Both policies and the optimiser."""
        return pack(self._parts)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack(self._parts, tensors)
