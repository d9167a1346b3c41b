"""Imagined pictures as policies see them: through the eye that they were trained with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopolicy.checkpoint import load_strict, load_tensors, open_sealed, read_json
from robopolicy.config import from_dict
from robopolicy.devices import Devices
from robopolicy.nets.eye import Eye, EyeConfig
from robopolicy.spec import Camera
from world_models.imagined_env import ImaginedEnv
from world_models.pixels.config import PixelConfig
from world_models.pixels.model import PixelWorldModel


class SeenWorld:
    """A frozen pixel world model with an eye; neither changes.

    Args:
        model: imagines pictures.
        eye: makes them numbers of a policy's state.

    Attributes:
        spec: of what is seen, as policies have it.
        cameras: whose pictures are imagined.
    """

    def __init__(self, model: PixelWorldModel, eye: Eye):
        self.model, self.eye, self.spec, self.cameras = model, eye, model.seen_as, model.cameras

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of both."""
        parts = {"model": self.model, "eye": self.eye}
        return {f"{k}.{name}": v for k, part in parts.items() for name, v in part.state_dict().items()}

    def see(self, states: Tensor) -> Tensor:
        """(..., D') states as policies have them, of states (..., D) with their pictures."""
        own = states.flatten(0, -2)[:, : self.spec.proprio_dim]
        views = self._views(states.flatten(0, -2))
        points = self.eye.see({c.name: v for c, v in zip(self.eye.cameras, views, strict=True)})
        return torch.cat([own, points], -1).view(*states.shape[:-1], -1)

    def pictures(self, states: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 what cameras show, side by side, of states (N, D)."""
        return torch.cat(self._views(torch.from_numpy(states)), 2).numpy()

    def _views(self, states: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 of each camera."""
        pictures = self.model.split(states)[0]
        return (255 * pictures).round().to(torch.uint8).movedim(-3, -1).split(3, -1)

    def start(self, state: np.ndarray, pictures: dict[str, np.ndarray]) -> np.ndarray:
        """(T, D) what imagination begins with.

        Args:
            state: (D',) as a policy has it.
            pictures: of each camera, (H, W, 3) uint8.
        """
        own = state[: self.spec.proprio_dim]
        shown = [pictures[c.name].transpose(2, 0, 1).ravel() / 255 for c in self.eye.cameras]
        whole = np.concatenate([own, *shown]).astype(np.float32)
        return np.repeat(whole[None], self.spec.obs_steps, 0)


class SeenImagination:
    """Imagined episodes as a policy sees them (a `robopolicy.protocols.ChunkEnv`).

    Args:
        world: frozen.
        starts: (M, T, D) observations with their pictures, that episodes begin with.
        num_envs: episodes at once.
        options: of `ImaginedEnv`.

    Attributes:
        watch: called after each step with what was executed in the first slot, (L, H, W, 3) uint8, its
            cameras side by side.
    """

    def __init__(self, world: SeenWorld, starts: np.ndarray, num_envs: int, *args: Any, **options: Any):
        self.world, self.spec, self.num_envs = world, world.spec, num_envs
        self._env = ImaginedEnv(world.model, starts, num_envs, *args, **options)
        self.watch: Callable[[np.ndarray], None] | None = None

    @property
    def starts(self) -> Tensor:
        """(M, T, D') as policies have them."""
        return self.world.see(self._env.starts)

    @property
    def doubt_limit(self) -> float:
        return self._env.doubt_limit

    def reset(
        self, *, seed: list[int] | int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        obs, info = self._env.reset(seed=seed, options=options)
        return self._seen(obs), info

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self._env.step(actions)
        if self.watch is not None:
            self.watch(self.world.pictures(info["states"][0, : info["executed"][0]]))
        info = {**info, "states": self._seen(info["states"])}
        return self._seen(obs), reward, terminated, truncated, info

    def peek(self, actions: np.ndarray) -> np.ndarray:
        """See `ImaginedEnv.peek`."""
        return self._seen(self._env.peek(actions))

    def state(self) -> dict[str, Tensor]:
        return self._env.state()

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self._env.load_state(tensors)

    def close(self) -> None:
        self._env.close()

    def _seen(self, states: np.ndarray) -> np.ndarray:
        return self.world.see(torch.from_numpy(states)).numpy()


def load_seen_world(folder: Path, compiler: str = "") -> SeenWorld:
    """What `world_models.pixels.train` saved, the world model on a graphics processor if there is one.

    Args:
        folder: of the world model.
        compiler: backend of torch.compile for its denoisers; none if empty.

    Raises:
        BadInput: if any file is missing, damaged, or does not fit the others; if there is no such backend.
    """
    spec, saved = open_sealed(folder, "world"), read_json(folder / "config.json")
    cameras = tuple(Camera(**c) for c in saved["cameras"])
    model = PixelWorldModel(spec, cameras, from_dict(PixelConfig, saved["pixels"], "world config"))
    eye = Eye(cameras, from_dict(EyeConfig, saved["eye"], "eye config"))
    for name, part in {"model": model, "eye": eye}.items():
        path = folder / f"{name}.safetensors"
        load_strict(part, load_tensors(path)[0], str(path))
        part.eval().requires_grad_(False)
    model.to(Devices().device)
    model.compile_denoisers(compiler)
    return SeenWorld(model, eye)
