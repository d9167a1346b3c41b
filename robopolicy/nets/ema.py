"""Exponential moving average of weights, with its counter as part of the state."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Average of a module's parameters and buffers.

    The decay warms up as (1 + n) / (10 + n); a counter that restarted at zero on resume would let the
    raw weights overwrite the average, so it is saved with it.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.count = decay, 0
        self.average = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        weight = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        own = module.state_dict()
        floats = [k for k, v in self.average.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floats], [own[k] for k in floats], weight)

    def state(self, prefix: str) -> dict[str, Tensor]:
        weights = {f"{prefix}.{k}": v for k, v in self.average.items()}
        return {**weights, f"{prefix}#count": torch.tensor(self.count)}

    def load_state(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        self.count = int(tensors[f"{prefix}#count"])
        self.average = {k: tensors[f"{prefix}.{k}"].clone().to(v.device) for k, v in self.average.items()}
