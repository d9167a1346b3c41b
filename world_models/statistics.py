"""Closed forms of a world model: what is normal, how freely things move, how large its errors are."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from world_models.state import StateWorldModel
from world_models.windows import Windows

_RIDGE = 1e-3
_STILL = 0.05  # of an object's typical motion: less is the tremor of one at rest
_FLAG_WEIGHT = 0.3  # of a flag beside a number that is off by its spread


@torch.no_grad()
def fit_statistics(model: StateWorldModel, data: Windows) -> None:
    """Feature and state statistics, linear mean, scale of what that leaves.

    Args:
        model: all of whose buffers but those of its errors and its doubt are set.
        data: windows of `model.steps` steps.
    """
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

    change = data.future - data.obs[:, -1:]
    for i, part in enumerate(model.objects):
        typical = change[..., part].norm(dim=-1)[data.mask > 0].pow(2).mean().sqrt()
        model.still[i] = (_STILL * typical).clamp_min(1e-6)
    _fit_linear(model, data, change)
    model.scale.fill_(1.0)
    target, known = targets(model, data)
    n = len(model.scale)
    spread = (target.pow(2).sum(0) / known.sum(0).clamp_min(1)).sqrt()[:n].view(model.steps, -1)
    # A number that hardly differs from the linear mean must not become a large one.
    floor = (0.05 * spread.amax(0)).clamp_min(1e-5)
    model.scale.copy_(torch.maximum(spread, floor).flatten())


def _fit_linear(model: StateWorldModel, data: Windows, change: Tensor) -> None:
    """Ridge regression of each step's change; of an object's, where it is driven."""
    cond = model.condition(data.obs, data.actions)
    driven = model.driven(model.events(change, cond))
    cond = torch.cat([cond.double(), torch.ones(len(cond), 1, dtype=torch.float64)], 1)
    robot = slice(0, model.spec.proprio_dim)
    linear = torch.zeros(cond.shape[1], model.steps, model.spec.state_dim)
    for k in range(model.steps):
        seen = data.mask[:, k] > 0
        rows = [seen, *(seen & driven[:, k, i] for i in range(len(model.objects)))]
        for part, where in zip([robot, *model.objects], rows, strict=True):
            x, y = cond[where], change[where][:, k, part].double()
            gram = x.T @ x + _RIDGE * max(1, len(x)) * torch.eye(x.shape[1], dtype=torch.float64)
            linear[:, k, part] = torch.linalg.solve(gram, x.T @ y).float()
    model.linear.copy_(linear.flatten(1))


def targets(model: StateWorldModel, data: Windows) -> tuple[Tensor, Tensor]:
    """What the regressors learn, (M, k*D + k*F), and a mask of where it is known."""
    cond = model.condition(data.obs, data.actions)
    target, known = model.encode(data.future - data.obs[:, -1:], cond)
    n, k = len(model.scale), model.steps
    seen = [data.mask.repeat_interleave(x, 1) for x in (n // k, (target.shape[1] - n) // k)]
    known = known * torch.cat(seen, 1)
    return target * known, known


def folds(data: Windows, members: int) -> Tensor:
    """(M,) which member must not see a window; none of them if there is only one."""
    return data.episode % members if members > 1 else torch.full_like(data.episode, -1)


@torch.no_grad()
def fit_errors(model: StateWorldModel, data: Windows) -> tuple[Tensor, Tensor]:
    """The coordinates in which errors are sampled: their principal components.

    The error of a window is that of the member that has not seen its episode.

    Returns:
        Latents (M, latent) of unit variance and the condition (M, C) they depend on: what the denoiser
        learns.
    """
    target, known = targets(model, data)
    guess = model.guess(data.obs, data.actions)
    unseen = folds(data, len(guess.members)).clamp_min(0)
    error = (target - guess.members[unseen, torch.arange(len(data))]) * known
    n = len(model.scale)
    weight = torch.full_like(error[0], _FLAG_WEIGHT)
    weight[:n] = model.scale / model.state_std.repeat(model.steps)
    error = (error * weight).double()
    # The largest eigenvalues come last.
    axes = torch.linalg.eigh(error.T @ error).eigenvectors[:, -model.latent :].flip(1)
    latent = error @ axes
    size = latent.pow(2).mean(0).sqrt().clamp_min(1e-9)
    model.basis.copy_((axes * size).T / weight)
    model.usual_spread.copy_(guess.spread.median().clamp_min(1e-9))
    return (latent / size).float(), model.denoiser_condition(guess)


@torch.no_grad()
def calibrate(model: StateWorldModel, data: Windows, seed: int) -> dict[str, float]:
    """Sets the scale of doubt so that 1 is its 99th percentile on held-out data; measures errors.

    Args:
        model: trained.
        data: held-out windows of whole chunks.
        seed: of the sampler's noise.

    Returns:
        Root mean square error of the last state per field in physical units, and the rank
        correlation of doubt with error.
    """
    rng = torch.Generator().manual_seed(seed)
    model.doubt_scale.fill_(1.0)
    noise = torch.randn(data.future.shape, generator=rng)
    states, _, doubt = model.predict(data.obs, data.actions, noise)
    model.doubt_scale.copy_(torch.quantile(doubt, 0.99).clamp_min(1e-6))
    report = {"doubt_error_spearman": rank_correlation(doubt, chunk_error(model, states, data))}
    gap = (states - data.future)[data.mask[:, -1] > 0, -1]
    for field in model.spec.state:
        own = gap[:, model.spec.slice_of(field.name)]
        report[f"rmse.{field.name}"] = float(own.pow(2).sum(-1).mean().sqrt())
    return report


def chunk_error(model: StateWorldModel, states: Tensor, data: Windows) -> Tensor:
    """(M,) root mean square error of whole chunks, in units of each number's spread."""
    gap = (states - data.future) * data.mask[..., None] / model.state_std
    return (gap.pow(2).sum((-1, -2)) / data.mask.sum(-1)).sqrt()


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's; 0 if one of them does not vary."""
    if len(a) < 2 or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return 0.0
    return float(np.corrcoef(rankdata(a.numpy()), rankdata(b.numpy()))[0, 1])
