"""Training, saving and opening an eye (`robopolicy.nets.eye`), and episodes as it sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopolicy.checkpoint import (
    folder_hash,
    load_strict,
    load_tensors,
    open_sealed,
    read_json,
    remember,
    remembered,
    save_tensors,
    seal,
    write_json,
)
from robopolicy.config import from_dict
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.errors import BadInput
from robopolicy.nets.eye import Eye, EyeConfig
from robopolicy.nets.vision import as_floats
from robopolicy.seeding import torch_seed
from robopolicy.spec import Spec
from robopolicy.train import (
    descend,
    fit,
    load_optimizer_state,
    optimizer_state,
    seeded_init,
    warm_cosine,
)
from robopolicy.types import Episode

PROGRESS = "progress.safetensors"
EYE = "eye.safetensors"
_HELD_OUT = 0.1
_AT_ONCE = 64
_SEEN = "-seen-"  # between the name of a task and that of the eye


def seen_spec(spec: Spec, eye: Eye, folder: Path) -> Spec:
    """The Spec of what is seen: the robot's own numbers, and the points in place of pictures and objects.

    Points of another eye are other numbers, whatever their names: the task is named after the eye in
    `folder`, so that artefacts of two eyes never fit each other.
    """
    task = f"{spec.task}{_SEEN}{folder_hash(folder)[:8]}"
    return dataclasses.replace(spec, task=task, objects=eye.fields, cameras=())


def seen_task(spec: Spec) -> str:
    """The name of the task that is seen in `spec`, from `seen_spec`."""
    return spec.task.rpartition(_SEEN)[0]


def train_eye(datasets: list[Path], out: Path, config: EyeConfig, seed: int) -> dict[str, Any]:
    """Trains an eye on recorded pictures and saves it; an interrupted training goes on.

    Args:
        datasets: with the same cameras.
        out: folder of the eye.
        config: its settings.
        seed: of initialisation and batches.

    Returns:
        `psnr_db` by camera on held-out episodes, that of the mean picture beside it, and the loss curve; none
        of them where pixels are left as they are.

    Raises:
        BadInput: if there are no pictures, or not the same cameras everywhere.
    """
    spec, _ = dataset_info(datasets[0])
    if not spec.cameras:
        raise BadInput(
            "dataset", "one with pictures (robopolicy collect --pictures 64)", f"{datasets[0]}: none"
        )
    for folder in datasets[1:]:
        if (other := dataset_info(folder)[0]).cameras != spec.cameras:
            raise BadInput(f"{folder} cameras", f"{spec.cameras}", other.cameras)
    episodes = load_episodes(datasets)
    if len(episodes) < 2:
        raise BadInput("dataset", "at least 2 episodes", len(episodes))
    rest = max(1, round(_HELD_OUT * len(episodes)))
    made_with = {**dataclasses.asdict(config), "episodes": len(episodes)}
    if done := remembered(out, {**made_with, "seed": seed}):
        return done
    out.mkdir(parents=True, exist_ok=True)
    eye, curve, found = Eye(spec.cameras, config), [], {}
    if config.kind == "points":
        learner = _Learner(spec, config, _pictures(spec, episodes[rest:]), seed)
        curve = fit(learner, config.steps, seed, "eye", out / PROGRESS, made_with)
        eye = learner.eye.eval().requires_grad_(False)
        found = psnr(eye, _pictures(spec, episodes[:rest]))
    save_tensors(out / EYE, eye.state_dict())
    write_json(out / "config.json", {"eye": dataclasses.asdict(config), "seed": seed})
    fields = {"psnr_db": found, "curve": curve}
    remember(out, {**made_with, "seed": seed}, fields)
    seal(out, "eye", spec, ["config.json", EYE])
    (out / PROGRESS).unlink(missing_ok=True)
    return fields


def drawn(eye: Eye, seen: np.ndarray) -> list[np.ndarray]:
    """Pictures (H, W, 3) uint8, cameras side by side, of what was seen, or imagined to be seen, (N, F)."""
    parts = eye.draw(torch.from_numpy(np.ascontiguousarray(seen)))
    return [*torch.cat([parts[c.name] for c in eye.cameras], 2).numpy()]


def load_eye(folder: Path) -> tuple[Eye, Spec]:
    """A frozen eye and the Spec of what it was trained on.

    Raises:
        BadInput: if any file is missing, damaged, or does not fit the others.
    """
    spec = open_sealed(folder, "eye")
    eye = Eye(spec.cameras, from_dict(EyeConfig, read_json(folder / "config.json")["eye"], "eye config"))
    load_strict(eye, load_tensors(folder / EYE)[0], str(folder / EYE))
    return eye.eval().requires_grad_(False), spec


def seen_episode(episode: Episode, spec: Spec, eye: Eye) -> Episode:
    """An episode as the eye sees it: pictures become points, what was measured of objects is left out.

    The last action's outcome was not photographed, so that step is left out too.

    Raises:
        BadInput: if a camera is missing, or is of another size.
    """
    pictures = {c.name: torch.from_numpy(np.ascontiguousarray(episode.film(c))) for c in eye.cameras}
    whole = range(0, episode.length, _AT_ONCE)
    seen = torch.cat([eye.see({k: x[i : i + _AT_ONCE] for k, x in pictures.items()}) for i in whole])
    n = episode.length - 1
    own = episode.states[: n + 1, : spec.proprio_dim]
    chunks = int((episode.chunk_starts < n).sum())
    return dataclasses.replace(
        episode,
        states=np.concatenate([own, seen.numpy()], 1).astype(np.float32),
        actions=episode.actions[:n],
        achieved=episode.achieved[:n],
        success=bool(episode.achieved[:n].any()),
        noise=episode.noise[:chunks],
        chunk_starts=episode.chunk_starts[:chunks],
        doubt=episode.doubt[:chunks],
        pictures={},
    )


def psnr(eye: Eye, pictures: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Decibels by camera: of pictures drawn again, and of the mean picture; (N, H, W, 3) uint8 each."""
    found = {}
    for name, frames in pictures.items():
        x, part = as_floats(frames), eye.part(name)
        with torch.no_grad():
            drawn = torch.cat([part.draw(part.see(rows)) for rows in x.split(_AT_ONCE)])
        error = {"eye": drawn.clamp(0, 1) - x, "mean_picture": part.mean - x}
        found[name] = {k: float(-10 * (e**2).mean().log10()) for k, e in error.items()}
    return found


