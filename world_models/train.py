"""Fits a state world model to episodes: ridge mean, ensemble of residual denoisers, success, doubt."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.checkpoint import PROGRESS, load_tensors, save_tensors, seal, write_json
from robopolicy.config import WorldConfig
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.errors import BadInput, Interrupted, RoboPolicyError
from robopolicy.seeding import stream, torch_seed
from robopolicy.spec import Spec
from robopolicy.train import fit, load_optimizer_state, optimizer_state, seeded_init, warm_cosine
from robopolicy.types import Episode
from world_models.denoiser import Denoiser
from world_models.state import StateWorldModel
from world_models.success import SuccessLearner, inputs_used

_RIDGE = 1e-3
_RESOLUTION = 0.02  # of an object's typical motion: below it the sinh scale is linear
_EMA = 0.999
_INTERRUPTED = 130


@dataclass
class Windows:
    """Every place at which a chunk could begin.

    Attributes:
        obs: (M, T, D) states up to the beginning.
        actions: (M, K, A) actions that followed; zero beyond the end.
        future: (M, K, D) states that followed; the last one repeated beyond the end.
        mask: (M, K) 1 where `future` was really seen.
        success: (M, K) 1 where the task was achieved in `future`.
        episode: (M,) which episode it came from.
    """

    obs: Tensor
    actions: Tensor
    future: Tensor
    mask: Tensor
    success: Tensor
    episode: Tensor

    def __getitem__(self, index: Tensor) -> Windows:
        return Windows(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})

    def __len__(self) -> int:
        return len(self.obs)


def windows(episodes: list[Episode], spec: Spec) -> Windows:
    """Cuts episodes into windows, one per step."""
    parts: list[tuple[np.ndarray, ...]] = []
    t, k = spec.obs_steps, spec.chunk
    for number, e in enumerate(episodes):
        n = e.length
        if n == 0:
            continue
        starts = np.arange(n)
        past = np.maximum(starts[:, None] + np.arange(1 - t, 1), 0)
        ahead = starts[:, None] + np.arange(k)
        mask = ahead < n
        actions = np.where(mask[..., None], e.actions[np.minimum(ahead, n - 1)], 0)
        success = np.where(mask, e.achieved[np.minimum(ahead, n - 1)], False).astype(np.float32)
        row = (e.states[past], actions, e.states[np.minimum(ahead + 1, n)], mask, success)
        parts.append((*row, np.full(n, number)))
    if not parts:
        raise BadInput("world data", "at least one episode with at least one step", "none")
    obs, actions, future, mask, success, episode = (np.concatenate(x) for x in zip(*parts, strict=True))
    f = torch.from_numpy
    return Windows(
        f(obs).float(), f(actions).float(), f(future).float(), f(mask).float(), f(success), f(episode)
    )


def fit_statistics(model: StateWorldModel, data: Windows) -> None:
    """Closed forms: feature and state statistics, ridge mean, scale of what the ridge leaves."""
    states = data.future[data.mask > 0]
    low, high = states.amin(0), states.amax(0)
    model.seen_low.copy_(torch.minimum(low, data.obs.amin((0, 1))))
    model.seen_high.copy_(torch.maximum(high, data.obs.amax((0, 1))))
    features = model.geometry(data.obs, data.actions, model.seen_low, model.seen_high)
    model.feature_mean.copy_(features.mean(0))
    model.feature_std.copy_(features.std(0).clamp_min(1e-4))
    judged = torch.cat([states, model.geometry.relations(states)], -1)
    model.success_mean.copy_(judged.mean(0))
    model.success_std.copy_(judged.std(0).clamp_min(1e-4))
    model.state_std.copy_(states.std(0).clamp_min(1e-4))
    valid = torch.from_numpy(model.spec.state_range)
    model.state_low.copy_(torch.maximum(low - 0.02 * (high - low), valid[0]))
    model.state_high.copy_(torch.minimum(high + 0.02 * (high - low), valid[1]))

    cond = model.condition(data.obs, data.actions).double()
    cond = torch.cat([cond, torch.ones(len(cond), 1, dtype=torch.float64)], 1)
    target = (data.future - data.obs[:, -1:]).double()
    for k in range(model.spec.chunk):
        seen = data.mask[:, k] > 0
        x, y = cond[seen], target[seen, k]
        gram = x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
        column = slice(k * model.spec.state_dim, (k + 1) * model.spec.state_dim)
        model.ridge[:, column] = torch.linalg.solve(gram, x.T @ y).float()
    mask = data.mask.repeat_interleave(model.spec.state_dim, 1)

    def spread(x: Tensor) -> Tensor:
        return ((x**2 * mask).sum(0) / mask.sum(0)).sqrt()

    model.epsilon.copy_((_RESOLUTION * spread(target.flatten(1).float())).clamp_min(1e-6))
    model.scale.fill_(1.0)
    model.scale.copy_(spread(targets(model, data)).clamp_min(1e-5))


def targets(model: StateWorldModel, data: Windows) -> Tensor:
    """(M, K*D) what the denoisers learn to predict."""
    change = (data.future - data.obs[:, -1:]).flatten(1)
    return model.encode(change, model.condition(data.obs, data.actions))


class MemberLearner:
    """Trains one denoiser of the ensemble; a `robopolicy.train.Learner`."""

    def __init__(self, model: StateWorldModel, member: int, data: Windows, config: WorldConfig):
        self.model, self.config, self.data = model, config, data
        self.net = cast(Denoiser, model.members[member])
        self.average = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=config.lr, weight_decay=1e-4, fused=True)
        self.target = targets(model, data)
        self.mask = data.mask.repeat_interleave(model.spec.state_dim, 1)
        near = model.geometry.contact(data.obs)
        self.near = torch.nonzero(near)[:, 0]
        self.noise = config.history_noise * (data.obs[:, -1] - data.obs[:, 0]).std(0)

    def step(self, index: int, generator: torch.Generator) -> dict[str, float]:
        c = self.config
        near = int(c.batch_size * c.contact_share) if len(self.near) else 0
        everywhere = torch.randint(len(self.data), (c.batch_size - near,), generator=generator)
        picked = torch.randint(max(1, len(self.near)), (near,), generator=generator)
        rows = torch.cat([everywhere, self.near[picked]])
        obs = self.data.obs[rows]
        target = self.target[rows]
        if c.history_noise:
            obs = obs + self.noise * torch.randn(obs.shape, generator=generator)
        cond = self.model.condition(obs, self.data.actions[rows])
        for group in self.optimizer.param_groups:
            group["lr"] = c.lr * warm_cosine(index / c.steps)
        loss = self.net.loss(target, cond, self.mask[rows], generator)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        decay = min(_EMA, (1 + index) / (10 + index))
        own = self.net.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [own[k] for k in self.average], 1 - decay)
        return {"loss": float(loss.detach())}

    def state(self) -> dict[str, Tensor]:
        net = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        average = {f"average.{k}": v for k, v in self.average.items()}
        return {**net, **average, **optimizer_state(self.optimizer, "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        self.average = {k[8:]: v.clone() for k, v in tensors.items() if k.startswith("average.")}
        load_optimizer_state(self.optimizer, "optimizer", tensors)


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
    spec, train, held_out = _load(datasets, config, seed)
    data = windows(train, spec)
    model = _fresh(spec, config, seed)
    fit_statistics(model, data)
    learner = success_learner(model, data)  # refuses one-sided data before anything is written
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
    curve = fit(learner, config.success_steps, torch_seed(seed, "success"), "success head")
    report = {
        "held_out": calibrate(model.eval(), windows(held_out, spec), seed),
        "episodes": {
            source: {"episodes": n, "successes": sum(e.success for e in train if e.source == source)}
            for source, n in Counter(e.source for e in train).items()
        },
        "windows": len(data),
        "success_from": inputs_used(model),
    }
    save_tensors(out / "model.safetensors", model.state_dict())
    starts = torch.from_numpy(np.stack([np.repeat(e.states[:1], spec.obs_steps, 0) for e in train]))
    save_tensors(out / "starts.safetensors", {"starts": starts})
    write_json(out / "config.json", {"world": dataclasses.asdict(config), "seed": seed, "report": report})
    seal(out, "world", spec, ["config.json", "model.safetensors", "starts.safetensors"])
    for i in range(config.members):
        (out / f"member-{i}.safetensors").unlink()
    return {**report, "curves": {"members": curves, "success": curve}}


def success_learner(model: StateWorldModel, data: Windows) -> SuccessLearner:
    """What trains the success head of `model` on `data`."""
    return SuccessLearner(model, data.future, data.mask, data.success, model.config.success_sparsity)


def _load(datasets: list[Path], config: WorldConfig, seed: int) -> tuple[Spec, list[Episode], list[Episode]]:
    spec, _ = dataset_info(datasets[0])
    for folder in datasets[1:]:
        spec.require(dataset_info(folder)[0], str(folder))
    train, held_out = split(load_episodes(datasets), config.held_out, seed)
    if not train:
        raise BadInput("episodes", "at least 2", 1)
    return spec, train, held_out


def _fresh(spec: Spec, config: WorldConfig, seed: int) -> StateWorldModel:
    with seeded_init(torch_seed(seed, "world-init")):
        return StateWorldModel(spec, config)


def _train_members(
    datasets: list[Path], out: Path, config: WorldConfig, seed: int, members: list[int], quiet: bool
) -> None:
    """Trains some members; runs in a process of its own, so it rebuilds everything from the files."""
    torch.set_num_threads(1)
    spec, train, _ = _load(datasets, config, seed)
    data = windows(train, spec)
    model = _fresh(spec, config, seed)
    fit_statistics(model, data)
    made_with = {**dataclasses.asdict(config), "seed": seed, "data": [len(train), len(data)]}
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


def split(episodes: list[Episode], share: float, seed: int) -> tuple[list[Episode], list[Episode]]:
    """Splits episodes into training and held-out ones."""
    order = stream(seed, "world-split").permutation(len(episodes))
    cut = max(1, round(share * len(episodes)))
    return [episodes[i] for i in order[cut:]], [episodes[i] for i in order[:cut]]


@torch.no_grad()
def calibrate(model: StateWorldModel, data: Windows, seed: int) -> dict[str, float]:
    """Sets the scale of doubt so that 1 is its 99th percentile on held-out data; measures errors.

    Returns:
        Root mean square error of the last state per field in physical units, and the rank
        correlation of doubt with error.
    """
    rng = torch.Generator().manual_seed(seed)
    model.doubt_scale.fill_(1.0)
    noise = torch.randn(len(data), model.spec.chunk, model.spec.state_dim, generator=rng)
    states, _, doubt = model.predict(data.obs, data.actions, noise)
    model.doubt_scale.copy_(torch.quantile(doubt, 0.99).clamp_min(1e-6))
    error = (states - data.future) * data.mask[..., None] / model.state_std
    size = error.pow(2).sum((-1, -2)).div(data.mask.sum(-1)).sqrt()
    full = data.mask[:, -1] > 0
    report = {"doubt_error_spearman": _spearman(doubt, size)}
    start = 0
    for field in model.spec.state:
        part = slice(start, start + field.size)
        gap = (states - data.future)[full, -1, part]
        report[f"rmse.{field.name}"] = float(gap.pow(2).sum(-1).mean().sqrt())
        start += field.size
    return report


def _spearman(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([a.argsort().argsort().double(), b.argsort().argsort().double()])
    return float(torch.corrcoef(ranks)[0, 1])
