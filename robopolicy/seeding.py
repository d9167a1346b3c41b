"""Seed tree: every episode, worker and purpose has its own stream, independent of batch size."""

from __future__ import annotations

import hashlib

import numpy as np

# Disjoint by construction: whatever the master seed, no stage ever sees another stage's episodes.
_STAGES = ("demos", "rollouts", "warmup", "validation", "held_out", "film", "deploy", "imagined")
_STAGE_SIZE = 100_000
_MASTER_SIZE = _STAGE_SIZE * 10


def episode_seed(master: int, stage: str, index: int) -> int:
    """The environment seed of episode `index` of a stage.

    Stages own disjoint ranges, so held-out seeds are used for nothing else.

    Raises:
        ValueError: for an unknown stage or an index outside the stage's range.
    """
    if stage not in _STAGES or not 0 <= index < _STAGE_SIZE or master < 0:
        raise ValueError(f"no seed for stage {stage!r} (of {_STAGES}), index {index}, master {master}")
    return master * _MASTER_SIZE + _STAGES.index(stage) * _STAGE_SIZE + index


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent random stream for the path `names` below `seed`."""
    text = "/".join(str(n) for n in (seed, *names))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def torch_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for a `torch.Generator`, for the path `names` below `seed`."""
    text = "/".join(str(n) for n in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
