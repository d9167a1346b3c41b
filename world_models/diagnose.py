"""Says how far a world model can be trusted, on real episodes that it was not trained with.

    replay      recorded actions, imagined from the recorded start: do failures fail and successes succeed?
    open_loop   error against the number of chunks imagined, beside "nothing changes" and the linear mean
    onset       does it see a failure begin? Beside the nearest neighbours in the same data
    success     the success head's verdict on imagined states, against what really happened
    doubt       does doubt rank the true error, whoever acted? How large is that from low doubt to high?
    action      how much worse the prediction becomes with the actions of another window

No number here replaces a real evaluation: replay agrees on what was recorded, a policy goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.stats import rankdata
from torch import Generator, Tensor

from robopolicy.errors import BadInput
from robopolicy.spec import Spec
from robopolicy.stats import wilson
from robopolicy.types import Episode
from world_models.features import Geometry
from world_models.state import StateWorldModel
from world_models.statistics import chunk_error, rank_correlation
from world_models.windows import Windows, windows

_DRAWS = 5  # imagined replays of each episode; their majority counts
_NEIGHBOURS = 10
_LARGEST = 4000  # windows; more change no figure
_DOUBT_BINS = 5
_ONSET = 0.5  # rise of the share of failing neighbours within one chunk

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(B, T, D) observations, (B, K, A) actions and (B, K, D) noise to the next states (B, K, D)."""


def diagnose(world: StateWorldModel, episodes: Sequence[Episode], seed: int) -> dict[str, Any]:
    """Compares `world` with real `episodes`; see this module.

    Args:
        world: frozen world model.
        episodes: real ones, unseen in training, successes and failures.
        seed: of the sampler's noise and of the choice of windows.

    Raises:
        BadInput: if there are not both successes and failures.
    """
    won = np.array([e.success for e in episodes])
    if won.all() or not won.any():
        raise BadInput("episodes", "successes and failures", f"{won.sum()} successes of {len(won)}")
    generator, sources = Generator().manual_seed(seed), np.array([e.source for e in episodes])
    data = windows([e.until_success() for e in episodes], world.spec)
    if len(data) > _LARGEST:
        data = data[torch.randperm(len(data), generator=generator)[:_LARGEST].sort().values]
    noise = torch.randn(data.future.shape, generator=generator)
    states, success, doubt = world.predict(data.obs, data.actions, noise)
    return {
        "episodes": len(won),
        "replay": _replay(world, episodes, generator),
        "open_loop": _open_loop(world, episodes, generator),
        "onset": _onset(world, episodes, generator),
        "success": _confusion(success, data),
        "doubt": _doubt(doubt, chunk_error(world, states, data), sources[data.episode.numpy()]),
        "action": _action(world, states, data, noise, generator),
    }


