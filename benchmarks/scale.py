"""How time and memory grow, and whether it matters where the work is done.

    python -m benchmarks.scale

"same": one evaluation by local processes, by Ray with 1, 2 and 4 workers, and with a worker killed in the
middle; what it found out must be the same to the last bit. Curves: time and peak memory against the number of
episodes, imagined environments, demonstrations, and parameters, each in a process of its own; "growth" is the
exponent between the last two points (1: twice as much takes twice as long). "tasks": what an episode costs.

Each part is kept in the results file and not measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.policies.common import save
from benchmarks.speed import made_up
from robopolicy.checkpoint import read_json
from robopolicy.config import POLICY_PRESETS, WORLD_PRESETS, PolicyConfig
from robopolicy.data.windows import PolicyWindows
from robopolicy.policies.train import new_policy, train_policy
from robopolicy.results import RESULT, hardware, versions
from robopolicy.seeding import stream
from robopolicy.train import seeded_init
from sim.tasks import LIFT
from world_models.imagined_env import ImaginedEnv
from world_models.state import StateWorldModel
from world_models.statistics import fit_statistics
from world_models.windows import windows

RESULTS = Path(__file__).parent / "results" / "scale.json"
RUNS = Path("runs/scale")
TASK, SEED, EPISODES = "push", 51, 40
_PART, _STEPS, _IMAGINED = 25, 200, 5  # episodes of a dataset; updates; episodes imagined
COUNTS = {
    "episodes": (10, 20, 40, 80),
    "environments": (1, 4, 16, 64, 256),
    "demonstrations": (25, 50, 100, 200),
    "parameters": (64, 128, 256, 512),
}
WHERE = {
    "1 local process": "--processes 1",
    "2 local processes": "--processes 2",
    "Ray, 1 worker": "--backend ray --processes 1",
    "Ray, 2 workers": "--backend ray --processes 2",
    "Ray, 4 workers": "--backend ray --processes 4",
}
TASKS = ("count", "push", "lever-pull", "soccer", "lift", "stack", "door", "can")
# What differs from run to run of the same evaluation.
_MEASURED = ("seconds", "steps_per_s")


def main() -> None:
    """Measures what the results file lacks."""
    result = (
        read_json(RESULTS) if RESULTS.is_file() else {"schema": 1, "config": {"task": TASK, "seed": SEED}}
    )
    for name, measure in PARTS.items():
        if name not in result:
            result |= {name: measure(), "versions": versions(), "hardware": hardware()}
            save(RESULTS, result)
            print(name, result[name])


# --- the same wherever it is done


def same() -> dict[str, Any]:
    """Seconds and a fingerprint of one evaluation, by where it was done."""
    found = {where: _evaluated(where, flags, EPISODES) for where, flags in WHERE.items()}
    found |= {where: _evaluated(where, flags, EPISODES, victim) for where, (victim, flags) in KILLED.items()}
    return {"ways": found, "same": len({way["metrics"] for way in found.values()}) == 1}


def _demonstrations() -> list[Path]:
    """Datasets of `_PART` episodes each."""
    folders = [RUNS / f"demos-{i}" for i in range(max(COUNTS["demonstrations"]) // _PART)]
    for i, folder in enumerate(f for f in folders if not (f / RESULT).is_file()):
        how = f"--episodes {_PART} --first {i * _PART} --expert careful --where="
        _verb(f"collect --task {TASK} {how} --seed {SEED} --out {folder}")
    return folders


def _policy() -> Path:
    policy = RUNS / "policy"
    if not (policy / RESULT).is_file():
        demos = " ".join(map(str, _demonstrations()))
        _verb(f"train --dataset {demos} --preset tiny --steps 1000 --seed {SEED} --out {policy}")
    return policy


def _evaluated(
    name: str, flags: str, episodes: int, victim: Callable[[psutil.Process], bool] | None = None
) -> dict[str, Any]:
    out = RUNS / name.replace(",", "").replace(" ", "-")
    shutil.rmtree(out, ignore_errors=True)
    line = (
        f"evaluate --task {TASK} --policy {_policy()} --episodes {episodes} --seed {SEED} {flags} --out {out}"
    )
    killed = _killed_later(victim) if victim else None
    _verb(line)
    result = read_json(out / RESULT)
    rows = [{k: v for k, v in row.items() if k not in _MEASURED} for row in result["policies"]]
    text = json.dumps([rows, result["differences"]], sort_keys=True)
    found = {
        "metrics": hashlib.sha256(text.encode()).hexdigest()[:16],
        "success": {k: rows[0][k] for k in ("successes", "episodes", "rate", "low", "high")},
        "seconds": result["wall_clock_s"],
        "memory_mb": result["peak_memory_mb"],
    }
    return found | ({"killed": not killed.is_alive()} if killed else {})


def _killed_later(busy: Callable[[psutil.Process], bool]) -> threading.Thread:
    """Kills the first such process that has worked for a second."""

    def kill() -> None:
        while True:
            for process in psutil.process_iter():
                try:
                    if busy(process) and sum(process.cpu_times()[:2]) > 1:
                        process.kill()
                        return
                except psutil.Error:  # it has ended
                    continue
            time.sleep(0.05)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def _local_worker(process: psutil.Process) -> bool:
    """Whether it was forked from the server that local workers are forked from."""
    parent = process.parent()
    return parent is not None and "multiprocessing.forkserver" in " ".join(parent.cmdline())


def _ray_worker(process: psutil.Process) -> bool:
    return process.name().startswith("ray::_do")


KILLED = {
    "2 local processes, one killed": (_local_worker, "--processes 2"),
    "Ray, 2 workers, one killed": (_ray_worker, "--backend ray --processes 2"),
}


def _verb(line: str) -> None:
    subprocess.run([sys.executable, "-m", "robopolicy.cli", *line.split()], check=True)


# --- how time and memory grow


def episodes() -> dict[str, Any]:
    """An evaluation in one process against the number of its episodes."""
    counts = COUNTS["episodes"]
    done = [_evaluated(f"{n} episodes", "--processes 1", n) for n in counts]
    return curve(counts, [d["seconds"] for d in done], [d["memory_mb"] for d in done])


def environments() -> dict[str, Any]:
    """A chunk imagined in all environments at once, policy included."""
    return _curve("environments", _imagined)


def _imagined(envs: int) -> float:
    """Seconds of a chunk, the median of those of some episodes that never end by success."""
    torch.set_num_threads(1)
    with seeded_init(0):
        policy = new_policy(LIFT, POLICY_PRESETS["quick"], PolicyWindows([made_up()], LIFT), 0)
        world = StateWorldModel(LIFT, WORLD_PRESETS["quick"])
    fit_statistics(world, windows([made_up()], LIFT, world.steps))
    starts = np.repeat(made_up().states[None, :1], LIFT.obs_steps, 1)
    env, rng, seconds = ImaginedEnv(world, starts, envs, success_threshold=2.0), stream(SEED, "scale"), []
    for _ in range(_IMAGINED):
        obs, _ = env.reset(seed=list(range(envs)))
        for _ in range(LIFT.horizon // LIFT.chunk):
            noise = rng.standard_normal((envs, LIFT.chunk, LIFT.action_dim), np.float32)
            began = time.perf_counter()
            actions, _ = policy.sample(torch.from_numpy(obs), {}, torch.from_numpy(noise))
            obs, *_ = env.step(actions.numpy())
            seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def demonstrations() -> dict[str, Any]:
    """Reading demonstrations and `_STEPS` updates of a policy on them."""
    _demonstrations()
    return _curve("demonstrations", _trained_on)


def _trained_on(count: int) -> float:
    return _training(_demonstrations()[: count // _PART], POLICY_PRESETS["quick"])


def parameters() -> dict[str, Any]:
    """`_STEPS` updates against the width of the policy's network; the counts are of parameters."""
    _demonstrations()
    found = _curve("parameters", _trained_wide)
    sizes = [_parameters(width) for width in COUNTS["parameters"]]
    return curve(sizes, found["seconds"], found["memory_mb"])


