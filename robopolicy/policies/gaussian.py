"""Policies that are no diffusion: a Gaussian over action chunks, and one that plays what it is told.

Both keep the interface of `robopolicy.protocols.Policy`. Shape letters: B batch, T observation steps,
D state, K chunk, A action, F = T*D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from robopolicy.checkpoint import (
    load_strict,
    load_tensors,
    read_json,
    save_tensors,
    seal,
    tensor_hash,
    write_json,
)
from robopolicy.errors import BadInput
from robopolicy.nets.mlp import ResidualBlock
from robopolicy.protocols import Carry
from robopolicy.spec import Spec
from robopolicy.train import seeded_init

TYPE = "chunk_gaussian"
_CONFIG, _MODEL = "config.json", "model.safetensors"
# Standard deviations beyond which a state is as far out as the policy can tell.
_FEATURE_LIMIT = 5.0
# A std above 1, half the action's range, makes PPO unstable (World4RL, arXiv 2509.19080, section III); one
# far below the noise of demonstrations makes every small step of the mean a leap in likelihood.
_LOG_STD = (-2.5, 0.0)


class ActionPlayer(nn.Module):
    """A policy whose noise is the chunk itself, normalised: it plays what a learner has chosen.

    Args:
        spec: its action range is what [-1, 1] stands for.
    """

    low: Tensor
    high: Tensor

    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec
        for name, bound in zip(("low", "high"), torch.from_numpy(spec.action_range), strict=True):
            self.register_buffer(name, bound.float().clone())

    def initial(self, seeds: Sequence[int]) -> Carry:
        """It has no memory."""
        return {}

    @torch.no_grad()
    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """The chunk `noise` (B, K, A), clipped to [-1, 1], in physical units."""
        return self.low + (noise.clamp(-1, 1) + 1) / 2 * (self.high - self.low), carry


class GaussianPolicy(ActionPlayer):
    """Chunk = mean(obs) + std(obs) * noise, normalised, with a std for each of its numbers.

    Args:
        spec: what the numbers mean.
        width: hidden units.
        blocks: residual blocks.
        generator: draws the initial weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec, width: int, blocks: int, generator: Generator):
        super().__init__(spec)
        self.width, self.blocks = width, blocks
        self.register_buffer("mean", torch.zeros(spec.state_dim))
        self.register_buffer("std", torch.ones(spec.state_dim))
        inputs, outputs = spec.obs_steps * spec.state_dim, 2 * spec.chunk * spec.action_dim
        with seeded_init(int(torch.randint(2**62, (), generator=generator))):
            hidden = [ResidualBlock(width) for _ in range(blocks)]
            self.net = nn.Sequential(nn.Linear(inputs, width), *hidden, nn.LayerNorm(width), nn.SiLU())
            self.head = nn.Linear(width, outputs)

    def fit(self, states: Tensor) -> None:
        """Takes mean and standard deviation of the observations from `states` (M, D)."""
        low, high = torch.from_numpy(self.spec.state_range)
        # A number that hardly moves must not be blown up: a thousandth of its range is the least unit.
        self.mean.copy_(states.double().mean(0))
        self.std.copy_(torch.maximum(states.double().std(0, correction=0), 1e-3 * (high - low)))

    def features(self, obs: Tensor) -> Tensor:
        """(B, F) for physical observations (B, T, D)."""
        return ((obs - self.mean) / self.std).clamp(-_FEATURE_LIMIT, _FEATURE_LIMIT).flatten(1)

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std (B, K, A) of the normalised chunk."""
        out = self.head(self.net(features)).unflatten(-1, (2, self.spec.chunk, self.spec.action_dim))
        mean, raw = out.unbind(1)
        # Smooth, where a clamp would leave a std that has reached its bound without a gradient to return.
        low, high = _LOG_STD
        return mean, low + (high - low) * torch.sigmoid(raw)

    @torch.no_grad()
    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """See `robopolicy.protocols.Policy`; a deterministic function of `obs` and `noise`."""
        mean, log_std = self.moments(self.features(obs))
        return super().sample(obs, carry, mean + log_std.exp() * noise)

    def hash(self) -> str:
        """sha256 of weights and statistics."""
        return tensor_hash(self.state_dict())


def save_gaussian(policy: GaussianPolicy, out: Path) -> None:
    """Writes a sealed policy that `robopolicy.policies.load.load_policy` opens."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _CONFIG, {"type": TYPE, "width": policy.width, "blocks": policy.blocks})
    save_tensors(out / _MODEL, policy.state_dict())
    seal(out, "policy", policy.spec, [_CONFIG, _MODEL])


def load_gaussian(folder: Path, spec: Spec) -> GaussianPolicy:
    """A frozen policy from a folder that `save_gaussian` wrote and whose seal has been checked.

    Raises:
        BadInput: if its files do not fit each other.
    """
    config = read_json(folder / _CONFIG)
    width, blocks = config.get("width"), config.get("blocks")
    known = set(config) == {"type", "width", "blocks"} and config["type"] == TYPE
    if not known or type(width) is not int or type(blocks) is not int or min(width, blocks) < 1:
        raise BadInput(f"{folder / _CONFIG}", "type, and positive integers width and blocks", config)
    policy = GaussianPolicy(spec, width, blocks, Generator().manual_seed(0))
    load_strict(policy, load_tensors(folder / _MODEL)[0], str(folder / _MODEL))
    return policy.eval().requires_grad_(False)
