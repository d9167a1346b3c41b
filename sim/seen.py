"""A task as an eye sees it: the robot's own numbers, and points in pictures in place of measured objects.

The name of such a task is the folder that `robopolicy train-eye` wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch

from robopolicy.errors import BadInput
from robopolicy.eye import load_eye, seen_spec
from robopolicy.nets.eye import Eye
from robopolicy.spec import Spec
from sim.rendering import picture


class SeenEnv(gymnasium.Env):
    """A simulator of which only pictures and the robot itself are seen.

    Args:
        env: has the cameras of the eye.
        eye: of square pictures, all of one size.
        spec: of what it sees.
    """

    spec: Any  # our Spec, where gymnasium would keep its registry entry
    render_mode = "rgb_array"

    def __init__(self, env: gymnasium.Env, eye: Eye, spec: Spec):
        self._env, self._eye, self.spec = env, eye, spec
        self.observation_space = gymnasium.spaces.Box(*spec.state_range)
        self.action_space = env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        state, info = self._env.reset(seed=seed, options=options)
        return self._seen(state), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        state, reward, terminated, truncated, info = self._env.step(action)
        return self._seen(state), float(reward), terminated, truncated, info

    def render(self) -> Any:
        """What its first camera shows, (H, W, 3) uint8."""
        return self.view(self._eye.cameras[0].name)

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(c.name for c in self._eye.cameras)

    def view(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 what one of `views` shows."""
        return picture(self._env, name)

    def close(self) -> None:
        self._env.close()

    def _seen(self, state: np.ndarray) -> np.ndarray:
        shown = {c.name: torch.from_numpy(self.view(c.name))[None] for c in self._eye.cameras}
        points = self._eye.see(shown)[0].numpy()
        return self.spec.check_obs(np.concatenate([state[: self.spec.proprio_dim], points]))


class BrakingSeenEnv(SeenEnv):
    """One whose arm can also brake, see `sim.plant.Arm`."""

    def hold(self) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        state, *outcome = cast(Any, self._env).hold()
        return self._seen(state), *outcome


def seen(
    folder: Path, base: Spec, make: Callable[[int], gymnasium.Env]
) -> tuple[Spec, Callable[..., SeenEnv]]:
    """The Spec of a task as the eye in `folder` sees it, and what builds an environment of it.

    Args:
        folder: of the eye.
        base: Spec of the task.
        make: builds its environment, given the side of its pictures in pixels.

    Raises:
        BadInput: if it is no whole eye, or one for other cameras.
    """
    eye, _ = load_eye(folder)
    if len({n for c in eye.cameras for n in (c.height, c.width)}) != 1:
        raise BadInput(f"{folder} cameras", "square pictures of one size", f"{eye.cameras}")
    spec, size = seen_spec(base, eye, folder), eye.cameras[0].height

    def build(camera: int = 0) -> SeenEnv:
        env = make(size)
        kind = BrakingSeenEnv if hasattr(env, "hold") else SeenEnv
        return kind(env, eye, spec)

    return spec, build
