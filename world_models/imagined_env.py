"""Imagination as a gymnasium vector environment: the same interface as the real simulator's.

An episode starts from a real start state, takes at most the horizon, and is truncated as soon
as the world model's doubt exceeds a limit or a state is not finite. Every random number is a function
of (episode seed, chunk index), so neither batch size nor order of episodes changes an episode.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.protocols import Prediction, WorldModel


class ImaginedEnv(VectorEnv):
    """`num_envs` imagined episodes at once (a `robopolicy.protocols.ChunkEnv`).

    Args:
        world: frozen world model.
        starts: (M, T, D) real observations that episodes begin with.
        num_envs: batch size.
        doubt_limit: doubt (1 = 99th percentile on held-out data) that ends an episode; see
            `WorldModel`. Infinity never ends one.
        success_threshold: probability from which a state counts as success.
        horizon: steps after which an episode ends; the Spec's by default.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}
    spec: Any  # our Spec, where gymnasium would keep its registry entry

    def __init__(
        self,
        world: WorldModel,
        starts: np.ndarray,
        num_envs: int,
        doubt_limit: float = float("inf"),
        success_threshold: float = 0.5,
        horizon: int | None = None,
    ):
        spec = world.spec
        starts = np.asarray(starts)
        if starts.ndim != 3 or starts.shape[1:] != (spec.obs_steps, spec.state_dim) or not len(starts):
            wanted = f"(M >= 1, {spec.obs_steps}, {spec.state_dim})"
            raise BadInput("starts", wanted, starts.shape)
        self.spec, self.world, self.num_envs = spec, world, num_envs
        self.starts = torch.from_numpy(spec.check_obs(starts, "starts"))
        self.doubt_limit, self.success_threshold = doubt_limit, success_threshold
        self.horizon = horizon or spec.horizon
        low, high = spec.state_range
        self.single_observation_space = gymnasium.spaces.Box(
            np.tile(low, (spec.obs_steps, 1)), np.tile(high, (spec.obs_steps, 1))
        )
        low, high = spec.action_range
        self.single_action_space = gymnasium.spaces.Box(
            np.tile(low, (spec.chunk, 1)), np.tile(high, (spec.chunk, 1))
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._obs = torch.zeros(num_envs, spec.obs_steps, spec.state_dim)
        self._seeds = torch.zeros(num_envs, dtype=torch.int64)
        self._steps = torch.zeros(num_envs, dtype=torch.int64)
        self._active = torch.zeros(num_envs, dtype=torch.bool)
        self._bits = np.random.Philox(key=0)
        self._bits_start, self._generator = self._bits.state, np.random.Generator(self._bits)

    def reset(
        self, *, seed: list[int] | int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts episodes in the slots of `options["reset_mask"]` (N,), all without it."""
        if seed is None:
            raise BadInput("seed", "a seed per environment: imagination draws nothing unseeded", seed)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        for i in np.flatnonzero(mask):
            self._seeds[i] = seeds[i]
            self._obs[i] = self.starts[self._random(seeds[i], 0).integers(len(self.starts))]
            self._steps[i], self._active[i] = 0, True
        return self._obs.numpy().copy(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Imagines one chunk (N, K, A) for every active slot."""
        spec, k = self.spec, self.spec.chunk
        active = self._active.clone()
        states, success, doubt = self._predict(actions)
        sane = torch.isfinite(states).flatten(1).all(-1) & torch.isfinite(doubt)
        doubtful = active & sane & (doubt > self.doubt_limit)
        diverged = active & ~sane
        good = active & sane & ~doubtful
        room = (self.horizon - self._steps).clamp(max=k)
        index = torch.arange(k)
        hit = (success > self.success_threshold) & (index < room[:, None]) & good[:, None]
        won = hit.any(-1)
        executed = torch.where(won, hit.int().argmax(-1) + 1, room) * good
        self._steps += executed
        out_of_time = good & ~won & (self._steps >= self.horizon)

        # Only what was executed enters the history; a rejected chunk leaves no trace.
        states = torch.where((index < executed[:, None])[..., None], states, 0.0)
        whole = torch.cat([self._obs, states], 1)
        window = executed[:, None] + torch.arange(spec.obs_steps)
        self._obs = whole.gather(1, window[..., None].expand(-1, -1, spec.state_dim))
        self._active = good & ~won & ~out_of_time
        reason = np.full(self.num_envs, "", dtype=object)
        reason[doubtful.numpy()], reason[diverged.numpy()] = "doubt", "diverged"
        reason[out_of_time.numpy()] = "horizon"
        info = {
            "states": states.numpy(),
            "executed": executed.numpy(),
            "achieved": (hit & (index < executed[:, None])).numpy(),
            "success": won.numpy(),
            "doubt": torch.where(active & sane, doubt, 0.0).numpy(),
            "reason": reason.tolist(),
        }
        truncated = (doubtful | diverged | out_of_time).numpy()
        return self._obs.numpy().copy(), won.float().numpy(), won.numpy(), truncated, info

    def peek(self, actions: np.ndarray) -> np.ndarray:
        """(N, K, D) the states that `step` would imagine for `actions` (N, K, A), without taking it.

        Slots that have ended, or whose prediction is not finite, stay where they are.
        """
        states, _, _ = self._predict(actions)
        moving = self._active & torch.isfinite(states).flatten(1).all(-1)
        return torch.where(moving[:, None, None], states, self._obs[:, -1:]).numpy()

    def _predict(self, actions: np.ndarray) -> Prediction:
        """What the world model says of a chunk; the noise is a function of each slot's seed and step."""
        size = (self.spec.chunk, self.spec.state_dim)
        noise = torch.zeros(self.num_envs, *size)
        for i in torch.nonzero(self._active)[:, 0].tolist():
            rng = self._random(int(self._seeds[i]), 1 + int(self._steps[i]))
            noise[i] = torch.from_numpy(rng.standard_normal(size, np.float32))
        return self.world.predict(self._obs, torch.from_numpy(actions), noise)

    def _random(self, seed: int, index: int) -> np.random.Generator:
        """The stream of (seed, index) from its beginning.

        Counter-based, so there is nothing to be saved. Always the same object, set anew: to make one
        costs several times as much as to draw from it.
        """
        start, (high, low) = self._bits_start, divmod(index << 32, 1 << 64)
        where = {"counter": np.array([low, high, 0, 0], np.uint64), "key": np.array([seed, 0], np.uint64)}
        self._bits.state = {**start, "state": where}  # pyright: ignore[reportAttributeAccessIssue]
        return self._generator

    def state(self) -> dict[str, Tensor]:
        """Everything that `step` and `reset` change."""
        names = ("_obs", "_seeds", "_steps", "_active")
        return {n[1:]: getattr(self, n).clone() for n in names}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `state` returned."""
        for name, value in tensors.items():
            setattr(self, f"_{name}", value.clone())
