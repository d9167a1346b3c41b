"""What a steerer is made of: features of the observation, and actors that choose noise by them.

All actors share one interface, `Actor`. Shape letters: B batch, T observation steps, D state, K chunk,
A action, F = T*D features, M numbers the actor chooses (A if repeated along the chunk, else K*A).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from robopolicy.config import BestOfNConfig, SteerConfig, SteerMethod
from robopolicy.errors import BadInput
from robopolicy.protocols import Carry, Policy
from robopolicy.spec import Spec
from robopolicy.steering.networks import Mlp
from robopolicy.steering.noise import UniformNoise
from robopolicy.types import Episode

# Standard deviations beyond which a state is as far out as the actor can tell.
_FEATURE_LIMIT = 5.0
_LOG_STD = (-5.0, 1.0)
# Beyond it atanh is infinite in single precision.
_LATENT_LIMIT = 1 - 1e-6
_LOG_PROB_CONSTANT = 0.5 * math.log(2 * math.pi) + 2 * math.log(2)


@dataclass(frozen=True)
class ActorConfig:
    """All that is needed to rebuild an actor; saved as `config.json` of a steerer.

    Attributes:
        method: one of `robopolicy.config.SteerConfig`.
        noise: "repeat" chooses one A-vector for the whole chunk, "chunk" each of its K*A numbers.
        bound: no element of the noise is ever larger.
        mean_bound: PPO only, largest shift of the prior's mean.
        hidden: width of each hidden layer.
        layers: hidden layers.
        stochastic: DSRL only, draw the noise instead of taking its mode.
        candidates: best-of-n only, how many to choose from.
        critics: best-of-n only, how many judge them.
    """

    method: SteerMethod
    noise: Literal["repeat", "chunk"]
    bound: float
    mean_bound: float
    hidden: int
    layers: int
    stochastic: bool
    candidates: int
    critics: int

    @classmethod
    def of(cls, config: SteerConfig) -> ActorConfig:
        own = config.own
        return cls(
            method=config.method,
            noise="chunk" if isinstance(own, BestOfNConfig) else own.noise,
            bound=own.bound,
            mean_bound=config.ppo.mean_bound,
            hidden=config.hidden,
            layers=config.layers,
            stochastic=config.dsrl.stochastic,
            candidates=config.best_of_n.candidates,
            critics=config.critics,
        )


def remembered(carry: Carry) -> Tensor:
    """(B, M) everything in the memory of a policy, as numbers."""
    return torch.cat([carry[name].float().view(len(carry[name]), -1) for name in sorted(carry)], 1)


class Features(nn.Module):
    """Normalised, flattened rows: an observation history (B, T, D) -> (B, T*D), or a chunk (B, K, A).

    What a policy with memory will do depends on that too, so it is part of what is seen. Of pictures in the
    observation, what the policy itself makes of them is seen.

    Args:
        spec: what the numbers mean.
        of: which of an episode's arrays.
        policy: whose memory is looked at too, if it has one, and by whom pictures are read.

    Raises:
        BadInput: if there are pictures, and the policy does not read them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec, of: Literal["states", "actions"] = "states", policy: Policy | None = None):
        super().__init__()
        carry = policy.initial([0]) if policy else {}
        self.memory = remembered(carry).shape[1] if carry else 0
        self.of: Literal["states", "actions"] = of
        self.shape = (spec.obs_steps, spec.state_dim) if of == "states" else (spec.chunk, spec.action_dim)
        pictures, width = of == "states" and bool(spec.pictures), self.shape[1]
        self.embed = _reader(policy) if pictures else _as_it_is
        if pictures:
            width = self.embed(torch.zeros(1, *self.shape)).shape[-1]
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @property
    def size(self) -> int:
        return self.shape[0] * len(self.mean) + self.memory

    def fit(self, episodes: Sequence[Episode], spec: Spec) -> None:
        """Takes mean and standard deviation from `episodes`, up to their first success."""
        seen = [torch.from_numpy(getattr(e.until_success(), self.of))[:, None] for e in episodes]
        values = torch.cat([self.embed(x)[:, 0] for x in seen]).double().numpy()
        low, high = spec.state_range if self.of == "states" else spec.action_range
        # A number that hardly moves must not be blown up: a thousandth of its range is the least unit. What a
        # policy makes of pictures is of about unit size.
        least = 1e-3 if self.embed is not _as_it_is else 1e-3 * (high - low)
        self.mean.copy_(torch.from_numpy(values.mean(0)))
        self.std.copy_(torch.from_numpy(np.maximum(values.std(0), least)))

    def forward(self, x: Tensor, carry: Carry | None = None) -> Tensor:
        if x.shape[1:] != self.shape:
            name = "obs" if self.of == "states" else "actions"
            raise BadInput(name, f"shape (B, {self.shape[0]}, {self.shape[1]})", tuple(x.shape))
        rows = ((self.embed(x) - self.mean) / self.std).flatten(1)
        if self.memory:
            if not carry:
                raise BadInput("carry", "the memory of the policy that is steered", carry)
            rows = torch.cat([rows, remembered(carry)], 1)
        return rows.clamp(-_FEATURE_LIMIT, _FEATURE_LIMIT)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _reader(policy: Policy | None) -> Callable[[Tensor], Tensor]:
    """What the policy makes of observations with pictures, (B, T, D) -> (B, T, E); no gradient flows."""
    embed = getattr(policy, "embed", None)
    if embed is None:
        raise BadInput("policy", "one that reads pictures", type(policy).__name__)
    return torch.no_grad()(embed)


