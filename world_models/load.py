"""Opens a saved world model; the only place that chooses its class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robopolicy.checkpoint import load_strict, load_tensors, open_sealed, read_json, tensor_hash
from robopolicy.config import WorldConfig, from_dict
from robopolicy.errors import BadInput
from world_models.imagined_env import ImaginedEnv
from world_models.state import StateWorldModel

if TYPE_CHECKING:
    from world_models.pixels.seen import SeenImagination, SeenWorld


def load_state_world(folder: Path) -> StateWorldModel:
    """As `load_world`, of states alone.

    Raises:
        BadInput: also if it imagines pictures.
    """
    world = load_world(folder)
    if not isinstance(world, StateWorldModel):
        raise BadInput(str(folder), "a world model of states", "one of pictures")
    return world


def load_world(folder: Path, compiler: str = "") -> StateWorldModel | SeenWorld:
    """A frozen world model from a folder that `robopolicy train-world` wrote.

    Args:
        folder: its own.
        compiler: backend of torch.compile, for a model of pictures; none if empty.

    Raises:
        BadInput: if any file is missing, damaged, or does not fit the others.
    """
    spec = open_sealed(folder, "world")
    saved = read_json(folder / "config.json")
    if "pixels" in saved:
        from world_models.pixels.seen import load_seen_world

        return load_seen_world(folder, compiler)
    if compiler:
        raise BadInput("compiler", "none with a world model of states", compiler)
    config = from_dict(WorldConfig, saved["world"], "world config")
    model = StateWorldModel(spec, config)
    tensors, _ = load_tensors(folder / "model.safetensors")
    load_strict(model, tensors, str(folder / "model.safetensors"))
    return freeze(model)


def imagination(
    world: StateWorldModel | SeenWorld,
    starts: np.ndarray,
    num_envs: int,
    doubt_limit: float = float("inf"),
    horizon: int | None = None,
) -> ImaginedEnv | SeenImagination:
    """Imagined episodes of a world model; see `ImaginedEnv`."""
    if isinstance(world, StateWorldModel):
        return ImaginedEnv(world, starts, num_envs, doubt_limit, horizon=horizon)
    from world_models.pixels.seen import SeenImagination

    return SeenImagination(world, starts, num_envs, doubt_limit, horizon=horizon)


def start_states(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The real start states that the world model in `folder` was trained with, (M, T, D) each.

    Returns:
        Even rows, to practise from, and odd rows, to be judged from.
    """
    path = folder / "starts.safetensors"
    starts = load_tensors(path)[0]["starts"].numpy()
    if len(starts) < 2:
        raise BadInput(str(path), "at least 2 start states", len(starts))
    return starts[::2], starts[1::2]


def freeze(model: StateWorldModel) -> StateWorldModel:
    """Makes every parameter constant."""
    return model.eval().requires_grad_(False)


def world_hash(model: StateWorldModel | SeenWorld) -> str:
    """sha256 of the weights in memory."""
    return tensor_hash(model.state_dict())
