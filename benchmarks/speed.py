"""Imagined steps per second against plain robosuite's, on the same cores, in one run.

    python -m benchmarks.speed

All sides use the same number of processes, one thread each, and act with the same policy. Ours is the same
simulator with the control step of `sim.control`. Speed does not depend on how well a network is trained, so
the networks are of the `quick` preset, untrained.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from robopolicy.checkpoint import write_json
from robopolicy.config import POLICY_PRESETS, WORLD_PRESETS
from robopolicy.data.windows import PolicyWindows
from robopolicy.evaluate import evaluate
from robopolicy.policies.train import new_policy
from robopolicy.protocols import ChunkEnv
from robopolicy.results import hardware, versions
from robopolicy.seeding import episode_seed, stream
from robopolicy.types import Episode
from sim.robosuite_env import LiftEnv
from sim.tasks import LIFT, TASKS
from sim.vector import SimVectorEnv
from world_models.imagined_env import ImaginedEnv
from world_models.state import StateWorldModel
from world_models.train import fit_statistics, windows

RESULTS = Path(__file__).parent / "results" / "speed.json"
_BATCHES = (64, 256, 512, 1024)
_CHUNKS = 20


class PlainLift(LiftEnv):
    """Lift with robosuite's own control step."""

    def reset(self, **given: Any) -> tuple[np.ndarray, dict[str, Any]]:
        started = super().reset(**given)
        self._control = self._env.step
        return started


PLAIN = dataclasses.replace(TASKS["lift"], make=lambda camera=0: PlainLift(LIFT, camera))


def main() -> None:
    """Measures both sides, prints the ratio and writes the results file."""
    torch.set_num_threads(1)
    processes = min(2, len(os.sched_getaffinity(0)))
    real, episodes = _real("benchmarks.speed:PLAIN", processes)
    ours, _ = _real(LIFT.task, processes)
    context = multiprocessing.get_context("spawn")
    imagined = {}
    for batch in _BATCHES:
        with context.Pool(processes) as pool:
            imagined[batch] = sum(pool.map(imagined_rate, [(episodes, batch)] * processes))
    best = max(imagined.values())
    result = {
        "schema": 1,
        "processes": processes,
        "real_steps_per_s": round(real, 1),
        "our_simulator_steps_per_s": round(ours, 1),
        "imagined_steps_per_s": {str(k): round(v, 1) for k, v in imagined.items()},
        "ratio": round(best / real, 1),
        "config": {"policy": "quick", "world": "quick", "chunks": _CHUNKS, "chunk": LIFT.chunk},
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(RESULTS, result)
    print(f"real {real:,.0f} steps/s (ours {ours:,.0f}), imagined {best:,.0f} steps/s: {best / real:.0f}x")


def _real(task: str, processes: int) -> tuple[float, list[Episode]]:
    """Steps per second of the simulator under the policy, and the episodes it ran."""
    policy = new_policy(LIFT, POLICY_PRESETS["quick"], PolicyWindows([made_up()], LIFT), 0)
    env = SimVectorEnv(task, processes)
    try:
        env.reset(seed=[episode_seed(0, "warmup", i) for i in range(processes)])
        seeds = [episode_seed(0, "warmup", 100 + i) for i in range(20)]
        # gymnasium writes `list[int | None]` for the seeds; a list of integers will do.
        done = evaluate(cast(ChunkEnv, env), policy, None, seeds, "real simulator")
    finally:
        env.close(terminate=True)
    return done.steps / done.seconds, done.episodes


def imagined_rate(job: tuple[list[Episode], int]) -> float:
    """Steps per second of imagination in this process, policy included."""
    episodes, batch = job
    torch.set_num_threads(1)
    policy = new_policy(LIFT, POLICY_PRESETS["quick"], PolicyWindows(episodes, LIFT), 0)
    world = StateWorldModel(LIFT, WORLD_PRESETS["quick"])
    fit_statistics(world, windows(episodes, LIFT, world.steps))
    starts = np.stack([np.repeat(e.states[:1], LIFT.obs_steps, 0) for e in episodes])
    env = ImaginedEnv(world, starts, batch)
    rng = stream(0, "bench")
    obs, _ = env.reset(seed=list(range(batch)))
    steps, began = 0, 0.0
    for chunk in range(_CHUNKS + 2):
        if chunk == 2:  # the first two warm up
            steps, began = 0, time.perf_counter()
        noise = rng.standard_normal((batch, LIFT.chunk, LIFT.action_dim), np.float32)
        actions, _ = policy.sample(torch.from_numpy(obs), {}, torch.from_numpy(noise))
        obs, _, won, cut, info = env.step(actions.numpy())
        steps += int(info["executed"].sum())
        ended = won | cut
        if ended.any():
            obs, _ = env.reset(seed=list(range(batch)), options={"reset_mask": ended})
    return steps / (time.perf_counter() - began)


def made_up() -> Episode:
    """A short episode inside the Spec's range, only to give an untrained policy its statistics."""
    rng = stream(0, "made-up")
    low, high = LIFT.state_range
    states = rng.uniform(low, high, (65, LIFT.state_dim)).astype(np.float32)
    low, high = LIFT.action_range
    actions = rng.uniform(low, high, (64, LIFT.action_dim)).astype(np.float32)
    none = np.zeros((0, LIFT.chunk, LIFT.action_dim), np.float32)
    return Episode(0, states, actions, False, False, True, none, np.zeros(0, int), np.zeros(0, np.float32))


if __name__ == "__main__":
    main()
