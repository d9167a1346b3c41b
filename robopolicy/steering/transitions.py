"""Recorded episodes as transitions, one per chunk: of the noise that was chosen, or of the actions taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robopolicy.config import SteerConfig
from robopolicy.errors import BadInput
from robopolicy.protocols import Carry, Policy
from robopolicy.spec import Spec
from robopolicy.steering.actors import latent_size
from robopolicy.steering.imagination import Outcome, Prices, credit
from robopolicy.steering.replay import Batch
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.types import Episode


def recorded_transitions(
    episodes: Sequence[Episode], policy: Policy, steerer: NoiseSteerer, config: SteerConfig
) -> Batch:
    """The chunks of `episodes` that the steerer could have chosen, as transitions.

    A chunk is representable if its noise lies in the bound, is constant along the chunk where the
    steerer can only repeat, and makes this very policy do what was recorded: an expert's chunk, or
    another policy's, says nothing about this noise. Clipping noise into the bound instead would
    credit one noise with the outcome of another. What was recorded beyond the first success is left out.

    Args:
        episodes: recorded with this Spec.
        policy: the frozen policy.
        steerer: untrained; its bound, parameterisation and features count.
        config: reward, discount, tolerance.
    """
    spec, own = policy.spec, config.dsrl
    low, high = torch.from_numpy(spec.action_range)
    parts: list[list[Tensor]] = []
    whole = [e.until_success() for e in episodes]
    fitting = [e for e in whole if len(e.noise) and e.noise.shape[1:] == (spec.chunk, spec.action_dim)]
    for episode, (actions, carries) in zip(fitting, _replayed(policy, fitting), strict=True):
        starts = [int(s) for s in episode.chunk_starts]
        ends = [*starts[1:], episode.length]
        count = len(starts)
        fits = _representable(torch.from_numpy(episode.noise).float(), own.noise, own.bound)
        for c, (a, b) in enumerate(zip(starts, ends, strict=True)):
            executed = torch.from_numpy(episode.actions[a:b]).float()
            error = ((actions[c, : b - a] - executed).abs() / (high - low)).flatten()
            fits[c] &= bool((error <= own.prefill_tolerance).all())
        last = torch.arange(count) == count - 1
        outcome = Outcome(
            active=torch.ones(count, dtype=torch.bool),
            success=last & episode.success,
            terminated=last & episode.terminated,
            lost=last & (not episode.terminated and episode.reason in ("doubt", "diverged")),
            ended=last,
            doubt=torch.from_numpy(episode.doubt).float(),
        )
        reward, discount = credit(outcome, config)
        noise = torch.from_numpy(episode.noise).float()
        latent = (noise[:, 0] if own.noise == "repeat" else noise.flatten(1)) / own.bound
        before, after = (
            steerer.features(history(episode, at, spec.obs_steps), {k: v[c] for k, v in carries.items()})
            for at, c in ((starts, slice(count)), (ends, slice(1, count + 1)))
        )
        parts.append([x[fits] for x in (before, latent, reward, after, discount)])
    if not parts:
        f, m = steerer.features.size, latent_size(steerer.config, spec)
        return Batch(torch.zeros(0, f), torch.zeros(0, m), torch.zeros(0), torch.zeros(0, f), torch.zeros(0))
    return Batch(*(torch.cat(x) for x in zip(*parts, strict=True)))


def recorded_chunks(episodes: Sequence[Episode], spec: Spec, config: Prices) -> Batch:
    """Every K actions in a row, whoever took them, as transitions of the action-space decision process.

    A chunk may begin at any step, for what follows depends on what is seen and done, not on who does it.
    One that is cut short by a time limit says nothing and is left out. One that ends the episode for
    good counts; where the record ends with it, its last action stands for those that are missing.

    Args:
        episodes: recorded with this Spec, best with some steps after the first success.
        spec: of the task.
        config: discount.

    Returns:
        Observations (B, T*D) and actions (B, K*A) in physical units.
    """
    parts: list[list[Tensor]] = []
    for episode in episodes:
        whole, k = episode.until_success(), spec.chunk
        length, won = whole.length, bool(episode.achieved.any())
        starts = np.arange(length if whole.terminated else length - k + 1)
        if not len(starts):
            continue
        ends = np.minimum(starts + k, length)
        rows = np.minimum(starts[:, None] + np.arange(k), episode.length - 1)
        over = torch.from_numpy(whole.terminated & (starts + k >= length))
        before, after = (history(episode, at, spec.obs_steps).flatten(1) for at in (starts, ends))
        actions = torch.from_numpy(episode.actions[rows]).float().flatten(1)
        parts.append([before, actions, won * over.float(), after, config.gamma * (~over).float()])
    if not parts:
        raise BadInput("episodes", f"at least one of {spec.chunk} steps", "none")
    return Batch(*(torch.cat(x) for x in zip(*parts, strict=True)))


def _representable(noise: Tensor, kind: str, bound: float) -> Tensor:
    """(C,) whether each chunk's noise (C, K, A) is one the steerer could have chosen."""
    fits = (noise.abs() <= bound).flatten(1).all(1)
    return fits & (noise == noise[:, :1]).flatten(1).all(1) if kind == "repeat" else fits


def everywhere(episodes: Sequence[Episode], obs_steps: int) -> np.ndarray:
    """(M, T, D) what was seen before each action of `episodes`, up to their first success."""
    ended = [e.until_success() for e in episodes]
    return np.concatenate([history(e, range(e.length), obs_steps).numpy() for e in ended if e.length])


def history(episode: Episode, steps: Sequence[int] | np.ndarray, obs_steps: int) -> Tensor:
    """(C, T, D) what was observed at `steps`; the first state is repeated before the start."""
    index = np.asarray(steps)[:, None] + np.arange(1 - obs_steps, 1)
    return torch.from_numpy(episode.states[np.maximum(index, 0)]).float()


@torch.no_grad()
def _replayed(policy: Policy, episodes: Sequence[Episode]) -> list[tuple[Tensor, Carry]]:
    """Per episode (C, K, A) the actions the policy takes, given the recorded states and noise.

    Beside them its memory before each chunk and after the last, (C + 1, *).
    """
    if not episodes:
        return []
    carry: Carry = policy.initial([e.seed for e in episodes])
    chunks: list[Tensor] = []
    carries = [carry]
    for c in range(max(len(e.noise) for e in episodes)):
        # Shorter episodes repeat their last chunk; what comes of it is never read.
        at = [(e, min(c, len(e.noise) - 1)) for e in episodes]
        obs = [history(e, [int(e.chunk_starts[i])], policy.spec.obs_steps) for e, i in at]
        noise = np.stack([e.noise[i] for e, i in at])
        actions, carry = policy.sample(torch.cat(obs), carry, torch.from_numpy(noise).float())
        chunks.append(actions)
        carries.append(carry)
    whole = torch.stack(chunks, 1)
    memory = {k: torch.stack([one[k] for one in carries], 1) for k in carry}
    counts = [len(e.noise) for e in episodes]
    return [(whole[i, :n], {k: v[i, : n + 1] for k, v in memory.items()}) for i, n in enumerate(counts)]
