"""A learner's state as flat named tensors, put together from the states of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from robopolicy.train import load_optimizer_state, optimizer_state


class Stateful(Protocol):
    """A part that names its own tensors, such as a replay."""

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, tensors: dict[str, Tensor]) -> None: ...


Parts = Mapping[str, nn.Module | Optimizer | Stateful]


def pack(parts: Parts) -> dict[str, Tensor]:
    """Everything that the parts hold, copied."""
    flat: dict[str, Tensor] = {}
    for name, one in parts.items():
        if isinstance(one, Optimizer):
            flat |= optimizer_state(one, name)
        else:
            tensors = one.state_dict() if isinstance(one, nn.Module) else one.state()
            flat |= {f"{name}.{k}": v for k, v in tensors.items()}
    return {k: v.detach().clone() for k, v in flat.items()}


def unpack(parts: Parts, tensors: dict[str, Tensor]) -> None:
    """Restores what `pack` gave."""
    for name, one in parts.items():
        if isinstance(one, Optimizer):
            load_optimizer_state(one, name, tensors)
        elif isinstance(one, nn.Module):
            one.load_state_dict(part(tensors, name))
        else:
            one.load_state(part(tensors, name))


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix`, without it."""
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}
