"""The slots of an environment as a learner sees them, and what a chunk in one of them was worth."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from robopolicy.errors import BadInput
from robopolicy.protocols import Carry, ChunkEnv, Policy
from robopolicy.steering.parts import part

# Above every `seeding.episode_seed` of a master seed below a million: imagined training episodes
# never share a stream with real or validation episodes.
_SEEDS = (2**40, 2**41)


class ImaginedEnv(ChunkEnv, Protocol):
    """A ChunkEnv whose whole state is tensors, so that training in it can be resumed to the bit.

    Attributes:
        doubt_limit: doubt that ends an episode; infinity if none does.
    """

    doubt_limit: float

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, tensors: dict[str, Tensor]) -> None: ...


class RealEnv:
    """A real simulator in the place of imagination: it never doubts, and its steps are counted.

    Its state is the count alone: a simulator cannot be put back to where it was, so training that is
    resumed begins all episodes anew and does not repeat the uninterrupted one to the bit.

    Args:
        env: the simulator.

    Attributes:
        steps: taken so far.
    """

    doubt_limit = float("inf")

    def __init__(self, env: ChunkEnv):
        self.env, self.num_envs, self.spec, self.steps = env, env.num_envs, env.spec, 0

    def reset(
        self, *, seed: list[int] | int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        return self.env.reset(seed=seed, options=options)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        outcome = self.env.step(actions)
        self.steps += int(np.sum(outcome[4]["executed"]))
        return outcome

    def close(self) -> None:
        """Nothing: whoever opened the simulator closes it."""

    def state(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self.steps)}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.steps = int(tensors["steps"])


class Prices(Protocol):
    """The settings that `credit` reads; see `robopolicy.config.SteerConfig`."""

    @property
    def gamma(self) -> float: ...
    @property
    def doubt_free(self) -> float: ...
    @property
    def doubt_penalty(self) -> float: ...
    @property
    def doubt_cost(self) -> float: ...


class Outcome(NamedTuple):
    """What one chunk did, per slot.

    Attributes:
        active: (N,) slots that were running; the others hold nothing of meaning.
        success: (N,) ended by achieving the task.
        terminated: (N,) ended for good: there is no future.
        lost: (N,) cut short because the world model doubted or diverged: the future is not to be trusted.
        ended: (N,) terminated or truncated for whatever reason.
        doubt: (N,) of the world model, as a share of the limit.
    """

    active: Tensor
    success: Tensor
    terminated: Tensor
    lost: Tensor
    ended: Tensor
    doubt: Tensor


def credit(outcome: Outcome, config: Prices) -> tuple[Tensor, Tensor]:
    """Reward and discount (N,) of one chunk.

    Rewards are not discounted inside a chunk; gamma counts once per chunk, as in the reference. But a
    time limit is not an end: its discount stays gamma, and the critic bootstraps. A future that the
    world model does not vouch for is worth nothing.
    """
    excess = ((outcome.doubt - config.doubt_free) / (1 - config.doubt_free)).clamp(min=0)
    reward = (outcome.success & outcome.terminated).float() - config.doubt_penalty * excess
    reward = reward - config.doubt_cost * outcome.lost.float()
    discount = config.gamma * (~(outcome.terminated | outcome.lost)).float()
    return reward.clamp(-1, 1), discount


def tally(outcome: Outcome, reward: Tensor) -> dict[str, float]:
    """What a learner reports of one chunk in every slot."""
    return {
        "ended": float(outcome.ended.sum()),
        "succeeded": float((outcome.success & outcome.terminated).sum()),
        "lost": float(outcome.lost.sum()),
        "doubt": float(outcome.doubt.mean()),
        "reward": float(reward.mean()),
    }


class Slots:
    """N running episodes: their observations, the policy's memory, and who has ended.

    Args:
        env: what to act in.
        policy: frozen.

    Attributes:
        actions: (N, K, A) what the last `act` asked for; of a chunk that ended early too.
    """

    def __init__(self, env: ImaginedEnv, policy: Policy):
        env.spec.require(policy.spec, "policy")
        self.env, self.policy = env, policy
        n, spec = env.num_envs, policy.spec
        self.obs = torch.zeros(n, spec.obs_steps, spec.state_dim)
        self.actions = torch.zeros(n, spec.chunk, spec.action_dim)
        self.ended = torch.ones(n, dtype=torch.bool)
        self.carry: Carry = dict(policy.initial([0] * n))

    def restart(self, generator: Generator, group: int = 1) -> None:
        """Starts a new episode in every slot that has ended, with a fresh seed for each `group` slots."""
        if not self.ended.any():
            return
        mask, count = self.ended.clone(), len(self.ended) // group
        seeds = torch.randint(*_SEEDS, (count,), generator=generator).repeat_interleave(group)
        obs, _ = self.env.reset(seed=seeds.tolist(), options={"reset_mask": mask.numpy()})
        self.obs = torch.where(mask[:, None, None], self._checked("obs", obs), self.obs)
        fresh = self.policy.initial(seeds.tolist())
        self.carry = {
            k: torch.where(mask.view(-1, *[1] * (v.ndim - 1)), fresh[k], v) for k, v in self.carry.items()
        }
        self.ended = torch.zeros_like(mask)

    @torch.no_grad()
    def act(self, noise: Tensor) -> Outcome:
        """Executes one chunk of the policy in every slot, given its noise (N, K, A).

        Raises:
            BadInput: if the environment answers with a number that is not finite.
        """
        active = ~self.ended
        self.actions, self.carry = self.policy.sample(self.obs, self.carry, noise)
        obs, _, terminated, truncated, info = self.env.step(self.actions.numpy())
        self.obs = self._checked("obs", obs)
        lost = [reason in ("doubt", "diverged") for reason in info["reason"]]
        done = torch.from_numpy(np.asarray(terminated, bool))
        ended = done | torch.from_numpy(np.asarray(truncated, bool))
        self.ended = self.ended | ended
        return Outcome(
            active=active,
            success=torch.from_numpy(np.asarray(info["success"], bool)) & active,
            terminated=done & active,
            lost=torch.tensor(lost) & active & ~done,
            ended=ended & active,
            doubt=self._checked("doubt", info["doubt"]) / self.env.doubt_limit,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything `restart` and `act` change, the environment's own state included."""
        own = {"obs": self.obs.clone(), "ended": self.ended.clone()}
        own |= {f"carry.{k}": v.clone() for k, v in self.carry.items()}
        return own | {f"env.{k}": v.clone() for k, v in self.env.state().items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.obs, self.ended = tensors["obs"].clone(), tensors["ended"].clone()
        self.carry = {k: v.clone() for k, v in part(tensors, "carry").items()}
        self.env.load_state(part(tensors, "env"))
        if isinstance(self.env, RealEnv):
            self.ended = torch.ones_like(self.ended)

    @staticmethod
    def _checked(name: str, values: Any) -> Tensor:
        # A copy: environments may hand out a buffer that they write again.
        x = torch.from_numpy(np.array(values, np.float32))
        if not torch.isfinite(x).all():
            raise BadInput(f"env {name}", "finite numbers", "NaN or infinity")
        return x
