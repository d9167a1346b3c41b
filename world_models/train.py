"""Fits a state world model to episodes: regressors, diffusion of their errors, success, doubt."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from robopolicy.checkpoint import (
    PROGRESS,
    load_tensors,
    remember,
    remembered,
    save_tensors,
    seal,
    write_json,
)
from robopolicy.config import WorldConfig
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.errors import BadInput, Interrupted, RoboPolicyError
from robopolicy.seeding import torch_seed
from robopolicy.spec import Spec
from robopolicy.train import fit, seeded_init
from robopolicy.types import Episode
from world_models.learners import ErrorLearner, MemberLearner
from world_models.state import StateWorldModel
from world_models.statistics import calibrate, fit_statistics
from world_models.success import fit_success, success_learner
from world_models.windows import Windows, split, windows

_INTERRUPTED = 130
# What a recording's settings say of who acted; see `robopolicy.cli.collect`.
_MADE_BY = ("source", "expert", "policy", "steerer", "noise", "bound", "where")


def train_world(
    datasets: list[Path], out: Path, config: WorldConfig, seed: int, processes: int = 2
) -> dict[str, Any]:
    """Trains a world model on recorded episodes and seals it in `out`; resumes if interrupted.

    Args:
        datasets: folders written by `robopolicy.data.writer`; the more failures, the better.
        out: the world model's folder.
        config: sizes and numbers of steps.
        seed: of every random draw.
        processes: ensemble members are spread over this many; the result does not depend on it.

    Returns:
        Held-out errors per field, composition of the data, and loss curves.

    Raises:
        BadInput: if the data is unusable; nothing has been written.
        Interrupted: on Ctrl-C, after saving.
    """
    spec, train, held_out, origin = _load(datasets, config, seed)
    model = _fresh(spec, config, seed)
    data = windows(train, spec, model.steps)
    fit_statistics(model, data)
    success_learner(model, data, False, 1.0)  # refuses one-sided data before anything is written
    made_with = _made_with(config, seed, train, data)
    if done := remembered(out, made_with):
        return done
    out.mkdir(parents=True, exist_ok=True)

    groups = [list(range(p, config.members, processes)) for p in range(min(processes, config.members))]
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_train_members, args=(datasets, out, config, seed, group, True))
        for group in groups[1:]
    ]
    for process in others:
        process.start()
    try:
        _train_members(datasets, out, config, seed, groups[0], False)
    finally:
        for process in others:
            process.join()
    for process in others:
        if process.exitcode == _INTERRUPTED:
            raise Interrupted("world model: stopped; run again to resume")
        if process.exitcode:
            raise RoboPolicyError(f"world model: a member's training ended with code {process.exitcode}")

    curves = []
    for i, member in enumerate(model.members):
        tensors, meta = load_tensors(out / f"member-{i}.safetensors")
        member.load_state_dict(tensors)
        curves.append(meta["curve"])
    errors, progress = ErrorLearner(model, data, config), out / f"errors-{PROGRESS}"
    error_curve = fit(
        errors, config.error_steps, torch_seed(seed, "errors"), "world model's errors", progress, made_with
    )
    model.denoiser.load_state_dict(errors.average)
    success = fit_success(model, data, torch_seed(seed, "success"))
    report = {
        "held_out": calibrate(model.eval(), windows(held_out, spec), seed),
        "episodes": {
            source: {"episodes": n, "successes": sum(e.success for e in train if e.source == source)}
            for source, n in Counter(e.source for e in train).items()
        },
        "datasets": [
            _recipe(folder, [e.success for e, o in zip(train, origin, strict=True) if o == i], len(train))
            for i, folder in enumerate(datasets)
        ],
        "windows": len(data),
        "success_from": success["used"],
        "success_wrong": success["wrong"],
    }
    save_tensors(out / "model.safetensors", model.state_dict())
    starts = torch.from_numpy(np.stack([np.repeat(e.states[:1], spec.obs_steps, 0) for e in train]))
    save_tensors(out / "starts.safetensors", {"starts": starts})
    write_json(out / "config.json", {"world": dataclasses.asdict(config), "seed": seed, "report": report})
    curves = {"members": curves, "errors": error_curve, "success": success["curve"]}
    remember(out, made_with, {**report, "curves": curves})
    seal(out, "world", spec, ["config.json", "model.safetensors", "starts.safetensors"])
    for leftover in (progress, *(out / f"member-{i}.safetensors" for i in range(config.members))):
        leftover.unlink(missing_ok=True)
    return {**report, "curves": curves}


def _recipe(folder: Path, won: list[bool], total: int) -> dict[str, Any]:
    """What a dataset gave to the training, whose outcomes were `won`, and who made it."""
    _, settings = dataset_info(folder)
    return {
        "folder": folder.resolve().name,
        "episodes": len(won),
        "successes": sum(won),
        "share": len(won) / total,
        "made_by": {k: settings[k] for k in _MADE_BY if k in settings},
    }


class _Data(NamedTuple):
    spec: Spec
    train: list[Episode]
    held_out: list[Episode]
    origin: list[int]  # which dataset each training episode came from


def _load(datasets: list[Path], config: WorldConfig, seed: int) -> _Data:
    # Pictures beside the states are not looked at.
    spec, *others = (dataclasses.replace(dataset_info(folder)[0], cameras=()) for folder in datasets)
    for other, folder in zip(others, datasets[1:], strict=True):
        spec.require(other, str(folder))
    if spec.pictures:
        raise BadInput(
            "dataset", "numbers (pictures are imagined with --eye)", [c.name for c in spec.pictures]
        )
    episodes = [(e, i) for i, folder in enumerate(datasets) for e in load_episodes([folder])]
    train, held_out = split(episodes, config.held_out, seed)
    if not train:
        raise BadInput("episodes", "at least 2", 1)
    return _Data(spec, [e for e, _ in train], [e for e, _ in held_out], [i for _, i in train])


def _fresh(spec: Spec, config: WorldConfig, seed: int) -> StateWorldModel:
    with seeded_init(torch_seed(seed, "world-init")):
        return StateWorldModel(spec, config)


def _made_with(config: WorldConfig, seed: int, train: list[Episode], data: Windows) -> dict[str, Any]:
    return {**dataclasses.asdict(config), "seed": seed, "data": [len(train), len(data)]}


def _train_members(
    datasets: list[Path], out: Path, config: WorldConfig, seed: int, members: list[int], quiet: bool
) -> None:
    """Trains some members; runs in a process of its own, so it rebuilds everything from the files."""
    torch.set_num_threads(1)
    spec, train, *_ = _load(datasets, config, seed)
    model = _fresh(spec, config, seed)
    data = windows(train, spec, model.steps)
    fit_statistics(model, data)
    made_with = _made_with(config, seed, train, data)
    for i in members:
        finished, progress = out / f"member-{i}.safetensors", out / f"member-{i}-{PROGRESS}"
        if finished.is_file():
            if load_tensors(finished)[1].get("made_with") != made_with:
                raise BadInput(str(finished), "a member of the same training", "one of another")
            continue
        learner = MemberLearner(model, i, data, config)
        label = f"world model {i + 1}/{config.members}"
        try:
            curve = fit(
                learner,
                config.steps,
                torch_seed(seed, "member", i),
                label,
                progress,
                made_with,
                quiet=quiet,
            )
        except Interrupted:
            if quiet:
                raise SystemExit(_INTERRUPTED) from None
            raise
        save_tensors(finished, learner.average, {"curve": curve, "made_with": made_with})
        progress.unlink(missing_ok=True)
