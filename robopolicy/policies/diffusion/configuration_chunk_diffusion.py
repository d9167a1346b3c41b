"""Configuration of the chunk diffusion policy, as LeRobot registers it (type "chunk_diffusion")."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import DiffuserSchedulerConfig

from robopolicy.nets.vision import VisionKind


@PreTrainedConfig.register_subclass("chunk_diffusion")
@dataclass
class ChunkDiffusionConfig(PreTrainedConfig):
    """Diffusion over action chunks from states.

    Attributes:
        horizon: actions per chunk, K.
        n_action_steps: actions executed before the next query.
        denoiser: "mlp" (fastest on a CPU), "unet" or "transformer".
        width: hidden units of the mlp, token size of the transformer.
        blocks: residual blocks of the mlp, layers of the transformer.
        channels: widths of the U-Net's resolutions.
        process: "ddim", "beso" (a score model that needs few steps) or "flow".
        num_train_timesteps: diffusion steps in training, of "ddim".
        num_inference_steps: steps in sampling.
        prediction_type: "sample" or "epsilon", of "ddim".
        memory: what is carried from chunk to chunk: "none", "sega", or "lstm" and "stacked" (observations),
            which it is compared with.
        memory_width: size of a token of SEGA, hidden units of the LSTM.
        memory_slots: of SEGA; of "stacked", how many chunks back.
        memory_layers: of SEGA.
        memory_gated: False overwrites SEGA's memory at every call.
        task_size: numbers by which the policy is told what to do; 0 if it is not.
        text_encoder: of Hugging Face, by folder or name; one of our own, trained with the policy, if empty.
        text_size: numbers that `text_encoder` gives per sentence.
        guidance: how much what it is told counts: 1 as it was trained, 0 not at all, more than 1 beyond.
        vision: how pictures are read: "small" (for a CPU), "resnet18" or "vit"; "none" where there are none.
        vision_size: numbers per picture.
        crop: share of a picture's height and width that is seen, in training any part of it.
        memory_chunks: calls that LeRobot's trainer shows in a row, the last of which it learns from.
        discover_packages_path: unused. LeRobot imports a plug-in by the flag of this name, then passes the
            flag on to the configuration if it comes with `--policy.path`; without the field the two
            together are refused.
    """

    n_obs_steps: int = 2
    horizon: int = 8
    n_action_steps: int = 8
    denoiser: str = "mlp"
    width: int = 256
    blocks: int = 2
    channels: tuple[int, ...] = (64, 128)
    process: str = "ddim"
    num_train_timesteps: int = 100
    num_inference_steps: int = 8
    prediction_type: str = "sample"
    memory: str = "none"
    memory_width: int = 64
    memory_slots: int = 4
    memory_layers: int = 1
    memory_gated: bool = True
    memory_chunks: int = 8
    task_size: int = 0
    text_encoder: str = ""
    text_size: int = 0
    guidance: float = 1.0
    vision: str = "none"
    vision_size: int = 64
    crop: float = 0.9
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "STATE": NormalizationMode.MEAN_STD,
            "ENV": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MIN_MAX,
            "VISUAL": NormalizationMode.IDENTITY,
        }
    )
    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 1e-4
    discover_packages_path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.denoiser not in ("mlp", "unet", "transformer"):
            raise ValueError(f"denoiser: wanted mlp, unet or transformer, got {self.denoiser!r}")
        if self.process not in ("ddim", "beso", "flow"):
            raise ValueError(f"process: wanted ddim, beso or flow, got {self.process!r}")
        if self.prediction_type not in ("sample", "epsilon"):
            raise ValueError(f"prediction_type: wanted sample or epsilon, got {self.prediction_type!r}")
        if self.memory not in ("none", "sega", "lstm", "stacked"):
            raise ValueError(f"memory: wanted none, sega, lstm or stacked, got {self.memory!r}")
        if self.vision not in (known := get_args(VisionKind)):
            raise ValueError(f"vision: wanted one of {known}, got {self.vision!r}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop: wanted a share in (0, 1], got {self.crop}")
        if self.task_size and self.memory != "none":
            raise ValueError(f"task_size: wanted 0 for a policy with memory, got {self.task_size}")
        if not 1 <= self.n_action_steps <= self.horizon:
            raise ValueError(f"n_action_steps: wanted 1..{self.horizon}, got {self.n_action_steps}")

    @property
    def observation_delta_indices(self) -> list[int]:
        # As many windows as there are calls in a row, oldest first; each as a policy without memory sees it.
        calls = self.memory_chunks if self.memory != "none" else 1
        ends = [-self.n_action_steps * back for back in reversed(range(calls))]
        return [end + step for end in ends for step in range(1 - self.n_obs_steps, 1)]

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        return DiffuserSchedulerConfig(name="cosine", num_warmup_steps=100)

    def validate_features(self) -> None:
        if self.robot_state_feature is None:
            raise ValueError("input_features: wanted observation.state, got none")
        if self.action_feature is None:
            raise ValueError("output_features: wanted action, got none")
        if bool(self.image_features) != (self.vision != "none"):
            wanted = "pictures and vision, or neither"
            raise ValueError(f"vision: wanted {wanted}, got {self.vision!r}, {list(self.image_features)}")
