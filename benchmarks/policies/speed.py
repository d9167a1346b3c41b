"""Training and acting against LeRobot, on the same machine in one run.

    python -m benchmarks.policies.speed

Training: updates per second of `robopolicy train` and `lerobot-train`, the same network, batch and state
dataset, each as the user runs it. What both take to start is left out by timing a short and a long run;
LeRobot's is the fastest of several numbers of workers and threads. Its dataset holds only what it needs. With
pictures, the same again with the smaller network and batch of the preset `tiny`: 96 pixels square, drawn from
the state, recorded as videos; LeRobot decodes them as it can on this machine, ours once and for all (not
counted).

Acting: milliseconds per chunk at batch 1 of LeRobot's diffusion policy with its default settings and of ours
with the preset `quick`, taking turns; how long does not depend on what was learned. That ours is not worse
is shown by a smaller policy of LeRobot's, trained on the same demonstrations for as many updates (its default
has more parameters than can be trained here), at its own learning rate and at ours, on the same held-out
episodes. "over bare forward" is a chunk against as many calls of the network alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.datasets.dataset_tools import remove_feature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

from benchmarks.policies.common import SEEDS, held_out, save
from robopolicy.checkpoint import is_sealed, read_json
from robopolicy.cli.collect import Collect, collect
from robopolicy.cli.learn import Train, train
from robopolicy.config import POLICY_PRESETS, PolicyConfig
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.data.windows import PolicyWindows
from robopolicy.data.writer import EpisodeWriter
from robopolicy.policies.load import ChunkPolicy, load_policy
from robopolicy.policies.train import new_policy, save_policy
from robopolicy.results import hardware, versions
from robopolicy.spec import Camera, Spec
from sim.tasks import find_task

RESULTS = Path(__file__).parents[1] / "results" / "policies" / "speed.json"
RUNS = Path("runs/policy-speed")
TASK, SEED, DEMONSTRATIONS, EPISODES = "push", SEEDS[0], 150, 200
SHORT, LONG = 60, 300  # updates
OURS_LONG = 1500
_WAYS = [(workers, threads) for workers in (0, 2) for threads in ("1", "")]
_PIXELS = 96
_SMALL = ("--policy.down_dims=[64,128]", "--policy.horizon=16", "--policy.n_action_steps=8")


def main() -> None:
    """Measures what the results file lacks, each part by itself in one run."""
    torch.set_num_threads(1)
    demos = RUNS / "demos"
    collect(Collect(demos, TASK, DEMONSTRATIONS, expert="careful", where="", seed=SEED, processes=1))
    config = {"task": TASK, "seed": SEED, "demonstrations": DEMONSTRATIONS, "episodes": EPISODES}
    result = read_json(RESULTS) if RESULTS.is_file() else {"schema": 1, "config": config}
    for name, measure in PARTS.items():
        if name not in result:
            result[name] = {**measure(demos), "versions": versions(), "hardware": hardware()}
            save(RESULTS, result)
            print(name, result[name])


def _of_states(demos: Path) -> dict[str, Any]:
    return _training(demos, find_task(TASK).spec, "quick", SHORT, LONG, OURS_LONG)


def _of_pictures(demos: Path) -> dict[str, Any]:
    filmed = _filmed(demos)
    return _training(filmed, dataset_info(filmed)[0], "tiny", 4, 24, 100)


def _training(demos: Path, spec: Spec, preset: str, short: int, long: int, ours_long: int) -> dict[str, Any]:
    """Updates per second of both, and their ratio."""
    config, name = POLICY_PRESETS[preset], demos.name
    untrained = RUNS / f"untrained-{name}"
    if not untrained.is_dir():
        save_policy(new_policy(spec, config, PolicyWindows(load_episodes([demos]), spec), SEED), untrained)
    plain = _plain(demos)

    def ours(steps: int) -> None:
        out = RUNS / f"ours-{name}-{steps}-{time.monotonic_ns()}"
        flags = [f"--dataset={demos}", f"--preset={preset}", f"--steps={steps}", f"--out={out}"]
        _run(["robopolicy.cli", "train", *flags], "1")

    def theirs(workers: int, threads: str) -> Callable[[int], None]:
        def run(steps: int) -> None:
            flags = [f"--policy.path={untrained}", *_lerobot(plain, steps, config.batch_size, workers)]
            _run(["lerobot.scripts.lerobot_train", *flags], threads)

        return run

    rates = {
        f"{workers} workers, {threads or 'default'} threads": _rate(theirs(workers, threads), short, long)
        for workers, threads in _WAYS
    }
    own = _rate(ours, ours_long, 3 * ours_long)
    best = max(rates.values())
    return {"ours_per_s": own, "lerobot_per_s": rates, "ratio": own / best, "batch": config.batch_size}


def _filmed(demos: Path) -> Path:
    """The demonstrations with pictures: a disc for the hand, one for the object, seen from above."""
    filmed = RUNS / "filmed"
    if not is_sealed(filmed):
        spec, settings = dataset_info(demos)
        spec = replace(spec, cameras=(Camera("above", _PIXELS, _PIXELS),))
        with EpisodeWriter(filmed, spec, TASK, settings) as writer:
            for episode in load_episodes([demos]):
                if episode.seed not in writer.seeds_done:
                    frames = _drawn(episode.states[:-1], spec)
                    writer.add(replace(episode, pictures={"above": frames}))
    return filmed


def _drawn(states: np.ndarray, spec: Spec) -> np.ndarray:
    """(L, H, W, 3) uint8."""
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 1.0, _PIXELS)] * 2, indexing="ij"), -1)
    frames = np.full((len(states), _PIXELS, _PIXELS, 3), 40, np.uint8)
    for field, colour in (("object_pos", (200, 60, 40)), ("hand_pos", (60, 160, 220))):
        where = states[:, spec.slice_of(field)][:, None, None, :2]
        frames[np.linalg.norm(grid - where, axis=-1) < 0.06] = colour
    return frames


def _rate(run: Callable[[int], None], short: int, long: int) -> float:
    """Updates per second between a short and a long run."""
    times = []
    for steps in (short, long):
        began = time.perf_counter()
        run(steps)
        times.append(time.perf_counter() - began)
    return (long - short) / (times[1] - times[0])


def _plain(demos: Path) -> Path:
    """The demonstrations without the columns that LeRobot's policies have no use for."""
    plain = RUNS / f"plain-{demos.name}"
    if not plain.is_dir():
        dataset = LeRobotDataset(f"robopolicy/{TASK}", root=demos)
        unused = ["next.state", "policy_noise", "next.success", "next.done"]
        remove_feature(dataset, unused, output_dir=plain, repo_id=f"robopolicy/{TASK}")
    return plain


