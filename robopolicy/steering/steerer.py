"""What chooses the noise of a frozen policy: features of the observation, an actor, a hard limit.

Two actors share one interface. Shape letters: B batch, T observation steps, D state, K chunk,
A action, F = T*D features, M numbers the actor chooses (A if repeated along the chunk, else K*A).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from robopolicy.checkpoint import save_tensors, seal, tensor_hash, write_json
from robopolicy.config import SteerConfig
from robopolicy.errors import BadInput
from robopolicy.protocols import Policy
from robopolicy.spec import Spec
from robopolicy.steering.networks import Mlp
from robopolicy.types import Episode

CONFIG, MODEL = "config.json", "model.safetensors"
# Standard deviations beyond which a state is as far out as the actor can tell.
_FEATURE_LIMIT = 5.0
_LOG_STD = (-5.0, 1.0)
_LOG_PROB_CONSTANT = 0.5 * math.log(2 * math.pi) + 2 * math.log(2)


@dataclass(frozen=True)
class ActorConfig:
    """All that is needed to rebuild an actor; saved as `config.json` of a steerer.

    Attributes:
        method: "dsrl" or "ppo".
        noise: "repeat" chooses one A-vector for the whole chunk, "chunk" each of its K*A numbers.
        bound: no element of the noise is ever larger.
        mean_bound: PPO only, largest shift of the prior's mean.
        hidden: width of each hidden layer.
        layers: hidden layers.
        stochastic: DSRL only, draw the noise instead of taking its mode.
    """

    method: Literal["dsrl", "ppo"]
    noise: Literal["repeat", "chunk"]
    bound: float
    mean_bound: float
    hidden: int
    layers: int
    stochastic: bool

    @classmethod
    def of(cls, config: SteerConfig) -> ActorConfig:
        own = config.dsrl if config.method == "dsrl" else config.ppo
        return cls(
            method=config.method,
            noise=own.noise,
            bound=own.bound,
            mean_bound=config.ppo.mean_bound,
            hidden=config.hidden,
            layers=config.layers,
            stochastic=config.dsrl.stochastic,
        )


class Features(nn.Module):
    """Normalised, flattened observation history (B, T, D) -> (B, T*D).

    Args:
        spec: what the states mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec):
        super().__init__()
        self.shape = (spec.obs_steps, spec.state_dim)
        self.register_buffer("mean", torch.zeros(spec.state_dim))
        self.register_buffer("std", torch.ones(spec.state_dim))

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def fit(self, episodes: Sequence[Episode], spec: Spec) -> None:
        """Takes mean and standard deviation from the states of `episodes`."""
        states = np.concatenate([e.states for e in episodes]).astype(np.float64)
        # A number that hardly moves must not be blown up: a thousandth of its range is the least unit.
        least = 1e-3 * (spec.state_range[1] - spec.state_range[0])
        self.mean.copy_(torch.from_numpy(states.mean(0)))
        self.std.copy_(torch.from_numpy(np.maximum(states.std(0), least)))

    def forward(self, obs: Tensor) -> Tensor:
        if obs.shape[1:] != self.shape:
            raise BadInput("obs", f"shape (B, {self.shape[0]}, {self.shape[1]})", tuple(obs.shape))
        return ((obs - self.mean) / self.std).clamp(-_FEATURE_LIMIT, _FEATURE_LIMIT).flatten(1)


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

    def expand(self, latent: Tensor) -> Tensor:
        """Latent u (B, M) -> noise (B, K, A)."""
        noise = self.config.bound * latent
        if self.config.noise == "repeat":
            return noise[:, None].expand(-1, self.spec.chunk, -1).contiguous()
        return noise.view(-1, self.spec.chunk, self.spec.action_dim)

    def noise(self, features: Tensor, prior: Tensor) -> Tensor:
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

    def noise(self, features: Tensor, prior: Tensor) -> Tensor:
        """Noise (B, K, A) from a draw `prior` (B, K, A) of N(0, I)."""
        mean, log_std = self.moments(features)
        return mean + log_std.exp() * prior


def latent_size(config: ActorConfig, spec: Spec) -> int:
    """M, how many numbers the actor chooses per chunk."""
    return spec.action_dim * (1 if config.noise == "repeat" else spec.chunk)


class NoiseSteerer(nn.Module):
    """A trained steerer (the `Steerer` protocol): whatever comes in, noise is finite and bounded.

    Args:
        config: its actor.
        spec: of the policy it steers.
        generator: draws the initial weights.

    Attributes:
        clipped: how many numbers had to be clipped to the bound so far.
    """

    def __init__(self, config: ActorConfig, spec: Spec, generator: Generator):
        super().__init__()
        self.config, self.spec, self.clipped = config, spec, 0
        self.features = Features(spec)
        build = SquashedActor if config.method == "dsrl" else PriorActor
        self.actor = build(config, spec, self.features.size, generator)

    @torch.no_grad()
    def noise(self, obs: Tensor, prior: Tensor) -> Tensor:
        """Noise (B, K, A) for physical observations (B, T, D), given a draw `prior` from N(0, I).

        Raises:
            BadInput: if an observation or the prior is not finite.
        """
        for name, x in (("obs", obs), ("prior", prior)):
            if not torch.isfinite(x).all():
                raise BadInput(f"steerer {name}", "finite numbers", "NaN or infinity")
        noise = self.actor.noise(self.features(obs), prior)
        self.clipped += int((noise.abs() > self.config.bound).sum())
        return noise.clamp(-self.config.bound, self.config.bound)


def policy_hash(policy: Policy) -> str:
    """Hash of the weights and buffers of a policy.

    Raises:
        BadInput: if it is not a torch module; then there is nothing to compare.
    """
    if not isinstance(policy, nn.Module):
        raise BadInput("policy", "a torch module", type(policy).__name__)
    return tensor_hash(policy.state_dict())


def save_steerer(folder: Path, steerer: NoiseSteerer, policy: str, world: str) -> None:
    """Writes a sealed steerer.

    Args:
        folder: where; made if missing.
        steerer: what to save.
        policy: hash of the policy it steers.
        world: hash of the world model it was trained in, "" if none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {**dataclasses.asdict(steerer.config), "policy_hash": policy, "world_hash": world}
    write_json(folder / CONFIG, config)
    save_tensors(folder / MODEL, steerer.state_dict())
    seal(folder, "steerer", steerer.spec, [CONFIG, MODEL])
