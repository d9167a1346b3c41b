"""How long a policy takes for one chunk, and how it should be executed because of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch

from robopolicy.errors import BadInput
from robopolicy.protocols import Policy, Steerer

_WARM_UP = 20


@dataclass(frozen=True)
class Execution:
    """When to ask for the next chunk, so that it is there when the current one ends.

    Attributes:
        late_steps: control steps that pass until a chunk is there.
        ask_after_steps: executed steps of a chunk after which the next one has to be asked for; 0 if even
            that is too late, and the robot has to wait.
        waiting_share: share of the time for which a robot stands still that asks only when a chunk has ended.
    """

    late_steps: int
    ask_after_steps: int
    waiting_share: float


def execution(latency_ms: float, fps: float, chunk: int) -> Execution:
    """How to execute chunks of `chunk` steps at `fps` Hz with a policy that takes `latency_ms`.

    Raises:
        BadInput: if a number is not positive.
    """
    for name, number in (("latency_ms", latency_ms), ("fps", fps), ("chunk", chunk)):
        if not 0 < number < float("inf"):
            raise BadInput(name, "a positive number", number)
    late = ceil(latency_ms * fps / 1000)
    waiting = latency_ms / (latency_ms + 1000 * chunk / fps)
    return Execution(late, max(0, chunk - late), waiting)


@torch.no_grad()
def chunk_ms(
    policy: Policy, steerer: Steerer, count: int, seed: int, clock: Callable[[], float] = time.perf_counter
) -> np.ndarray:
    """(count,) milliseconds of each of `count` chunks in a row, at batch 1.

    Observations are drawn from the Spec's range: how long it takes does not depend on what is seen.

    Args:
        policy: what acts.
        steerer: what chooses its noise.
        count: chunks that are timed, after some that are not.
        seed: of observations and noise.
        clock: seconds.
    """
    spec, rng = policy.spec, np.random.default_rng(seed)
    low, high = spec.state_range
    carry, times = policy.initial([seed]), np.zeros(_WARM_UP + count)
    for i in range(len(times)):
        obs = torch.from_numpy(rng.uniform(low, high, (1, spec.obs_steps, len(low))).astype(np.float32))
        prior = torch.from_numpy(rng.standard_normal((1, spec.chunk, spec.action_dim), np.float32))
        began = clock()
        _, carry = policy.sample(obs, carry, steerer.noise(obs, prior, carry))
        times[i] = 1000 * (clock() - began)
    return times[_WARM_UP:]