def _lerobot(dataset: Path, steps: int, batch: int, workers: int) -> list[str]:
    return [
        "--policy.discover_packages_path=robopolicy.policies.diffusion",
        "--policy.push_to_hub=false",
        f"--dataset.repo_id=robopolicy/{TASK}",
        f"--dataset.root={dataset}",
        f"--steps={steps}",
        f"--batch_size={batch}",
        f"--num_workers={workers}",
        f"--seed={SEED}",
        f"--output_dir={RUNS}/lerobot-{steps}-{time.monotonic_ns()}",
    ]


def _run(arguments: Sequence[str], threads: str) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    env.pop("OMP_NUM_THREADS", None)
    if threads:
        env["OMP_NUM_THREADS"] = threads
    subprocess.run([sys.executable, "-m", *arguments], env=env, check=True, capture_output=True)


def _acting(demos: Path) -> dict[str, Any]:
    """Milliseconds per chunk of both, in turns, and what the sampler adds to the network."""
    spec = find_task(TASK).spec
    data = PolicyWindows(load_episodes([demos]), spec)
    sizes = {OBS_STATE: spec.proprio_dim, OBS_ENV_STATE: spec.state_dim - spec.proprio_dim}
    kinds = {OBS_STATE: FeatureType.STATE, OBS_ENV_STATE: FeatureType.ENV}
    inputs = {k: PolicyFeature(kinds[k], (n,)) for k, n in sizes.items()}
    outputs = {ACTION: PolicyFeature(FeatureType.ACTION, (spec.action_dim,))}
    lerobot = DiffusionPolicy(
        DiffusionConfig(input_features=inputs, output_features=outputs, device="cpu")
    ).eval()
    batch = {k: torch.zeros(1, 2, n) for k, n in sizes.items()}
    ours = {kind: new_policy(spec, _config(kind), data, SEED).eval() for kind in ("quick", "beso", "full")}
    obs, noise = data.obs(torch.zeros(1, dtype=torch.long)), torch.zeros(1, spec.chunk, spec.action_dim)
    times: dict[str, list[float]] = {k: [] for k in ("lerobot", *ours, *(f"{k} bare" for k in ours))}
    with torch.no_grad():
        for _ in range(3):
            times["lerobot"].append(_ms(lambda: lerobot.diffusion.generate_actions(batch), 1))
            for kind, policy in ours.items():
                times[kind].append(_ms(lambda p=policy: p.sample(obs, {}, noise), 100))
                cond = policy.condition(obs)
                at = torch.ones(1, dtype=torch.float if kind == "beso" else torch.long)
                bare = _ms(lambda p=policy, c=cond, t=at: p.core.denoiser(noise, t, c), 300)
                times[f"{kind} bare"].append(bare * policy.core.config.num_inference_steps)
    ms = {k: float(np.median(v)) for k, v in times.items()}
    return {
        "ms": ms,
        "lerobot_parameters": sum(p.numel() for p in lerobot.parameters()),
        "ratio": {k: ms[k] / ms["lerobot"] for k in ours},
        "over_bare_forward": {k: ms[k] / ms[f"{k} bare"] for k in ours},
    }


