"""EDM diffusion of the pictures that follow, and of the robot's own numbers beside them.

The U-Net is that of DIAMOND (Alonso et al. 2024, arXiv 2405.12399) in its shape, built from diffusers'
blocks: past pictures and noisy ones are stacked, noise level and actions scale and shift its normalisation.
The robot's own numbers ride along as planes of one colour; the mean of such a plane is the number.

Shape letters: B windows, T past states, k states to come, C channels of all cameras, P numbers of the robot.
"""

from __future__ import annotations

import math

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from world_models.denoiser import fourier
from world_models.pixels.config import PixelConfig

_GROUP = 8


class PixelDenoiser(nn.Module):
    """Best guess of clean changes, given noisy ones, what was seen and what will be done.

    Changes and what was seen come normalised, so that sigma_data is 1 (Karras et al. 2022, table 1).

    Args:
        size: (C, H, W) of a state's pictures.
        proprio: P.
        past: T.
        ahead: k.
        code: numbers that say what will be done.
        config: sizes.
    """

    def __init__(
        self, size: tuple[int, int, int], proprio: int, past: int, ahead: int, code: int, config: PixelConfig
    ):
        super().__init__()
        self.size, self.proprio, self.ahead = size, proprio, ahead
        planes, channels = size[0] + proprio, config.channels
        self.net = UNet2DModel(
            in_channels=(past + ahead) * planes,
            out_channels=ahead * planes,
            layers_per_block=config.layers,
            block_out_channels=channels,
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            norm_num_groups=_GROUP,
            add_attention=False,
            class_embed_type="identity",
            resnet_time_scale_shift="scale_shift",
        )
        width = 4 * channels[0]  # of diffusers' time embedding, to which ours is added
        self.level = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.code = nn.Linear(code, width)
        self.bf16 = config.precision == "bf16"
        if self.bf16:  # colours last is how tensor cores take pictures
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        nn.init.zeros_(self.net.conv_out.weight)
        nn.init.zeros_(self.net.conv_out.bias)  # type: ignore[arg-type]

    @property
    def dim(self) -> int:
        """Numbers of k changes: their pictures, then the robot's own."""
        return self.ahead * (math.prod(self.size) + self.proprio)

    def planes(self, states: Tensor, count: int) -> Tensor:
        """(B, count * (C+P), H, W) of states (B, count * (C*H*W + P)), all pictures first."""
        pictures, own = states.split([count * math.prod(self.size), count * self.proprio], 1)
        shape = (-1, *self.size[1:])
        flat = own[..., None, None].expand(len(own), *shape)
        return torch.cat([pictures.view(len(states), *shape), flat], 1)

    def forward(self, x: Tensor, sigma: Tensor, seen: Tensor, code: Tensor) -> Tensor:
        """Best guess of clean changes.

        Args:
            x: (B, dim) noisy changes.
            sigma: (B, 1) or (1, 1) level of noise.
            seen: (B, T * (C+P), H, W) planes of what was seen.
            code: (B, code) what will be done.
        """
        total = sigma**2 + 1
        embedding = self.level(fourier(sigma.log() / 4)) + self.code(code)
        stack = torch.cat([seen, self.planes(x * total.rsqrt(), self.ahead)], 1)
        if self.bf16:
            stack = stack.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.net(stack, 0, class_labels=embedding).sample.float()
        pictures, own = out.split([self.ahead * self.size[0], self.ahead * self.proprio], 1)
        raw = torch.cat([pictures.flatten(1), own.mean((-1, -2))], 1)
        return x / total + raw * sigma * total.rsqrt()

    def loss(self, clean: Tensor, seen: Tensor, code: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """EDM loss, pictures and the robot's own numbers weighing the same.

        Args:
            clean: (B, dim) changes.
            seen: (B, T * (C+P), H, W).
            code: (B, code).
            level: (B, 1) standard normal; says how much noise.
            noise: (B, dim) standard normal.
        """
        sigma = (level * 1.2 - 0.4).exp()  # DIAMOND's law
        weight = (sigma**2 + 1) / sigma**2
        error = (self(clean + sigma * noise, sigma, seen, code) - clean) ** 2 * weight
        pictures, own = error.split([self.ahead * math.prod(self.size), self.ahead * self.proprio], 1)
        return pictures.mean() + own.mean()
