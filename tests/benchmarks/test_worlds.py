"""What the study tried beside the world model it ships."""

import dataclasses

import torch
from tiny import WORLD, normal, random_episodes, tiny_spec

from benchmarks.truth.worlds import fitted
from world_models.windows import windows

SPEC = tiny_spec()
EPISODES = random_episodes(SPEC)


def predicted(label: str) -> torch.Tensor:
    config = dataclasses.replace(WORLD, steps=600 if label == "own predictions" else WORLD.steps)
    data = windows(EPISODES, SPEC)
    noise = normal(len(data), SPEC.chunk, SPEC.state_dim)
    return fitted(EPISODES, config, SPEC, 0, label).predict(data.obs, data.actions, noise).states


def test_retrieval_from_its_own_windows_is_nearer_to_what_followed():
    data = windows(EPISODES, SPEC)
    errors = [(predicted(name) - data.future).square().mean() for name in ("full", "retrieval")]
    assert errors[1] < errors[0]


def test_own_predictions_train_another_model_that_is_finite():
    assert torch.isfinite(predicted("own predictions")).all()
