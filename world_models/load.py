"""Opens a saved world model; the only place that chooses its class."""

from __future__ import annotations

from pathlib import Path

from robopolicy.checkpoint import load_strict, load_tensors, open_sealed, read_json, tensor_hash
from robopolicy.config import WorldConfig, from_dict
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


def freeze(model: StateWorldModel) -> StateWorldModel:
    """Makes every parameter constant."""
    return model.eval().requires_grad_(False)


def world_hash(model: StateWorldModel) -> str:
    """sha256 of the weights in memory."""
    return tensor_hash(model.state_dict())
