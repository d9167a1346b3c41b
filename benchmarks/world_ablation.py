"""What each part of the world model is worth, on the data of a finished unit of the study.

    python -m benchmarks.world_ablation --run runs/truth/push-34

Each variant is trained on the same episodes and asked for the success of the policies that the unit ranks,
all of them made with the full model; real evaluations and fresh real episodes say what is true.

    full                as shipped
    no failures         episodes that failed are left out
    no young policy     the rollouts of the policy in its youth are left out
    demonstrations      nothing but them
    ends at success     recorded episodes are cut at their first success
    no feature noise    features are learned from as they are
    one regressor       no ensemble (and no error that was not trained on)
    gaussian errors     what the regressors leave open is drawn without looking at where it happens
    no errors           what they leave open is left out: the same size and data without diffusion
    chunk at once       all steps of a chunk in one prediction
    success from all    the success head may use every number of the state
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.truth.unit import ranked, rate_of
from robopolicy.checkpoint import read_json, write_json
from robopolicy.config import WORLD_PRESETS, WorldConfig
from robopolicy.data.episodes import load_episodes
from robopolicy.evaluate import evaluate
from robopolicy.policies.load import load_policy
from robopolicy.results import RESULT, hardware, versions
from robopolicy.seeding import episode_seed, torch_seed
from robopolicy.steering.load import load_steerer
from robopolicy.train import fit, seeded_init
from robopolicy.types import Episode
from world_models.diagnose import diagnose
from world_models.imagined_env import ImaginedEnv
from world_models.learners import ErrorLearner, MemberLearner
from world_models.load import freeze
from world_models.state import StateWorldModel
from world_models.statistics import calibrate, fit_statistics
from world_models.train import success_learner
from world_models.windows import split, windows

RESULTS = Path(__file__).parent / "results"
CHANGES: dict[str, dict[str, Any]] = {
    "full": {},
    "no failures": {},
    "no young policy": {},
    "demonstrations": {},
    "ends at success": {},
    "no feature noise": {"feature_noise": 0.0},
    "one regressor": {"members": 1},
    "gaussian errors": {"residual": "gaussian"},
    "no errors": {"residual": "none"},
    "chunk at once": {"stride": 1000},
    "success from all": {"success_sparsity": 0.0},
}
DATA = ("demos", "rollouts-prior", "rollouts-uniform", "rollouts-repeat", "rollouts-young", "random")
FRESH = ("rollouts-fresh", "rollouts-refreshed")
_EPISODES = 256


def main() -> None:
    """Trains every variant, several at a time, and writes one results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished unit")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    demo = read_json(args.run / RESULT)
    jobs = [(args.run, name, demo["master_seed"], demo["preset"]) for name in CHANGES]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        rows = pool.starmap(_variant, jobs, chunksize=1)
    result = {
        "schema": 1,
        "task": demo["task"],
        "preset": demo["preset"],
        "master_seed": demo["master_seed"],
        "real": {label: rate_of(outcomes) for label, outcomes in ranked(args.run).items()},
        "variants": dict(zip(CHANGES, rows, strict=True)),
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(RESULTS / f"world-ablation-{demo['task']}-{demo['master_seed']}.json", result)


def chosen(name: str, episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes that a variant learns from."""
    if name == "no failures":
        return [e for e in episodes if e.success]
    if name == "demonstrations":
        return [e for e in episodes if e.source == "expert"]
    if name == "ends at success":
        return [e.until_success() for e in episodes]
    return list(episodes)


def _variant(run: Path, name: str, seed: int, preset: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    config = dataclasses.replace(WORLD_PRESETS[preset], **CHANGES[name])
    folders = [run / f for f in DATA if name != "no young policy" or f != "rollouts-young"]
    train, held_out = split(load_episodes(folders), config.held_out, seed)
    policy = load_policy(run / "policy")
    model = fitted(chosen(name, train), config, policy.spec, seed, name)
    report = calibrate(freeze(model), windows(held_out, policy.spec), seed)
    starts = np.stack([np.repeat(e.states[:1], policy.spec.obs_steps, 0) for e in train])
    env, seeds = (
        ImaginedEnv(model, starts, 256),
        [episode_seed(seed, "imagined", i) for i in range(_EPISODES)],
    )
    imagined = {}
    for label in ranked(run):
        own = label.startswith("policy")
        acting = load_policy(run / label, policy.spec) if own else policy
        steerer = None if own else load_steerer(run / label, policy)
        imagined[label] = evaluate(env, acting, steerer, seeds, f"{name}: {label}").rate.to_dict()
    found = diagnose(model, load_episodes([run / f for f in FRESH]), seed)
    return {
        "imagined": imagined,
        "replay": found["replay"],
        "doubt_spearman": found["doubt"]["spearman"],
        "onset": found["onset"],
        "held_out": report,
    }


def fitted(episodes: list[Episode], config: WorldConfig, spec: Any, seed: int, label: str) -> StateWorldModel:
    """As `world_models.train.train_world` does it, but in memory and without its checks."""
    with seeded_init(torch_seed(seed, "world-init")):
        model = StateWorldModel(spec, config)
    data = windows(episodes, spec, model.steps)
    fit_statistics(model, data)
    for i, member in enumerate(model.members):
        learner = MemberLearner(model, i, data, config)
        fit(learner, config.steps, torch_seed(seed, "member", i), label, quiet=True)
        member.load_state_dict(learner.average)
    errors = ErrorLearner(model, data, config)
    if config.residual == "diffusion":
        fit(errors, config.error_steps, torch_seed(seed, "errors"), label, quiet=True)
        model.denoiser.load_state_dict(errors.average)
    fit(success_learner(model, data), config.success_steps, torch_seed(seed, "success"), label, quiet=True)
    return model


if __name__ == "__main__":
    main()