def _config(kind: str) -> PolicyConfig:
    if kind == "beso":
        return replace(POLICY_PRESETS["quick"], process="beso", inference_steps=3)
    return POLICY_PRESETS[kind]


def _ms(work: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        work()
    return 1000 * (time.perf_counter() - began) / count


def _success(demos: Path) -> dict[str, Any]:
    """Success of ours and of a small diffusion policy of LeRobot's on the same held-out seeds."""
    found, policies = {}, {"lerobot": _lerobots("lerobot-small", demos)}
    for kind in ("diffusion", "beso"):
        train(Train((demos,), RUNS / kind, kind, seed=SEED))  # type: ignore[arg-type]
        policies[kind] = cast(ChunkPolicy, load_policy(RUNS / kind))
    for name, policy in policies.items():
        found[name] = held_out(policy, TASK, SEED, EPISODES, name).rate.to_dict()
    return found


def _success_at_our_rate(demos: Path) -> dict[str, Any]:
    """Success of LeRobot's if it learns at the rate at which ours does, ten times its default."""
    policy = _lerobots("lerobot-rate", demos, f"--policy.optimizer_lr={POLICY_PRESETS['quick'].lr}")
    return {"lerobot": held_out(policy, TASK, SEED, EPISODES, "lerobot").rate.to_dict()}


def _lerobots(name: str, demos: Path, *flags: str) -> ChunkPolicy:
    """LeRobot's diffusion policy, made small, as `lerobot-train` trains it."""
    config, out = POLICY_PRESETS["quick"], RUNS / name
    if not out.is_dir():
        given = _lerobot(_plain(demos), config.steps, config.batch_size, 0)[1:-1]
        given += ["--policy.type=diffusion", "--policy.noise_scheduler_type=DDIM", *_SMALL, *flags]
        _run(["lerobot.scripts.lerobot_train", *given, f"--output_dir={out}"], "1")
    (saved,) = (out / "checkpoints").glob(f"{config.steps:06d}/pretrained_model")
    return cast("ChunkPolicy", load_policy(saved, find_task(TASK).spec))


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "training": _of_states,
    "training_with_pictures": _of_pictures,
    "acting": _acting,
    "equal_success": _success,
    "equal_success_at_our_rate": _success_at_our_rate,
}

if __name__ == "__main__":
    main()
