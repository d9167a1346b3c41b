"""Imagination as a LeRobot environment, so that `lerobot-eval` judges any LeRobot policy in a world model.

    lerobot-eval --env.type=robopolicy_imagination --env.discover_packages_path=world_models --env.world=DIR
        --eval.n_episodes=512 --eval.batch_size=256 --policy.path=DIR

LeRobot acts one step at a time, a world model imagines a whole chunk of K actions. Until K actions are
known, the missing ones are taken to repeat the last; what is observed after the j-th is the j-th state of
that guess, with the same noise of the sampler throughout. With the K-th action the chunk is imagined as
`ImaginedEnv` always does, and only then judged: success, doubt and divergence are those of the whole chunk,
and an episode ends up to K - 1 steps late. A policy that queries itself every K steps therefore fares as in
`robopolicy imagine`, but for what it sees of the steps before the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

from robopolicy.errors import BadInput
from robopolicy.spec import Spec
from world_models.imagined_env import ImaginedEnv
from world_models.load import imagination, load_world, start_states
from world_models.pixels.seen import SeenImagination

# What LeRobot calls proprioception and objects while they are still the environment's.
_PROPRIO, _OBJECTS = "agent_pos", "environment_state"
# Pixels of a picture and around the middle of a dot; a colour per point.
_SIDE, _DOT = 128, 2
_COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14))


@EnvConfig.register_subclass("robopolicy_imagination")
@dataclass
class ImaginationConfig(EnvConfig):
    """`--env.type=robopolicy_imagination`.

    Attributes:
        world: folder of a world model.
        doubt_limit: doubt that ends an episode (1 is the 99th percentile on held-out data).
    """

    world: str = ""
    doubt_limit: float = 3.0

    def __post_init__(self) -> None:
        spec = Spec.load(Path(self.world))
        objects = spec.state_dim - spec.proprio_dim
        self.task, self.fps = spec.task, round(spec.fps)
        self.features = {
            _PROPRIO: PolicyFeature(FeatureType.STATE, (spec.proprio_dim,)),
            **({_OBJECTS: PolicyFeature(FeatureType.ENV, (objects,))} if objects else {}),
            ACTION: PolicyFeature(FeatureType.ACTION, (spec.action_dim,)),
        }
        self.features_map = {_PROPRIO: OBS_STATE, _OBJECTS: OBS_ENV_STATE, ACTION: ACTION}

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """One batched environment: imagination needs no process of its own."""
        _, starts = start_states(Path(self.world))
        inner = imagination(load_world(Path(self.world)), starts, n_envs, self.doubt_limit)
        return {self.type: {0: StepwiseImagination(inner)}}


class StepwiseImagination(VectorEnv):
    """`ImaginedEnv` one action at a time; see the module.

    Observations are {"agent_pos": (N, P), "environment_state": (N, D - P)}, the latter where the Spec has
    objects. `info["is_success"]` (N,) bool is set where a step ends an episode with success. Ended slots
    stand still until all are reset.

    Args:
        inner: the episodes.
    """

    spec: Any  # our Spec, where gymnasium would keep its registry entry

    def __init__(self, inner: ImaginedEnv | SeenImagination):
        spec: Spec = inner.spec
        self.inner, self.spec, self.num_envs = inner, spec, inner.num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_fps": round(spec.fps)}
        low, high = spec.state_range
        boxes = [(k, gymnasium.spaces.Box(low[s], high[s])) for k, s in self._parts().items()]
        self.single_observation_space = gymnasium.spaces.Dict(boxes)
        self.single_action_space = gymnasium.spaces.Box(*spec.action_range)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        points = [spec.slice_of(f.name) for f in spec.state if f.role == "point"]
        self._points = np.array([range(s.start, s.stop) for s in points], int).reshape(-1, 3)
        self._given: list[np.ndarray] = []
        self._steps = 0
        self._now = np.zeros((self.num_envs, spec.state_dim), np.float32)

    def _parts(self) -> dict[str, slice]:
        n, d = self.spec.proprio_dim, self.spec.state_dim
        return {_PROPRIO: slice(0, n), **({_OBJECTS: slice(n, d)} if n < d else {})}

    def reset(
        self, *, seed: list[int] | int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode in every slot."""
        obs, _ = self.inner.reset(seed=seed)
        self._given, self._steps, self._now = [], 0, obs[:, -1]
        return self._observed(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Applies actions (N, A), limited to the Spec's range.

        Raises:
            BadInput: if one is not finite.
        """
        if not np.isfinite(actions).all():
            raise BadInput("action", "finite numbers", "NaN or infinity")
        self._given.append(np.clip(actions, *self.spec.action_range))
        self._steps += 1
        missing = self.spec.chunk - len(self._given)
        chunk = np.stack(self._given + [self._given[-1]] * missing, 1)
        if missing and self._steps < self.spec.horizon:
            self._now = self.inner.peek(chunk)[:, len(self._given) - 1]
            none = np.zeros(self.num_envs, bool)
            return self._observed(), none.astype(np.float32), none, none, {"is_success": none}
        obs, reward, terminated, truncated, info = self.inner.step(chunk)
        self._given, self._now = [], obs[:, -1]
        return self._observed(), reward, terminated, truncated, {"is_success": info["success"]}

    def _observed(self) -> dict[str, np.ndarray]:
        return {k: self._now[:, s].copy() for k, s in self._parts().items()}

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What LeRobot asks each of its environments."""
        if name == "render":
            return self.render()
        known = {"_max_episode_steps": self.spec.horizon, "task": self.spec.task}
        known["task_description"] = self.spec.task
        if name not in known:
            raise AttributeError(name)
        return (known[name],) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        return self.call(name)

    def render(self) -> tuple[np.ndarray, ...]:
        """(H, W, 3) uint8 per slot: its points from above (x, y) and, right, from the side (x, z)."""
        frames = np.full((self.num_envs, _SIDE, 2 * _SIDE, 3), 255, np.uint8)
        starts = self.inner.starts[:, -1].numpy()[:, self._points].reshape(-1, 3)
        if len(starts):
            low, high = starts.min(0), starts.max(0)
            share = (self._now[:, self._points] - (low + high) / 2) / (2 * (high - low).max() + 1e-3) + 0.5
            pixels = np.clip((share * _SIDE).astype(int), _DOT, _SIDE - 1 - _DOT)
            slot, around = np.arange(self.num_envs)[:, None, None], np.arange(-_DOT, _DOT + 1)
            for (x, y, z), colour in zip(pixels.transpose(1, 2, 0)[..., None, None], cycle(_COLOURS)):
                for column, up in ((x, y), (x + _SIDE, z)):
                    frames[slot, _SIDE - 1 - up + around[:, None], column + around] = colour
        return tuple(frames)