def _trained_wide(width: int) -> float:
    return _training(_demonstrations()[:2], replace(POLICY_PRESETS["quick"], width=width))


def _parameters(width: int) -> int:
    data = PolicyWindows([made_up()], LIFT)
    made = new_policy(LIFT, replace(POLICY_PRESETS["quick"], width=width), data, 0)
    return sum(p.numel() for p in made.parameters())


def _training(folders: Sequence[Path], config: PolicyConfig) -> float:
    """Seconds of reading recorded episodes and of `_STEPS` updates."""
    torch.set_num_threads(1)
    out = RUNS / f"trained-{len(folders)}-{config.width}"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    train_policy(list(folders), out, replace(config, steps=_STEPS), SEED)
    return time.perf_counter() - began


def _curve(name: str, work: Callable[[int], float]) -> dict[str, Any]:
    """Seconds and peak memory of `work`, each count in a process of its own."""
    seconds, memory = [], []
    for count in COUNTS[name]:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            took, mb = pool.submit(_measured, work, count).result()
        seconds.append(took)
        memory.append(mb)
    return curve(COUNTS[name], seconds, memory)


def _measured(work: Callable[[int], float], count: int) -> tuple[float, float]:
    return work(count), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def curve(counts: Sequence[int], seconds: Sequence[float], memory: Sequence[float]) -> dict[str, Any]:
    """A curve with its growth: the exponent of the last two points."""

    def growth(values: Sequence[float]) -> float:
        return math.log(values[-1] / values[-2]) / math.log(counts[-1] / counts[-2])

    grown = {"seconds": growth(seconds), "memory_mb": growth(memory)}
    return {"counts": list(counts), "seconds": list(seconds), "memory_mb": list(memory), "growth": grown}


def tasks() -> dict[str, Any]:
    """What a demonstration costs: seconds and steps per episode of ten, by task."""
    found = {}
    for task in TASKS:
        out = RUNS / f"demos-{task}"
        if not (out / RESULT).is_file():
            _verb(f"collect --task {task} --episodes 10 --where= --seed {SEED} --processes 1 --out {out}")
        result = read_json(out / RESULT)
        found[task] = {"seconds": result["wall_clock_s"] / 10, "steps": result["steps"] / 10}
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "same": same,
    "episodes": episodes,
    "environments": environments,
    "demonstrations": demonstrations,
    "parameters": parameters,
    "tasks": tasks,
}

if __name__ == "__main__":
    main()
