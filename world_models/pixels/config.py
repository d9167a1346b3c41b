"""Settings of a pixel world model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from robopolicy.errors import BadInput

ActionCode = Literal["two-hot", "one-hot", "linear"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class PixelConfig:
    """A pixel world model.

    Attributes:
        members: denoisers in the ensemble.
        stride: pictures imagined at once; the largest divisor of the chunk up to this is taken.
        channels: of each resolution of the U-Net, multiples of 8.
        layers: residual blocks per resolution.
        action_code: how the denoisers are told of an action; see `world_models.pixels.two_hot`.
        steps: updates per member.
        batch_size: windows per update.
        lr: peak learning rate.
        history_noise: largest noise on the pictures that imagination goes on from, while training; white
            is 1.
        sample_steps: Euler steps of the sampler.
        temperature: share of the noise that sampling begins with. 1 is the distribution that was learned;
            what was trained for minutes has not learned to remove all of it.
        success_steps: updates of the success head.
        held_out: share of episodes kept for calibration.
        precision: of the denoisers, in training and in imagination; "bf16" is for graphics processors.
    """

    members: int = 2
    stride: int = 8
    channels: tuple[int, ...] = (16, 32, 32)
    layers: int = 1
    action_code: ActionCode = "two-hot"
    steps: int = 3000
    batch_size: int = 16
    lr: float = 1e-3
    history_noise: float = 0.05
    sample_steps: int = 3
    temperature: float = 0.1
    success_steps: int = 1000
    held_out: float = 0.1
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name in ("members", "stride", "layers", "batch_size", "sample_steps"):
            if getattr(self, name) < 1:
                raise BadInput(f"world {name}", "a positive integer", getattr(self, name))
        if not 0 <= self.temperature <= 1:
            raise BadInput("world temperature", "a number from 0 to 1", self.temperature)
        if not self.channels or any(c < 8 or c % 8 for c in self.channels):
            raise BadInput("world channels", "multiples of 8", self.channels)
        if self.precision not in get_args(Precision):
            raise BadInput("world precision", f"one of {get_args(Precision)}", self.precision)
        if self.action_code not in get_args(ActionCode):
            raise BadInput("world action_code", f"one of {get_args(ActionCode)}", self.action_code)


PIXEL_PRESETS = {
    "quick": PixelConfig(),
    "full": PixelConfig(
        members=3,
        channels=(64, 128, 128, 256),
        layers=2,
        steps=100_000,
        batch_size=64,
        lr=1e-4,
        temperature=1.0,
        success_steps=5000,
    ),
    "tiny": PixelConfig(steps=30, batch_size=8, success_steps=30),
}
