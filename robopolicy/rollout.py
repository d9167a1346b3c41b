"""The only interaction loop: evaluation, collection and imagination all call `rollout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from robopolicy.protocols import Carry, ChunkEnv, Policy, Steerer
from robopolicy.seeding import stream
from robopolicy.types import Episode


class PriorSteerer:
    """The zero steerer: leaves the noise as it was drawn. Baseline and fallback of every steerer."""

    def noise(self, obs: torch.Tensor, prior: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
        return prior


@torch.no_grad()
def rollout(
    env: ChunkEnv,
    policy: Policy,
    steerer: Steerer,
    seeds: Sequence[int],
    source: str = "policy",
    on_episode: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Runs one episode per seed and returns them in the order of `seeds`.

    The noise of an episode depends on its seed alone, so neither the number of environments nor the
    order in which they finish changes an episode.

    Args:
        env: real simulator or imagination.
        policy: what acts.
        steerer: what chooses its noise; `PriorSteerer` for the plain policy.
        seeds: environment seeds, one per episode.
        source: label written into the episodes.
        on_episode: called as each episode ends (progress bars, crash-safe writing).
    """
    n = env.num_envs
    chunk, dim = policy.spec.chunk, policy.spec.action_dim
    todo = list(enumerate(seeds))[::-1]
    slots: list[_Slot | None] = [None] * n
    done: dict[int, Episode] = {}
    obs = np.zeros((n, policy.spec.obs_steps, policy.spec.state_dim), np.float32)
    carry: Carry = {}

    while len(done) < len(seeds):
        fresh = np.array([s is None for s in slots]) & (np.arange(n) < n if todo else False)
        if todo and fresh.any():
            for i in np.flatnonzero(fresh):
                slots[i] = _Slot(*todo.pop()) if todo else None
            fresh &= np.array([s is not None for s in slots])
            slot_seeds = [s.seed if s else 0 for s in slots]
            obs, _ = env.reset(seed=slot_seeds, options={"reset_mask": fresh})
            carry = _restart(carry, policy.initial(slot_seeds), torch.from_numpy(fresh))
            for i in np.flatnonzero(fresh):
                slots[i].states.append(obs[i, -1].copy())

        prior = np.stack([s.draw(chunk, dim) if s else np.zeros((chunk, dim)) for s in slots])
        state = torch.from_numpy(np.ascontiguousarray(obs, np.float32))
        noise = steerer.noise(state, torch.from_numpy(prior.astype(np.float32)), carry)
        actions, carry = policy.sample(state, carry, noise)
        actions_np, noise_np = actions.numpy(), noise.numpy()
        obs, _, terminated, truncated, info = env.step(actions_np)

        for i, slot in enumerate(slots):
            if slot is None:
                continue
            slot.record(actions_np[i], noise_np[i], info, i)
            if terminated[i] or truncated[i]:
                episode = slot.finish(terminated[i], truncated[i], info, i, source)
                done[slot.index] = episode
                slots[i] = None
                if on_episode:
                    on_episode(episode)
    return [done[i] for i in range(len(seeds))]


def _restart(carry: Carry, fresh: Carry, mask: torch.Tensor) -> Carry:
    if not carry:
        return fresh
    return {k: torch.where(mask.view(-1, *[1] * (v.ndim - 1)), fresh[k], v) for k, v in carry.items()}


class _Slot:
    """The episode being recorded in one environment."""

    def __init__(self, index: int, seed: int):
        self.index, self.seed = index, seed
        self.rng = stream(seed, "policy-noise")
        self.states: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.noise: list[np.ndarray] = []
        self.starts: list[int] = []
        self.doubt: list[float] = []
        self.achieved: list[bool] = []

    def draw(self, chunk: int, dim: int) -> np.ndarray:
        return self.rng.standard_normal((chunk, dim))

    def record(self, chunk: np.ndarray, noise: np.ndarray, info: dict, i: int) -> None:
        executed = int(info["executed"][i])
        self.starts.append(len(self.actions))
        self.noise.append(noise)
        self.doubt.append(float(info["doubt"][i]))
        self.actions.extend(chunk[:executed])
        self.states.extend(info["states"][i, :executed])
        self.achieved.extend(info["achieved"][i, :executed])

    def finish(self, terminated: bool, truncated: bool, info: dict, i: int, source: str) -> Episode:
        return Episode(
            seed=self.seed,
            states=np.array(self.states, np.float32),
            actions=np.array(self.actions, np.float32),
            success=bool(info["success"][i]),
            terminated=bool(terminated),
            truncated=bool(truncated),
            noise=np.array(self.noise, np.float32),
            chunk_starts=np.array(self.starts),
            doubt=np.array(self.doubt, np.float32),
            source=source,
            reason=info["reason"][i],
            achieved=np.array(self.achieved, bool),
        )
