"""Where a training run computes: its device, its precision, and the processes that share it.

`accelerate launch --multi_gpu --num_processes 2 -m robopolicy.cli train ...` starts two processes, without
GPUs too. Each draws the whole batch and works on its own rows, and their gradients are summed up: the run is
that of one process with all rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.processes import leads

Precision = Literal["fp32", "bf16"]
Log = Literal["none", "tensorboard", "wandb"]
SCALARS = "ROBOPOLICY_SCALARS"
"""Environment variable: folder in which every training loop leaves scalars for TensorBoard."""


class Devices:
    """Device and processes of one run.

    Args:
        precision: of the networks; weights, losses and averages stay in float32.

    Raises:
        BadInput: if there is no such precision.
    """

    def __init__(self, precision: Precision = "fp32"):
        from accelerate import PartialState

        if precision not in get_args(Precision):  # autocast would take it for bf16
            raise BadInput("precision", f"one of {get_args(Precision)}", precision)
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self.device, self.count = torch.device(self._state.device or "cpu"), self._state.num_processes
        self.precision = precision

    def autocast(self) -> AbstractContextManager:
        """In which networks are called."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def own(self, each: int) -> slice:
        """This process's rows of a batch that holds so many for each process."""
        first = self._state.process_index * each
        return slice(first, first + each)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replaces tensors by their sums over all processes."""
        from accelerate.utils import reduce

        if self.count == 1:
            return
        parts = list(tensors)
        flat = reduce(torch.cat([t.detach().flatten() for t in parts]), "sum")
        for t, total in zip(parts, flat.split([t.numel() for t in parts]), strict=True):  # type: ignore[union-attr]
            t.detach().copy_(total.view_as(t))

    def wait(self) -> None:
        """Until all processes have come here."""
        self._state.wait_for_everyone()


@contextmanager
def scalars(label: str) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """What writes down scalars of a loop for TensorBoard, if `SCALARS` names a folder.

    Raises:
        BadInput: if the library is not installed.
    """
    folder = os.environ.get(SCALARS)
    if not folder or not leads():
        yield lambda step, values: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise BadInput(SCALARS, "an installed library: pip install tensorboard", e) from e
    name = "".join(c if c.isalnum() else "-" for c in label)
    with SummaryWriter(str(Path(folder) / name)) as writer:

        def write(step: int, values: Mapping[str, float]) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        yield write


def scalar_log(kind: Log, folder: Path, settings: dict) -> Callable[[int, dict[str, float]], None] | None:
    """What writes down scalars of each step: TensorBoard's files below `folder`, or Weights & Biases.

    Raises:
        BadInput: if the library is not installed.
    """
    if kind == "none" or not leads():
        return None
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    known = {k: v for k, v in settings.items() if isinstance(v, int | float | str)}
    try:
        if kind == "tensorboard":
            tracker = TensorBoardTracker("logs", folder)
        else:
            tracker = WandBTracker(folder.name, dir=str(folder))
        tracker.start()
        tracker.store_init_configuration(known)
    except (ImportError, NameError) as e:
        raise BadInput("log", f"an installed library: pip install {kind}", e) from e
    return lambda step, values: tracker.log(values, step)
