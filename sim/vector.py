"""Real simulators as gymnasium vector environments whose action is a chunk: one each process, or one here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from robopolicy.spec import Spec
from sim.tasks import find_task

# Steps that compile robosuite's numba code and fill caches, so that timings are of warm processes.
_WARM_UP_STEPS = 3


class ChunkWrapper(gymnasium.Env):
    """Executes a whole action chunk per `step` and never acts after the episode has ended.

    Observation (T, D): the last T states, the first one repeated at the start of an episode.
    Action (K, A). See `robopolicy.protocols.ChunkEnv` for `info`. The simulator is built at the first
    reset, so that a process that only asks for the spaces never loads it.

    Args:
        make: builds the step-level environment.
        spec: of the task.
        chunk: actions per step, K.
        linger: steps by which the end of a successful episode is put off.
    """

    spec: Any  # our Spec, where gymnasium would keep its registry entry

    def __init__(self, make: Callable[[], gymnasium.Env], spec: Spec, chunk: int, linger: int = 0):
        self._make, self.spec, self.chunk, self.linger = make, spec, chunk, linger
        self._env: gymnasium.Env | None = None
        low, high = spec.state_range
        self.observation_space = gymnasium.spaces.Box(
            np.tile(low, (spec.obs_steps, 1)), np.tile(high, (spec.obs_steps, 1))
        )
        low, high = spec.action_range
        self.action_space = gymnasium.spaces.Box(np.tile(low, (chunk, 1)), np.tile(high, (chunk, 1)))
        self._history = np.zeros((spec.obs_steps, spec.state_dim), np.float32)
        self._ended = True
        self._since_success = -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if self._env is None:
            self._env = self._make()
        state, _ = self._env.reset(seed=seed)
        self._history[:] = state
        self._ended, self._since_success = False, -1
        return self._history.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        states = np.zeros((self.chunk, self.spec.state_dim), np.float32)
        achieved = np.zeros(self.chunk, bool)
        executed, terminated, truncated = 0, False, False
        while self._env and executed < self.chunk and not self._ended:
            state, _, _, out_of_time, info = self._env.step(action[executed])
            states[executed], achieved[executed] = state, info["is_success"]
            executed += 1
            self._history = np.concatenate([self._history[1:], state[None]])
            if self._since_success >= 0 or info["is_success"]:
                self._since_success += 1
            terminated = self._since_success >= self.linger
            truncated = out_of_time and self._since_success < 0
            self._ended = terminated or truncated
        return (
            self._history.copy(),
            float(terminated),
            terminated,
            truncated,
            {
                "states": states,
                "executed": executed,
                "achieved": achieved,
                "success": self._since_success >= 0,
                "doubt": 0.0,
                "reason": "horizon" if truncated else "",
            },
        )

    def render(self) -> Any:
        return self._env.render() if self._env else None

    def close(self) -> None:
        if self._env:
            self._env.close()


class _Counting:
    """Counts the steps of all simulators of this process."""

    steps_taken = 0

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        outcome = super().step(actions)  # pyright: ignore[reportAttributeAccessIssue]
        _Counting.steps_taken += int(outcome[4]["executed"].sum())
        return outcome


def steps_taken() -> int:
    """Simulator steps that this process has asked for so far: what imagination is there to save."""
    return _Counting.steps_taken


class SimVectorEnv(_Counting, AsyncVectorEnv):
    """`num_envs` simulators of one task, each in its own process with one thread (a ChunkEnv).

    Args:
        task: a name in `sim.tasks.TASKS`.
        num_envs: processes; more than there are cores brings nothing.
        chunk: actions per step; the Spec's K by default, 1 for closed-loop experts.
        linger: steps by which the end of a successful episode is put off. Data for a world model needs
            at least K: if episodes end at success, what follows a good grasp is never seen at the later
            steps of a chunk and the model learns, wrongly, that the object stays on the table.
        seen: observations that are shown, T; those of the Spec by default.
    """

    spec: Any  # our Spec, where gymnasium would keep its registry entry

    def __init__(
        self, task: str, num_envs: int, chunk: int | None = None, linger: int = 0, seen: int | None = None
    ):
        self.spec = _shown(find_task(task).spec, seen)
        build = partial(_build, task, chunk or self.spec.chunk, linger, seen)
        threads = {k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        os.environ.update(dict.fromkeys(threads, "1"))  # inherited by the workers
        try:
            super().__init__(
                [build] * num_envs,
                context="spawn",
                autoreset_mode=AutoresetMode.DISABLED,
            )
        finally:
            for key, value in threads.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})


class SimSingleEnv(_Counting, SyncVectorEnv):
    """One simulator of a task, in this process (a ChunkEnv); the arguments are those of `SimVectorEnv`."""

    spec: Any  # our Spec, where gymnasium would keep its registry entry

    def __init__(self, task: str, chunk: int | None = None, linger: int = 0, seen: int | None = None):
        self.spec = _shown(find_task(task).spec, seen)
        build = partial(_build, task, chunk or self.spec.chunk, linger, seen)
        super().__init__([build], autoreset_mode=AutoresetMode.DISABLED)


def _shown(spec: Spec, seen: int | None) -> Spec:
    return spec if seen is None else replace(spec, obs_steps=seen)


def _build(task: str, chunk: int, linger: int, seen: int | None) -> gymnasium.Env:
    return ChunkWrapper(partial(_warm, task), _shown(find_task(task).spec, seen), chunk, linger)


def _warm(task: str) -> gymnasium.Env:
    found = find_task(task)
    env = found.make(0)
    env.reset(seed=0)
    for _ in range(_WARM_UP_STEPS):
        env.step(np.zeros(found.spec.action_dim, np.float32))
    return env
