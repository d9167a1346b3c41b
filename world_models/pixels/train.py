"""Fits a pixel world model to episodes with pictures: denoisers, success, doubt."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robopolicy.checkpoint import (
    PROGRESS,
    load_tensors,
    remember,
    remembered,
    save_tensors,
    seal,
    write_json,
)
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.devices import Devices
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.eye import load_eye, seen_spec, seen_task
from robopolicy.nets.eye import Eye
from robopolicy.processes import leads
from robopolicy.seeding import torch_seed
from robopolicy.spec import Camera, Spec
from robopolicy.train import fit, seeded_init
from robopolicy.types import Episode
from world_models.pixels.config import PixelConfig
from world_models.pixels.learners import DenoiserLearner, PixelSuccessLearner
from world_models.pixels.model import PixelWorldModel
from world_models.pixels.quality import quality
from world_models.pixels.windows import PixelWindows
from world_models.windows import split

_SAMPLED = 512  # windows that the statistics are taken from
_TINY = 1e-4


def train_pixel_world(
    datasets: Sequence[Path],
    eye_folder: Path,
    out: Path,
    config: PixelConfig,
    seed: int,
    compiler: str = "",
) -> dict[str, Any]:
    """Trains a pixel world model and seals it in `out`, the eye with it; resumes if interrupted.

    Args:
        datasets: with pictures of the eye's cameras, of its task itself or as it sees it; the more failures,
            the better.
        eye_folder: what policies see imagined pictures with.
        out: the world model's folder.
        config: sizes and numbers of steps.
        seed: of every random draw.
        compiler: backend of torch.compile for the denoisers; none if empty.

    Returns:
        Quality on held-out episodes (`world_models.pixels.quality`; empty for those of several processes that
        do not lead), and loss curves.

    Raises:
        BadInput: if the data is unusable, or there is no such compiler; nothing has been written.
        Interrupted: on Ctrl-C, after saving.
        RoboPolicyError: if the device's memory is too small; what was saved is kept.
    """
    eye, base = load_eye(eye_folder)
    spec = seen_spec(base, eye, eye_folder)
    episodes = pixel_episodes(datasets, spec, eye.cameras)
    train, held_out = split(episodes, config.held_out, seed)
    if not train:
        raise BadInput("episodes", "at least 2", 1)
    with seeded_init(torch_seed(seed, "world-init")):
        model = PixelWorldModel(spec, eye.cameras, config)
    data = PixelWindows(train, spec, eye.cameras, model.steps)
    fit_statistics(model, data, seed)
    devices = Devices()
    model.to(devices.device)
    model.compile_denoisers(compiler)
    success = PixelSuccessLearner(model, data)  # refuses one-sided data before anything is written
    made_with = json.loads(json.dumps({**dataclasses.asdict(config), "data": [len(train), len(data)]}))
    if done := remembered(out, {**made_with, "seed": seed}):
        return done
    out.mkdir(parents=True, exist_ok=True)
    try:
        curves = [_member(model, i, data, devices, out, made_with, seed) for i in range(config.members)]
        label, file = "success in pictures", out / f"success-{PROGRESS}"
        success_seed = torch_seed(seed, "success")
        curve = fit(success, config.success_steps, success_seed, label, file, made_with)
        report = quality(model.eval(), held_out, seed, calibrates=True) if leads() else {}
    except torch.OutOfMemoryError as e:  # of what comes after training; `fit` says its own
        cure = "a smaller --preset, or fewer pixels; what was trained so far is kept, run again to go on"
        raise RoboPolicyError(f"train-world: the device's memory is full: {cure}") from e
    fields = {
        "held_out": report,
        "episodes": {"episodes": len(train), "successes": sum(e.success for e in train)},
        "windows": len(data),
        "curves": {"members": curves, "success": curve},
    }
    if leads():
        remember(out, {**made_with, "seed": seed}, fields)
        _save(model, eye, data.begins(), out, seed, report)
        for leftover in (file, *(out / f"member-{i}.safetensors" for i in range(config.members))):
            leftover.unlink(missing_ok=True)
    devices.wait()
    return fields


def pixel_episodes(datasets: Sequence[Path], spec: Spec, cameras: Sequence[Camera]) -> list[Episode]:
    """Recorded episodes with pictures, of an eye's task itself or as the eye sees it.

    Args:
        datasets: folders.
        spec: of what is seen (`robopolicy.eye.seen_spec`).
        cameras: of the eye.

    Raises:
        BadInput: naming the dataset that does not fit, and what of it.
    """
    for folder in datasets:
        found = dataset_info(folder)[0]
        named = spec.task if found.task == spec.task else seen_task(spec)
        wanted = dataclasses.replace(spec, task=named, objects=found.objects, cameras=tuple(cameras))
        wanted.require(found, str(folder))
    return load_episodes(list(datasets))


def _member(
    model: PixelWorldModel,
    i: int,
    data: PixelWindows,
    devices: Devices,
    out: Path,
    made_with: dict[str, Any],
    seed: int,
) -> list[dict[str, float]]:
    """Trains one member, or reads it where that was done before."""
    finished, progress = out / f"member-{i}.safetensors", out / f"member-{i}-{PROGRESS}"
    if finished.is_file():
        tensors, meta = load_tensors(finished)
        if meta.get("made_with") != made_with:
            raise BadInput(str(finished), "a member of the same training", "one of another")
        model.members[i].load_state_dict(tensors)
        return meta["curve"]
    learner = DenoiserLearner(model, i, data, devices)
    label, own_seed = f"pixel world model {i + 1}/{len(model.members)}", torch_seed(seed, "member", i)
    curve = fit(learner, model.config.steps, own_seed, label, progress, made_with)
    model.members[i].load_state_dict(learner.ema.average)
    if leads():
        save_tensors(finished, learner.ema.average, {"curve": curve, "made_with": made_with})
        progress.unlink(missing_ok=True)
    return curve


def fit_statistics(model: PixelWorldModel, data: PixelWindows, seed: int) -> None:
    """Sets the scales by which pictures and numbers are normalised, from a sample of windows."""
    generator = torch.Generator().manual_seed(torch_seed(seed, "world-statistics"))
    obs, _, future, _ = data[torch.randperm(len(data), generator=generator)[:_SAMPLED]]
    pictures, own = model.split(obs[:, -1])
    change_pictures, change_own = model.split(future - obs[:, -1:])

    def root(x: Tensor, *over: int) -> Tensor:
        return x.pow(2).mean(over).sqrt().clamp_min(_TINY)

    model.mean_picture.copy_(pictures.mean(0))
    model.spread.copy_(root(pictures - model.mean_picture, 0, 1, 2, 3))
    model.own_mean.copy_(own.mean(0))
    model.own_std.copy_(root(own - model.own_mean, 0))
    model.change_picture.copy_(root(change_pictures, 0, 1, 2, 3, 4))
    model.change_own.copy_(root(change_own, 0))


def _save(
    model: PixelWorldModel, eye: Eye, starts: Tensor, out: Path, seed: int, report: dict[str, Any]
) -> None:
    spec = model.seen_as
    save_tensors(out / "model.safetensors", model.state_dict())
    save_tensors(out / "eye.safetensors", eye.state_dict())
    save_tensors(out / "starts.safetensors", {"starts": starts[:, None].repeat(1, spec.obs_steps, 1)})
    config = {
        "pixels": dataclasses.asdict(model.config),
        "eye": dataclasses.asdict(eye.config),
        "cameras": [dataclasses.asdict(c) for c in eye.cameras],
        "seed": seed,
        "report": report,
    }
    write_json(out / "config.json", config)
    seal(out, "world", spec, ["config.json", *(f"{n}.safetensors" for n in ("model", "eye", "starts"))])
