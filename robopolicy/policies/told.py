"""Tells a policy what to do: by a sentence, or by a state that is to be reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.nets.task import read
from robopolicy.policies.load import ChunkPolicy
from robopolicy.protocols import Carry, Policy


@torch.no_grad()
def by_words(policy: ChunkPolicy, sentences: Sequence[str]) -> Tensor:
    """(B, E) what the policy makes of sentences.

    Raises:
        BadInput: if it cannot be told anything.
    """
    return _task(policy).of_words(read(sentences, policy.core.config.text_encoder))


@torch.no_grad()
def by_goal(policy: ChunkPolicy, start: Tensor, goal: Tensor) -> Tensor:
    """(B, E) what the policy makes of physical states (B, D): that at the beginning, and that to be reached.

    Raises:
        BadInput: if it cannot be told anything.
    """
    return _task(policy).of_change(policy.normalize(start), policy.normalize(goal))


def _task(policy: ChunkPolicy):
    if not policy.core.task:
        raise BadInput("policy", "one that can be told what to do (train --told)", "one that cannot")
    return policy.core.task


class Told:
    """A policy that has been told what to do in every episode; implements `robopolicy.protocols.Policy`.

    Args:
        policy: who is told.
        of_seed: (E,) what it is told in the episode of a seed, from `by_words` or `by_goal`.
    """

    def __init__(self, policy: ChunkPolicy, of_seed: Callable[[int], Tensor]):
        self.policy, self.of_seed, self.spec = policy, of_seed, policy.spec

    def initial(self, seeds: Sequence[int]) -> Carry:
        """The policy's carry, with its task."""
        return {**self.policy.initial(seeds), "task": torch.stack([self.of_seed(s) for s in seeds])}

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """See `robopolicy.protocols.Policy`."""
        return self.policy.sample(obs, carry, noise)

    def hash(self) -> str:
        """The policy's: what it is told is not part of it."""
        return self.policy.hash()


def told(policy: Policy, sentence_of: Callable[[int], str] | None) -> Policy:
    """`policy`, told the sentence of each episode if it can be told anything and there is one."""
    if sentence_of is None or not isinstance(policy, ChunkPolicy) or not policy.core.task:
        return policy
    return Told(policy, lambda seed: by_words(policy, [sentence_of(seed)])[0])
