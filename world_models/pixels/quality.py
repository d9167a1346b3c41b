"""How good imagined pictures are, on real episodes that nothing was trained with.

chunk       pictures at the end of one chunk, in decibels (PSNR) and SSIM, beside "nothing changes";
            the robot's own numbers; how much worse it is with the actions of another window
open_loop   the same after 1, 2, ... chunks of recorded actions
frechet     distance between imagined and real pictures in the numbers that the success head knows them
            by, as FVD has it (Unterthiner et al. 2018, arXiv 1812.01717), with an encoder trained here
success     the verdict on imagined pictures, against what really happened
replay      recorded episodes imagined from their start: do failures fail and successes succeed?
doubt       its rank correlation with the true error
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.nn import functional

from robopolicy.stats import wilson
from robopolicy.types import Episode
from world_models.pixels.model import PixelWorldModel
from world_models.pixels.windows import PixelWindows
from world_models.statistics import rank_correlation

_MOST, _AT_ONCE = 256, 32
_SIDE, _SIGMA = 7, 1.5  # of the window that SSIM looks through
_K1, _K2 = 0.01, 0.03


@torch.no_grad()
def quality(
    model: PixelWorldModel, episodes: Sequence[Episode], seed: int, calibrates: bool = False
) -> dict[str, Any]:
    """Measures a model on real `episodes` that it was not trained with; see this module.

    Args:
        model: trained.
        episodes: with the pictures of its cameras.
        seed: of the sampler's noise and of the choice of windows.
        calibrates: set the scale of its doubt so that 1 is the 99th percentile here.
    """
    generator = torch.Generator().manual_seed(seed)
    data = PixelWindows(episodes, model.seen_as, model.cameras, model.spec.chunk)
    batch = data[torch.randperm(len(data), generator=generator)[:_MOST]]
    noise = torch.randn(batch.future.shape, generator=generator)
    if calibrates:
        model.doubt_scale.fill_(1.0)
    states, verdict, doubt = _predicted(model, batch.obs, batch.actions, noise)
    if calibrates:
        model.doubt_scale.copy_(torch.quantile(doubt, 0.99).clamp_min(1e-6))
    last, real = states[:, -1], batch.future[:, -1]
    error = _error(model, last, real)
    others = _predicted(model, batch.obs, batch.actions.roll(1, 0), noise)[0]
    return {
        "windows": len(batch.obs),
        "chunk": {"model": _scores(model, last, real), "no_change": _scores(model, batch.obs[:, -1], real)},
        "action_error_ratio": float(_error(model, others[:, -1], real).mean() / error.mean()),
        "frechet": frechet(_known(model, last), _known(model, real)),
        "success": _confusion(verdict[:, -1] > 0.5, batch.success[:, -1] > 0),
        "doubt_error_spearman": rank_correlation(doubt, error),
        **_open_loop(model, episodes, generator),
    }


def _predicted(model: PixelWorldModel, *given: Tensor) -> tuple[Tensor, ...]:
    parts = [model.predict(*rows) for rows in zip(*(x.split(_AT_ONCE) for x in given), strict=True)]
    return tuple(torch.cat(x) for x in zip(*parts, strict=True))


def _error(model: PixelWorldModel, states: Tensor, real: Tensor) -> Tensor:
    """(B,) root mean square error of pictures."""
    return (model.split(states)[0] - model.split(real)[0]).pow(2).mean((-1, -2, -3)).sqrt()


def _scores(model: PixelWorldModel, states: Tensor, real: Tensor) -> dict[str, float]:
    shown, own = model.split(states)
    wanted, measured = model.split(real)
    field_error = {}
    for f in model.spec.proprio:
        part = model.spec.slice_of(f.name)
        field_error[f"rmse.{f.name}"] = float((own - measured)[:, part].pow(2).sum(-1).mean().sqrt())
    return {"psnr_db": psnr(shown, wanted), "ssim": ssim(shown, wanted), **field_error}


def psnr(shown: Tensor, wanted: Tensor) -> float:
    """Decibels, of pictures (B, C, H, W) from 0 to 1; 100 for equal ones."""
    return float(-10 * (shown - wanted).pow(2).mean().clamp_min(1e-10).log10())


def ssim(shown: Tensor, wanted: Tensor) -> float:
    """Structural similarity (Wang et al. 2004, eq. 13) of pictures (B, C, H, W); 1 for equal ones."""
    at = torch.arange(_SIDE) - _SIDE // 2
    line = torch.exp(-(at**2) / (2 * _SIGMA**2))
    window = torch.outer(line, line) / line.sum() ** 2

    def smooth(x: Tensor) -> Tensor:
        return functional.conv2d(x.flatten(0, 1)[:, None], window[None, None])

    a, b = smooth(shown), smooth(wanted)
    spread = smooth(shown**2) - a**2 + smooth(wanted**2) - b**2
    shared = smooth(shown * wanted) - a * b
    c1, c2 = _K1**2, _K2**2
    each = (2 * a * b + c1) * (2 * shared + c2) / ((a**2 + b**2 + c1) * (spread + c2))
    return float(each.mean())


def frechet(some: np.ndarray, others: np.ndarray) -> float:
    """Frechet distance between normal distributions fitted to rows (N, F) of numbers."""
    means = some.mean(0) - others.mean(0)
    a, b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (some, others))
    return float(means @ means + np.trace(a + b - 2 * np.real(sqrtm(a @ b))))


def _known(model: PixelWorldModel, states: Tensor) -> np.ndarray:
    """(B, F) what the success head knows of pictures."""
    views = model.split(states.to(model.device))[0].split(3, 1)
    known = [eye(v[:, None])[:, 0] for eye, v in zip(model.eyes, views, strict=True)]
    return torch.cat(known, 1).double().cpu().numpy()


def _confusion(said: Tensor, real: Tensor) -> dict[str, int]:
    cases = {"true_success": said & real, "false_success": said & ~real}
    cases |= {"true_failure": ~said & ~real, "false_failure": ~said & real}
    return {name: int(case.sum()) for name, case in cases.items()}


def _open_loop(
    model: PixelWorldModel, episodes: Sequence[Episode], generator: torch.Generator
) -> dict[str, Any]:
    """Whole episodes from their start; scores by the number of chunks, and how they ended."""
    k, k_past = model.spec.chunk, model.spec.obs_steps
    scores: list[tuple[list[Tensor], list[Tensor], list[Tensor]]] = []
    ended = {True: [0, 0], False: [0, 0]}  # as it really ended, of how many
    for e in (e.until_success() for e in episodes):
        data = PixelWindows([e], model.seen_as, model.cameras, 1) if e.length > 1 else None
        chunks = e.length // k
        if data is None or not chunks:
            continue
        real = data.states(torch.arange(e.length))
        obs, won = real[:1].repeat(k_past, 1)[None], False
        # One chunk of grace: an imagined success may come a little later than the recorded one.
        for chunk in range(chunks + 1 + bool(e.success)):
            rows = torch.from_numpy(np.minimum(chunk * k + np.arange(k), e.length - 1))
            actions = torch.from_numpy(e.actions).float()[rows][None]
            noise = torch.randn(1, k, model.spec.state_dim, generator=generator)
            states, success, _ = model.predict(obs, actions, noise)
            seen = e.length if not e.success else e.length + k
            won |= bool((success[0, : max(0, seen - chunk * k)] > 0.5).any())
            obs = torch.cat([obs, states], 1)[:, -k_past:]
            at = (chunk + 1) * k
            if at < e.length:
                if len(scores) <= chunk:
                    scores.append(([], [], []))
                for column, x in zip(scores[chunk], (states[:, -1], real[at][None], real[:1]), strict=True):
                    column.append(x)
        ended[e.success][0] += won == e.success
        ended[e.success][1] += 1
    joined = [[torch.cat(x) for x in row] for row in scores]
    names = {True: "successes_as_successes", False: "failures_as_failures"}
    return {
        "open_loop": [
            {"chunks": i + 1, "episodes": len(shown), "model": _scores(model, shown, real)}
            | {"no_change": _scores(model, before, real)}
            for i, (shown, real, before) in enumerate(joined)
        ],
        "replay": {names[k]: wilson(*v).to_dict() for k, v in ended.items() if v[1]},
    }
