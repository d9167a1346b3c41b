"""What three choices in the world model are worth, on the data of a finished demo.

    python -m benchmarks.world_ablation --run runs/demo

Each variant is trained on the same episodes with the same settings and asked for the base policy's
success; the demo's real evaluation says what is true.

    full              as shipped
    ends at success   recorded episodes are cut at their first success
    plain objects     objects are modelled as the robot is: linear mean and plain scale instead of sinh
    success from all  the success head may use every number of the state
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopolicy.checkpoint import read_json, write_json
from robopolicy.config import WORLD_PRESETS, WorldConfig
from robopolicy.data.episodes import load_episodes
from robopolicy.evaluate import evaluate
from robopolicy.policies.load import load_policy
from robopolicy.results import hardware, versions
from robopolicy.seeding import episode_seed, torch_seed
from robopolicy.train import fit, seeded_init
from world_models.imagined_env import ImaginedEnv
from world_models.load import freeze
from world_models.state import StateWorldModel
from world_models.train import MemberLearner, calibrate, fit_statistics, split, success_learner, windows

RESULTS = Path(__file__).parent / "results"
VARIANTS = ("full", "ends at success", "plain objects", "success from all")
_EPISODES = 512


def main() -> None:
    """Trains every variant, two at a time, and writes one results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished demo")
    run = parser.parse_args().run
    demo = read_json(run / "result.json")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = pool.starmap(_variant, [(run, name, demo["master_seed"], demo["preset"]) for name in VARIANTS])
    result = {
        "schema": 1,
        "task": demo["task"],
        "preset": demo["preset"],
        "master_seed": demo["master_seed"],
        "real": demo["base"]["real"],
        "imagined": dict(zip(VARIANTS, rows, strict=True)),
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(RESULTS / f"world-ablation-{demo['master_seed']}.json", result)
    print(
        "real", demo["base"]["real"]["rate"], {n: r["success"]["rate"] for n, r in result["imagined"].items()}
    )


def _variant(run: Path, name: str, seed: int, preset: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    config: WorldConfig = WORLD_PRESETS[preset]
    if name == "success from all":
        config = dataclasses.replace(config, success_sparsity=0.0)
    folders = ("demos", "rollouts-prior", "rollouts-uniform", "rollouts-repeat", "random")
    episodes = load_episodes([run / f for f in folders])
    if name == "ends at success":
        episodes = [e.until_success() for e in episodes]
    policy = load_policy(run / "policy")
    train, held_out = split(episodes, config.held_out, seed)
    data = windows(train, policy.spec)
    with seeded_init(torch_seed(seed, "world-init")):
        model = StateWorldModel(policy.spec, config)
    if name == "plain objects":
        model.is_object.fill_(False)
    fit_statistics(model, data)
    for i in range(config.members):
        learner = MemberLearner(model, i, data, config)
        fit(learner, config.steps, torch_seed(seed, "member", i), f"{name} {i + 1}", quiet=True)
        model.members[i].load_state_dict(learner.average)
    fit(success_learner(model, data), config.success_steps, torch_seed(seed, "success"), name, quiet=True)
    errors = calibrate(freeze(model), windows(held_out, policy.spec), seed)
    starts = np.stack([np.repeat(e.states[:1], policy.spec.obs_steps, 0) for e in train])
    seeds = [episode_seed(seed, "imagined", i) for i in range(_EPISODES)]
    done = evaluate(ImaginedEnv(model, starts, 256), policy, None, seeds, name)
    return {"success": done.rate.to_dict(), "held_out": errors}


if __name__ == "__main__":
    main()
