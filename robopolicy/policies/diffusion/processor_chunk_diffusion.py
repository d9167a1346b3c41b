"""LeRobot's standard processors: rename, batch, normalise; and back."""

from __future__ import annotations

from typing import Any

import torch
from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from robopolicy.policies.diffusion.configuration_chunk_diffusion import ChunkDiffusionConfig


def make_chunk_diffusion_pre_post_processors(
    config: ChunkDiffusionConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """Processors that turn physical units into normalised ones and back."""
    return make_default_pre_post_processors(config, dataset_stats)
