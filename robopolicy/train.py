"""The training loop shared by policies, world models and steerers: resumable to the bit.

Every random draw of step i comes from a generator seeded with (seed, i), so where to resume is the
learner's tensors and one integer.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from robopolicy.checkpoint import load_tensors, plain, save_tensors
from robopolicy.devices import scalars
from robopolicy.errors import BadInput, Interrupted, RoboPolicyError
from robopolicy.processes import leads
from robopolicy.progress import Progress
from robopolicy.seeding import torch_seed

_KEPT = "last progress kept"


class NotFinite(RoboPolicyError):
    """A gradient holds NaN or infinity; it was not applied."""


class Learner(Protocol):
    """Something `fit` can train."""

    def step(self, index: int, generator: torch.Generator) -> dict[str, float]:
        """One update. All randomness comes from `generator`. Returns metrics; "loss" is checked."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything `step` changes: weights, optimiser, EMA with its counter, replay, ..."""
        ...

    def load_state(self, tensors: dict[str, Tensor]) -> None: ...


def fit(
    learner: Learner,
    steps: int,
    seed: int,
    label: str,
    progress_file: Path | None = None,
    config: dict | None = None,
    save_every_s: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    quiet: bool = False,
) -> list[dict[str, float]]:
    """Runs `steps` updates, resuming from `progress_file` if it exists.

    Of several processes that share a run, the one that leads writes and shows.

    Args:
        learner: what to train.
        steps: total number of updates.
        seed: of every random draw.
        label: what the progress bar says.
        progress_file: where to save progress; none = not resumable.
        config: must equal the config that the progress was made with.
        save_every_s: seconds between saves.
        clock: monotonic seconds; decides only when to save.
        on_step: called after each step with its index and metrics.
        quiet: show no progress bar (work beside another process that shows one).

    Returns:
        A metrics row every 1% of the steps, those before an interruption too; TensorBoard gets the same,
        see `robopolicy.devices.scalars`.

    Raises:
        Interrupted: on Ctrl-C, after saving.
        RoboPolicyError: if the loss or what was learned is not finite, or the device's memory full; the
            progress saved last is kept.
    """
    start, rows, settings = 0, [], plain(config or {})
    if progress_file and progress_file.is_file():
        tensors, meta = load_tensors(progress_file)
        if meta.get("config") != settings or meta.get("steps") != steps or meta.get("seed") != seed:
            raise BadInput(str(progress_file), "progress of the same configuration", "another configuration")
        learner.load_state(tensors)
        start, rows = int(meta["next"]), list(meta.get("rows", []))

    def save(next_step: int) -> None:
        if progress_file and leads():
            meta = {"config": settings, "steps": steps, "seed": seed, "next": next_step, "rows": rows}
            state = learner.state()
            spoiled = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
            if spoiled:
                found = ", ".join(spoiled[:4])
                raise RoboPolicyError(f"{label}: not finite after step {next_step}: {found}; {_KEPT}")
            save_tensors(progress_file, state, meta)

    generator = torch.Generator()
    every, saved_at = max(1, steps // 100), clock()
    with (
        Progress(label, steps, start, quiet or not leads()) as bar,
        _interruptible() as interrupted,
        scalars(label) as write,
    ):
        for i in range(start, steps):
            generator.manual_seed(torch_seed(seed, "step", i))
            try:
                metrics = learner.step(i, generator)
            except torch.OutOfMemoryError as e:
                cure = "take a smaller --preset or batch, or fewer pixels"
                raise RoboPolicyError(f"{label}: memory is full at step {i}; {cure}; {_KEPT}") from e
            except NotFinite as e:
                raise RoboPolicyError(f"{label}: {e} at step {i}; {_KEPT}") from e
            if not math.isfinite(metrics["loss"]):
                raise RoboPolicyError(f"{label}: loss is {metrics['loss']} at step {i}; {_KEPT}")
            if i % every == 0 or i == steps - 1:
                rows.append({"step": i, **metrics})
                write(i, metrics)
            if on_step:
                on_step(i, metrics)
            bar.advance()
            if interrupted():
                save(i + 1)
                raise Interrupted(f"{label}: stopped after step {i + 1} of {steps}; run again to resume")
            if clock() - saved_at > save_every_s:
                save(i + 1)
                saved_at = clock()
    return rows


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Makes torch's default initialisation a function of `seed`, leaving the global stream untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag, so that a step is finished before stopping."""
    hit = False

    def handler(*_: object) -> None:
        nonlocal hit
        hit = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = signal.signal(signal.SIGINT, handler)
    except ValueError:  # not in the main thread: Ctrl-C is someone else's business
        yield lambda: False
        return
    try:
        yield lambda: hit
    finally:
        signal.signal(signal.SIGINT, before)


def descend(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], longest: float = 1.0) -> None:
    """Applies the gradients of `parameters`, shortened together to a norm of at most `longest`.

    Raises:
        NotFinite: if one of them is not finite; then nothing changes.
    """
    norm = torch.nn.utils.clip_grad_norm_(parameters, longest)
    if not torch.isfinite(norm):
        raise NotFinite(f"norm of the gradient is {float(norm)}")
    optimizer.step()


def optimizer_state(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimiser's per-parameter state as flat named tensors."""
    return {
        f"{prefix}.{i}.{k}": v if isinstance(v, Tensor) else torch.tensor(v)
        for i, p in enumerate(_parameters(optimizer))
        for k, v in optimizer.state.get(p, {}).items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Restores what `optimizer_state` saved."""
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            i, name = key[len(prefix) + 1 :].split(".", 1)
            parameter = parameters[int(i)]
            optimizer.state[parameter][name] = value.clone().to(parameter.device)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def warm_cosine(share: float, warm: float = 0.05) -> float:
    """Learning-rate factor at a share of training: linear warm-up, then cosine to zero."""
    if share < warm:
        return share / warm
    return 0.5 * (1 + math.cos(math.pi * (share - warm) / (1 - warm)))