def imagine(world: StateWorldModel, step: Step, episodes: Sequence[Episode], generator: Generator) -> Tensor:
    """(N, C * K, D) states that `step` makes of the recorded actions of N episodes, chunk by chunk.

    After its last recorded action an episode repeats it.
    """
    spec = world.spec
    chunks = -(-max(e.length for e in episodes) // spec.chunk) + 1
    actions = np.stack([_padded(e.actions, chunks * spec.chunk) for e in episodes])
    obs = _starts(spec, episodes)
    states = []
    for part in torch.from_numpy(actions).split(spec.chunk, 1):
        states.append(step(obs, part, torch.randn(len(obs), spec.chunk, spec.state_dim, generator=generator)))
        obs = torch.cat([obs, states[-1]], 1)[:, -spec.obs_steps :]
    return torch.cat(states, 1)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    return rows[np.minimum(np.arange(length), len(rows) - 1)]


def _starts(spec: Spec, episodes: Sequence[Episode]) -> Tensor:
    return torch.from_numpy(np.stack([np.repeat(e.states[:1], spec.obs_steps, 0) for e in episodes]))


def _replay(world: StateWorldModel, episodes: Sequence[Episode], generator: Generator) -> dict[str, Any]:
    """One chunk of grace: an imagined success may come a little later than the recorded one."""
    ended = [e.until_success() for e in episodes]
    last = torch.tensor([e.length for e in ended]) + world.spec.chunk * torch.tensor(
        [e.success for e in ended]
    )
    votes = torch.zeros(len(ended))
    for _ in range(_DRAWS):
        states = imagine(world, _sampler(world), ended, generator)
        seen = torch.arange(states.shape[1]) < last[:, None]
        votes += ((world.success_logit(states) > 0) & seen).any(-1)
    imagined = (votes > _DRAWS / 2).numpy()
    won = np.array([e.success for e in ended])
    return {
        "failures_as_failures": wilson(int((~imagined & ~won).sum()), int((~won).sum())).to_dict(),
        "successes_as_successes": wilson(int((imagined & won).sum()), int(won.sum())).to_dict(),
    }


def _sampler(world: StateWorldModel) -> Step:
    return lambda obs, actions, noise: world.predict(obs, actions, noise).states


def _open_loop(world: StateWorldModel, episodes: Sequence[Episode], generator: Generator) -> dict[str, Any]:
    """Median error per field, in its unit, after 1, 2, ... chunks."""
    ended = [e.until_success() for e in episodes]
    k = world.spec.chunk
    steps: dict[str, Step] = {
        "model": _sampler(world),
        "no change": lambda obs, actions, noise: obs[:, -1:].expand(-1, k, -1),
        "linear": lambda obs, actions, noise: world.predict_linear(obs, actions),
    }
    length = np.array([e.length for e in ended])
    chunks = int(np.median(length)) // k
    table: dict[str, Any] = {name: {f.name: [] for f in world.spec.state} for name in steps}
    for name, step in steps.items():
        states = imagine(world, step, ended, generator).numpy()
        for chunk in range(1, chunks + 1):
            rows = np.flatnonzero(length >= chunk * k)
            real = np.stack([ended[i].states[chunk * k] for i in rows])
            error = states[rows, chunk * k - 1] - real
            for f in world.spec.state:
                own = error[:, world.spec.slice_of(f.name)]
                table[name][f.name].append(float(np.median(np.linalg.norm(own, axis=-1))))
    return {"chunks": list(range(1, chunks + 1)), "median_error": table}


def _onset(world: StateWorldModel, episodes: Sequence[Episode], generator: Generator) -> dict[str, Any]:
    """Can the model tell the chunks in which a failure begins from the others?

    The risk of a state is the share of failures among the nearest states of other episodes. Where it rises by
    `_ONSET` or more within a chunk, a failure has begun. The model is asked for that rise from the state
    before and the real actions; its peer is the mean rise of the nearest windows of other episodes.
    """
    ended = [e.until_success() for e in episodes]
    data = windows(ended, world.spec)
    whole = data[(data.mask[:, -1] > 0).nonzero()[:, 0]]
    if len(whole) > _LARGEST:
        whole = whole[torch.randperm(len(whole), generator=generator)[:_LARGEST].sort().values]
    failed = np.array([not e.success for e in ended])[whole.episode.numpy()]

    def place(states: Tensor) -> np.ndarray:
        return world.success_inputs(states).numpy()

    before, after = place(whole.obs[:, -1]), place(whole.future[:, -1])
    owner = whole.episode.numpy()
    tree = _Others(before, owner)
    risk = tree.mean(before, owner, failed)
    rise = tree.mean(after, owner, failed) - risk
    onset = rise >= _ONSET
    if onset.all() or not onset.any():
        return {"onsets": int(onset.sum()), "windows": len(rise)}
    noise = torch.randn(whole.future.shape, generator=generator)
    imagined = world.predict(whole.obs, whole.actions, noise).states[:, -1]
    said = tree.mean(place(imagined), owner, failed) - risk
    features = Geometry(world.spec)(whole.obs, whole.actions, world.seen_low, world.seen_high).numpy()
    features = (features - features.mean(0)) / features.std(0).clip(1e-4)
    neighbours = _Others(features, owner).mean(features, owner, rise)
    return {
        "onsets": int(onset.sum()),
        "windows": len(rise),
        "auc": _auc(said, onset),
        "auc_of_neighbours": _auc(neighbours, onset),
    }


class _Others:
    """Nearest neighbours that belong to other episodes."""

    def __init__(self, points: np.ndarray, owner: np.ndarray):
        self.tree, self.owner = KDTree(points), owner
        # An episode's own windows are its nearest: room for all of them.
        self.room = min(len(points), _NEIGHBOURS + int(np.bincount(owner).max()))

    def mean(self, points: np.ndarray, owner: np.ndarray, value: np.ndarray) -> np.ndarray:
        """(B,) mean of `value` over the nearest `_NEIGHBOURS` of `points` (B, X)."""
        _, near = self.tree.query(points, self.room)
        other = self.owner[near] != owner[:, None]
        chosen = other & (other.cumsum(1) <= _NEIGHBOURS)
        return (value[near] * chosen).sum(1) / np.maximum(chosen.sum(1), 1)


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney)."""
    p, n = positive.sum(), (~positive).sum()
    return float((rankdata(score)[positive].sum() - p * (p + 1) / 2) / (p * n))


def _confusion(success: Tensor, data: Windows) -> dict[str, int]:
    seen = data.mask > 0
    said, real = success[seen] > 0.5, data.success[seen] > 0.5
    counts = {"true_positive": said & real, "false_positive": said & ~real}
    counts |= {"false_negative": ~said & real, "true_negative": ~said & ~real}
    return {name: int(which.sum()) for name, which in counts.items()}


def _doubt(doubt: Tensor, error: Tensor, source: np.ndarray) -> dict[str, Any]:
    """Doubt (M,) beside the true error (M,) of the same chunks; by the source (M,) if there are several.

    "error_by_doubt" is the median error of equally many chunks each, from those in least doubt to those in
    most.
    """
    bins = doubt.argsort(stable=True).tensor_split(min(_DOUBT_BINS, len(doubt)))
    found = {
        "spearman": rank_correlation(doubt, error),
        "above_1": float((doubt > 1).float().mean()),
        "error_by_doubt": [float(error[i].median()) for i in bins],
    }
    parts = {name: torch.from_numpy(source == name) for name in sorted({*source.tolist()})}
    if len(parts) > 1:
        found["by_source"] = {name: rank_correlation(doubt[own], error[own]) for name, own in parts.items()}
    return found


def _action(
    world: StateWorldModel, states: Tensor, data: Windows, noise: Tensor, generator: Generator
) -> dict[str, float]:
    """Median error with another window's actions, over that with the real ones; 1 if actions are ignored."""
    other = data.actions[torch.randperm(len(data), generator=generator)]
    confused = world.predict(data.obs, other, noise).states
    ratio = chunk_error(world, confused, data).median() / chunk_error(world, states, data).median()
    return {"error_ratio": float(ratio)}