class Actor(Protocol):
    """Chooses noise (B, K, A) by the features (B, F) of what is seen, and a draw `prior` of N(0, I)."""

    def noise(self, features: Tensor, prior: Tensor, obs: Tensor) -> Tensor: ...


class SquashedActor(nn.Module):
    """DSRL's actor: noise = bound * tanh(mean + std * eps), bounded whatever the weights.

    It starts at mean 0 and std 1 (nearly), that is close to the prior.
    """

    def __init__(self, config: ActorConfig, spec: Spec, features: int, generator: Generator):
        super().__init__()
        self.config, self.spec = config, spec
        self.size = latent_size(config, spec)
        hidden = [config.hidden] * config.layers
        self.net = Mlp([features, *hidden, 2 * self.size], 1, generator, last=0.01)

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std (B, M) before the squashing."""
        mean, log_std = self.net(features)[0].chunk(2, -1)
        return mean, log_std.clamp(*_LOG_STD)

    def sample(self, features: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Latent u (B, M) in (-1, 1) and log pi(u) (B,) from standard normal `eps` (B, M).

        log pi = sum_m log N(eps_m) - log std_m - log(1 - u_m^2) (Haarnoja et al. 2018, appendix C), the
        last term in its numerically stable form 2 (log 2 - z - softplus(-2 z)), constants in front.
        """
        mean, log_std = self.moments(features)
        z = torch.addcmul(mean, log_std.exp(), eps)
        each = 2 * (z + functional.softplus(-2 * z)) - log_std - 0.5 * eps.square()
        return torch.tanh(z), each.sum(-1) - self.size * _LOG_PROB_CONSTANT

    def log_prob(self, features: Tensor, latent: Tensor) -> Tensor:
        """log pi (B,) of latents (B, M) that something else chose, as `sample` would have given it."""
        mean, log_std = self.moments(features)
        z = torch.atanh(latent.clamp(-_LATENT_LIMIT, _LATENT_LIMIT))
        each = 2 * (z + functional.softplus(-2 * z)) - log_std
        each = each - 0.5 * ((z - mean) * torch.exp(-log_std)).square()
        return each.sum(-1) - self.size * _LOG_PROB_CONSTANT

    def expand(self, latent: Tensor) -> Tensor:
        """Latent u (B, M) -> noise (B, K, A)."""
        noise = self.config.bound * latent
        if self.config.noise == "repeat":
            return noise[:, None].expand(-1, self.spec.chunk, -1).contiguous()
        return noise.view(-1, self.spec.chunk, self.spec.action_dim)

    def noise(self, features: Tensor, prior: Tensor, obs: Tensor) -> Tensor:
        """Noise (B, K, A); `prior` (B, K, A) is the Gaussian source if the actor is stochastic."""
        mean, log_std = self.moments(features)
        if self.config.stochastic:
            eps = prior[:, 0] if self.config.noise == "repeat" else prior.flatten(1)
            mean = mean + log_std.exp() * eps
        return self.expand(torch.tanh(mean))


class PriorActor(nn.Module):
    """PPO's actor: noise = mean + std * prior, which at the start is the prior, exactly.

    "repeat" shares one mean and one std of size A along the chunk.
    """

    def __init__(self, config: ActorConfig, spec: Spec, features: int, generator: Generator):
        super().__init__()
        self.config = config
        self.steps = 1 if config.noise == "repeat" else spec.chunk
        hidden = [config.hidden] * config.layers
        self.net = Mlp([features, *hidden, 2 * latent_size(config, spec)], 1, generator, last=0.0)

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std (B, K or 1, A)."""
        mean, log_std = self.net(features)[0].unflatten(-1, (2, self.steps, -1)).unbind(1)
        return self.config.mean_bound * torch.tanh(mean), log_std.clamp(*_LOG_STD)

    def noise(self, features: Tensor, prior: Tensor, obs: Tensor) -> Tensor:
        """Noise (B, K, A) from a draw `prior` (B, K, A) of N(0, I)."""
        mean, log_std = self.moments(features)
        return mean + log_std.exp() * prior


class UntrainedActor(nn.Module):
    """The baselines: noise as it was drawn ("none"), or drawn uniformly within the bound ("uniform")."""

    def __init__(self, config: ActorConfig):
        super().__init__()
        self.config = config

    def noise(self, features: Tensor, prior: Tensor, obs: Tensor) -> Tensor:
        """Noise (B, K, A) from a draw `prior` (B, K, A) of N(0, I)."""
        if self.config.method == "none":
            return prior
        return UniformNoise(self.config.bound, self.config.noise == "repeat").noise(obs, prior)


def latent_size(config: ActorConfig, spec: Spec) -> int:
    """M, how many numbers the actor chooses per chunk."""
    return spec.action_dim * (1 if config.noise == "repeat" else spec.chunk)