def _pictures(spec: Spec, episodes: Sequence[Episode]) -> dict[str, Tensor]:
    """(N, H, W, 3) uint8 by camera, of all episodes together."""
    return {
        c.name: torch.from_numpy(np.concatenate([e.pictures[c.name] for e in episodes])) for c in spec.cameras
    }


class _Learner:
    """Draws the pictures again, a batch of each camera at a time (a `robopolicy.train.Learner`)."""

    def __init__(self, spec: Spec, config: EyeConfig, pictures: dict[str, Tensor], seed: int):
        with seeded_init(torch_seed(seed, "eye-init")):
            self.eye = Eye(spec.cameras, config)
        for name, frames in pictures.items():
            self.eye.part(name).mean.copy_(as_floats(frames.float().mean(0)))
        self.config, self.pictures = config, pictures
        self.optimizer = torch.optim.AdamW(self.eye.parameters(), lr=config.lr, fused=True)

    def step(self, index: int, generator: torch.Generator) -> dict[str, float]:
        loss = torch.zeros(())
        for name, frames in self.pictures.items():
            rows = torch.randint(len(frames), (self.config.batch_size,), generator=generator)
            loss = loss + self.eye.loss(name, as_floats(frames[rows]))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * warm_cosine(index / self.config.steps)
        self.optimizer.zero_grad()
        loss.backward()
        descend(self.optimizer, self.eye.parameters())
        return {"loss": float(loss.detach())}

    def state(self) -> dict[str, Tensor]:
        own = {f"eye.{k}": v for k, v in self.eye.state_dict().items()}
        return {**own, **optimizer_state(self.optimizer, "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.eye.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("eye.")})
        load_optimizer_state(self.optimizer, "optimizer", tensors)
