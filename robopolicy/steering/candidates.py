"""Best of N: of several samples of the frozen policy, the one that a critic of actions ranks highest.

Candidate i is Q_i times the prior, with fixed orthogonal Q_i and Q_0 = identity: each candidate is exactly
N(0, I), so the policy never leaves what it was trained to do, and the same draw gives the same choice.
(Ranking samples of a diffusion policy: Hansen-Estruch et al. 2023, arXiv 2304.10573.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from robopolicy.errors import BadInput
from robopolicy.protocols import Policy
from robopolicy.spec import Spec
from robopolicy.steering.actors import ActorConfig, Features
from robopolicy.steering.networks import Mlp


class CandidateActor(nn.Module):
    """Chooses among `config.candidates` noises by the least of its critics' values of what they do.

    Args:
        config: of the actor.
        spec: of the policy.
        features: F.
        generator: draws the initial weights and the rotations.
        policy: frozen; without memory.
    """

    rotations: Tensor

    def __init__(
        self, config: ActorConfig, spec: Spec, features: int, generator: Generator, policy: Policy | None
    ):
        super().__init__()
        if policy is None:
            raise BadInput("policy", "the policy whose samples are ranked", None)
        self.decode = decoder(policy)
        self.actions = Features(spec, "actions")
        size = self.actions.size
        self.critic = Mlp([features + size, *[config.hidden] * config.layers, 1], config.critics, generator)
        drawn = torch.randn(config.candidates - 1, size, size, generator=generator)
        rotations = torch.cat([torch.eye(size)[None], torch.linalg.qr(drawn).Q])
        self.register_buffer("rotations", rotations)  # (N, K*A, K*A)

    def candidates(self, prior: Tensor) -> Tensor:
        """(N, B, K, A), the prior (B, K, A) itself first."""
        turned = prior.flatten(1) @ self.rotations[1:].transpose(1, 2)
        # Not a product with the identity: the first candidate is the prior to the bit.
        return torch.cat([prior[None], turned.unflatten(-1, prior.shape[1:])])

    def noise(self, features: Tensor, prior: Tensor, obs: Tensor) -> Tensor:
        """Noise (B, K, A): the best candidate, the earlier of equals."""
        noise = self.candidates(prior)
        n, b = noise.shape[:2]
        actions = self.decode(obs.repeat(n, 1, 1), noise.flatten(0, 1))
        seen = torch.cat([features.repeat(n, 1), self.actions(actions)], 1)
        value = self.critic(seen)[..., 0].amin(0).view(n, b)
        return noise[value.argmax(0), torch.arange(b)]


def decoder(policy: Policy) -> Callable[[Tensor, Tensor], Tensor]:
    """The policy as a function of observation (B, T, D) and noise (B, K, A), giving actions (B, K, A).

    Raises:
        BadInput: if the policy has a memory: what it does depends on more than these two.
    """
    if policy.initial([0]):
        raise BadInput("policy", "one without memory, for critics of its actions", "one with memory")
    return lambda obs, noise: policy.sample(obs, {}, noise)[0]
