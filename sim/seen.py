"""A task as an eye sees it: the robot's own numbers, and points in pictures in place of measured objects.

The name of such a task is the folder that `robopolicy train-eye` wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from robopolicy.errors import BadInput
from robopolicy.eye import load_eye, seen_spec
from robopolicy.nets.eye import Eye
from robopolicy.spec import Spec


class SeenEnv(gymnasium.Env):
    """A simulator of which only pictures and the robot itself are seen.

    Args:
        env: renders what the camera of the eye sees.
        eye: with one camera.
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
        """What the eye sees, (H, W, 3) uint8."""
        return self._env.render()

    def close(self) -> None:
        self._env.close()

    def _seen(self, state: np.ndarray) -> np.ndarray:
        (camera,) = self._eye.cameras
        picture = torch.from_numpy(np.ascontiguousarray(self.render()))
        points = self._eye.see({camera.name: picture[None]})[0].numpy()
        return self.spec.check_obs(np.concatenate([state[: self.spec.proprio_dim], points]))


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
    if len(eye.cameras) != 1 or eye.cameras[0].height != eye.cameras[0].width:
        raise BadInput(f"{folder} cameras", "one square camera, as simulators have", f"{eye.cameras}")
    spec, size = seen_spec(base, eye, folder), eye.cameras[0].height
    return spec, lambda camera=0: SeenEnv(make(size), eye, spec)
