"""Acting while the next chunk is still being computed: real-time chunking, and what it is compared with.

A policy that takes `delay` control steps for a chunk is asked so long before the current chunk has been
executed. Of the new chunk those first steps are known: they are what the robot does meanwhile. Real-time
chunking (Black et al. 2025, arXiv 2506.07339) has the new chunk continue them, by inpainting; `Foresight` has
it begin where a world model says that they lead.

`RealtimePolicy` and `SynchronousPolicy` see `delay` observations more than the policy inside, so that the
delay costs them in simulation and imagination what it would cost a robot. Shape letters: B batch, H actions
that the policy inside predicts, K actions that are executed of them, A action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.nets.inpainting import Known, overlap_weights
from robopolicy.policies.adapter import spread_noise
from robopolicy.protocols import Carry, Policy, WorldModel


class JoiningPolicy(Policy, Protocol):
    """A policy that may be told what is known of a chunk, if it `joins`."""

    @property
    def joins(self) -> bool: ...

    def sample(
        self, obs: Tensor, carry: Carry, noise: Tensor, known: Known | None = None
    ) -> tuple[Tensor, Carry]: ...


class Foresight:
    """Plans from where the robot will be when the plan is there, as a world model imagines it.

    The plan of what is seen now is older by the delay than one of what will be seen then.

    Args:
        policy: without memory.
        world: of the same robot and task.

    Raises:
        BadInput: if they do not fit.
    """

    joins = True

    def __init__(self, policy: JoiningPolicy, world: WorldModel):
        _without_memory(policy)
        world.spec.require(policy.spec, "policy")
        self.policy, self.world, self.spec = policy, world, policy.spec

    def initial(self, seeds: Sequence[int]) -> Carry:
        """As of the policy."""
        return self.policy.initial(seeds)

    @torch.no_grad()
    def sample(
        self, obs: Tensor, carry: Carry, noise: Tensor, known: Known | None = None
    ) -> tuple[Tensor, Carry]:
        """See `robopolicy.protocols.Policy`: what is known for certain, then a plan that begins at its end.

        What is known less than certainly does not count.
        """
        if known is None:
            return self.policy.sample(obs, carry, noise)
        (batch, horizon, _), steps = noise.shape, torch.arange(noise.shape[1])
        late = (known.weight >= 1).long().cumprod(1).sum((1, 2)).expand(batch)[:, None]
        chance = noise.new_zeros(batch, horizon, self.spec.state_dim)
        meanwhile = _at(known.chunk, torch.minimum(steps, (late - 1).clamp_min(0)))
        course = torch.cat([obs, self.world.predict(obs, meanwhile, chance).states], 1)
        plan, carry = self.policy.sample(_at(course, late + torch.arange(obs.shape[1])), carry, noise)
        plan = _at(plan, (steps - late).clamp_min(0))
        return torch.where((steps < late)[..., None], known.chunk, plan), carry


class RealtimePolicy:
    """Executes one plan while the next is computed.

    Args:
        policy: without memory, whose chunks hold at least `execute + delay` actions.
        execute: actions executed of each plan, K.
        delay: control steps between what a plan has seen and its first executed action; at most K.
        joined: whether plans continue what is executed meanwhile; else the old plan is left for the new one
            without regard to where they part.

    Raises:
        BadInput: if it cannot be done with this policy.
    """

    def __init__(self, policy: JoiningPolicy, execute: int, delay: int, joined: bool = True):
        horizon, dim = policy.spec.chunk, policy.spec.action_dim
        self.policy, self.delay, self.joined = policy, delay, joined
        _check(policy, execute, delay)
        self.spec = dataclasses.replace(policy.spec, chunk=execute, obs_steps=policy.spec.obs_steps + delay)
        self.weight = overlap_weights(horizon, execute, delay)
        self._spread = spread_noise(list(range(horizon)), dim, self.spec)

    def initial(self, seeds: Sequence[int]) -> Carry:
        """No plan yet."""
        shape = (len(seeds), self.policy.spec.chunk, self.policy.spec.action_dim)
        return {"plan": torch.zeros(shape), "fresh": torch.ones(len(seeds), dtype=torch.bool)}

    @torch.no_grad()
    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """See `robopolicy.protocols.Policy`: what is executed next (B, K, A).

        Args:
            obs: (B, T, D), the newest of which come too late; those before are seen.
            carry: the plan that is being executed, from what it has seen on.
            noise: (B, K, A).
        """
        execute, delay = self.spec.chunk, self.delay
        old, fresh = carry["plan"], carry["fresh"][:, None, None]
        known = None
        if self.joined:
            rest = torch.cat([old[:, execute:], old[:, -1:].expand(-1, execute, -1)], 1)
            known = Known(rest, torch.where(fresh, 0.0, self.weight))
        whole = (noise.flatten(1) @ self._spread).view(old.shape)
        plan, _ = self.policy.sample(_seen(obs, self.policy, delay), {}, whole, known)
        # The robot waits for its first plan, which is executed from its start.
        waited = plan[:, (torch.arange(plan.shape[1]) - delay).clamp_min(0)]
        plan = torch.where(fresh, waited, plan)
        after = {"plan": plan, "fresh": torch.zeros_like(carry["fresh"])}
        return plan[:, delay : delay + execute], after


class SynchronousPolicy:
    """Executes a plan, then holds still until the next one is there.

    Args:
        policy: without memory, whose chunks hold at least `execute + delay` actions.
        execute: actions executed of each plan.
        delay: control steps until a plan is there; at most as many as are executed.

    Raises:
        BadInput: if it cannot be done with this policy.
    """

    def __init__(self, policy: JoiningPolicy, execute: int, delay: int):
        self.policy, self.execute, self.delay = policy, execute, delay
        _check(policy, execute, delay)
        self.spec = dataclasses.replace(
            policy.spec, chunk=execute + delay, obs_steps=policy.spec.obs_steps + delay
        )
        self._spread = spread_noise(list(range(policy.spec.chunk)), policy.spec.action_dim, self.spec)
        moving = [bool(f.moves) for f in policy.spec.action for _ in range(f.size)]
        self._moving = torch.tensor(moving)

    def initial(self, seeds: Sequence[int]) -> Carry:
        """Nothing is carried."""
        return {}

    @torch.no_grad()
    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """See `robopolicy.protocols.Policy`: a plan, then commands that hold the hand where it is."""
        shape = (len(obs), self.policy.spec.chunk, self.policy.spec.action_dim)
        whole = (noise.flatten(1) @ self._spread).view(shape)
        plan = self.policy.sample(_seen(obs, self.policy, self.delay), {}, whole)[0][:, : self.execute]
        hold = torch.where(self._moving, 0.0, plan[:, -1:]).expand(-1, self.delay, -1)
        return torch.cat([plan, hold], 1), carry


def _at(rows: Tensor, index: Tensor) -> Tensor:
    """(B, N, ...) of rows (B, M, ...) those at (B, N)."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def _seen(obs: Tensor, policy: Policy, delay: int) -> Tensor:
    """(B, T, D) what the policy inside had seen when it was asked."""
    end = obs.shape[1] - delay
    return obs[:, end - policy.spec.obs_steps : end]


def _without_memory(policy: JoiningPolicy) -> None:
    if not policy.joins:
        raise BadInput("policy", "one without memory", "one that remembers")


def _check(policy: JoiningPolicy, execute: int, delay: int) -> None:
    horizon = policy.spec.chunk
    _without_memory(policy)
    if not 1 <= execute <= horizon:
        raise BadInput("execute", f"in [1, {horizon}], the policy's chunk", execute)
    most = min(execute, horizon - execute)
    if not 0 <= delay <= most:
        raise BadInput("delay", f"in [0, {most}], for {execute} of {horizon} actions", delay)
