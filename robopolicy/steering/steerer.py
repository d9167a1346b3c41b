"""What chooses the noise of a frozen policy: features, an actor and a hard limit; saved as one artefact."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from robopolicy.checkpoint import save_tensors, seal, tensor_hash, write_json
from robopolicy.errors import BadInput
from robopolicy.protocols import Carry, Policy
from robopolicy.spec import Spec
from robopolicy.steering.actors import (
    ActorConfig,
    Features,
    PriorActor,
    SquashedActor,
    UntrainedActor,
)
from robopolicy.steering.candidates import CandidateActor

CONFIG, MODEL = "config.json", "model.safetensors"


class NoiseSteerer(nn.Module):
    """A trained steerer (the `Steerer` protocol): whatever comes in, noise is finite and bounded.

    Args:
        config: its actor.
        spec: of the policy it steers.
        generator: draws the initial weights.
        policy: the one it steers: its memory is looked at, it reads pictures, and best-of-n runs it to see
            what the candidates do; may be missing if it has no memory and there are none.

    Attributes:
        clipped: how many numbers had to be clipped to the bound so far.
    """

    def __init__(self, config: ActorConfig, spec: Spec, generator: Generator, policy: Policy | None = None):
        super().__init__()
        self.config, self.spec, self.clipped = config, spec, 0
        self.features = Features(spec, policy=policy)
        size = self.features.size
        if config.method in ("dsrl", "dsrl-na"):
            self.actor = SquashedActor(config, spec, size, generator)
        elif config.method == "ppo":
            self.actor = PriorActor(config, spec, size, generator)
        elif config.method == "best-of-n":
            self.actor = CandidateActor(config, spec, size, generator, policy)
        else:
            self.actor = UntrainedActor(config)

    @torch.no_grad()
    def noise(self, obs: Tensor, prior: Tensor, carry: Carry | None = None) -> Tensor:
        """Noise (B, K, A) for physical observations (B, T, D), given a draw `prior` from N(0, I).

        Raises:
            BadInput: if an observation or the prior is not finite, or the memory of the policy is missing.
        """
        for name, x in (("obs", obs), ("prior", prior)):
            if not torch.isfinite(x).all():
                raise BadInput(f"steerer {name}", "finite numbers", "NaN or infinity")
        noise = self.actor.noise(self.features(obs, carry), prior, obs)
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
