"""Made-up pictures: a bright blot where the hand of `tiny.tiny_spec` is, and a world model of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tiny import random_episodes, tiny_spec

from robopolicy.spec import Camera
from robopolicy.types import Episode
from world_models.pixels.config import PixelConfig
from world_models.pixels.windows import PixelWindows

SIDE = 16
CAMERA = Camera("scene", SIDE, SIDE)
CONFIG = PixelConfig(
    members=2, stride=2, channels=(8, 16), steps=8, batch_size=4, lr=2e-3, success_steps=8, held_out=0.2
)


def filmed(count: int = 8, length: int = 12) -> list[Episode]:
    """Episodes with pictures; every other one succeeds some steps before its end."""
    episodes = []
    for e in random_episodes(tiny_spec(), count, length):
        achieved = np.arange(e.length) >= e.length - 4 if e.success else np.zeros(e.length, bool)
        episodes.append(replace(e, achieved=achieved, pictures={CAMERA.name: dots(e.states[: e.length])}))
    return episodes


def dots(states: np.ndarray) -> np.ndarray:
    """(L, SIDE, SIDE, 3) uint8: the higher the hand, the lower in the picture; x goes from left to right."""
    pixels = np.arange(SIDE)
    row, column = SIDE * (states[:, 2] + 0.6) / 1.4, SIDE * (states[:, 0] + 0.5) / 0.8
    away = (pixels[:, None] - row[:, None, None]) ** 2 + (pixels - column[:, None, None]) ** 2
    bright = np.exp(-away / 4)[..., None] * np.array([180, 120, 60])
    return (40 + bright).astype(np.uint8)


def dot_windows(steps: int, count: int = 8) -> PixelWindows:
    """Windows of `filmed`."""
    return PixelWindows(filmed(count), tiny_spec(), (CAMERA,), steps)
