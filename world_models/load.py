"""Opens a saved world model; the only place that chooses its class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robopolicy.checkpoint import load_strict, load_tensors, open_sealed, read_json, tensor_hash
from robopolicy.config import WorldConfig, from_dict
from robopolicy.errors import BadInput
from world_models.state import StateWorldModel


def load_world(folder: Path) -> StateWorldModel:
    """A frozen world model from a folder that `train_world` wrote.

    Raises:
        BadInput: if any file is missing, damaged, or does not fit the others.
    """
    spec = open_sealed(folder, "world")
    config = from_dict(WorldConfig, read_json(folder / "config.json")["world"], "world config")
    model = StateWorldModel(spec, config)
    tensors, _ = load_tensors(folder / "model.safetensors")
    load_strict(model, tensors, str(folder / "model.safetensors"))
    return freeze(model)


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


def world_hash(model: StateWorldModel) -> str:
    """sha256 of the weights in memory."""
    return tensor_hash(model.state_dict())
