"""What each part of the world model is worth, on the data of a finished unit of the study.

Each variant is trained on the same episodes. It is asked for the success of the policies that the unit ranks,
all of them made with the full model; real evaluations and fresh real episodes say what is true. Then the
policy is steered in it as the unit's was in the full one, and judged in reality on the same held-out seeds.

    full                as shipped
    no failures         episodes that failed are left out
    no young policy     the rollouts of the policy in its youth are left out
    demonstrations      nothing but them
    ends at success     recorded episodes are cut at their first success
    no feature noise    features are learned from as they are
    no contact share    windows near contact are drawn no more often than others
    one regressor       no ensemble: no doubt, and no error that was not trained on
    gaussian ensemble   what the regressors leave open is normal, mean and spread by a like network
    no errors           what they leave open is left out
    chunk at once       all steps of a chunk in one prediction
    no coasting         what moves freely is predicted by the regressors too
    no carrying         what the hand holds is predicted by the regressors too
    robot tells success the success head may use the robot's numbers at once
    success from all    the success head may use every number of the state

and with what was tried and is not part of the model:

    own predictions     half of the windows begin where the regressor itself says that the one before ended
    retrieval           near contact, half of the guess is what followed the five nearest recorded windows
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.truth.extras import judged, write_extra
from benchmarks.truth.unit import Unit, ranked, rate_of, rollouts, study
from robopolicy.checkpoint import is_sealed, read_json, write_json
from robopolicy.cli.chain import YOUTH
from robopolicy.cli.judge import TRUSTED
from robopolicy.config import STEER_PRESETS, WORLD_PRESETS, WorldConfig
from robopolicy.data.episodes import load_episodes
from robopolicy.evaluate import evaluate
from robopolicy.policies.load import load_policy
from robopolicy.protocols import ChunkEnv, Policy
from robopolicy.seeding import episode_seed, torch_seed
from robopolicy.steering.load import load_steerer
from robopolicy.steering.steer import imagined_success, steer, trusted_doubt
from robopolicy.train import fit, seeded_init
from robopolicy.types import Episode
from world_models.diagnose import diagnose
from world_models.imagined_env import ImaginedEnv
from world_models.learners import ErrorLearner, MemberLearner
from world_models.load import freeze
from world_models.state import Guess, StateWorldModel
from world_models.statistics import calibrate, fit_statistics, targets
from world_models.success import fit_success
from world_models.windows import Windows, split, windows

CHANGES: dict[str, dict[str, Any]] = {
    "full": {},
    "no failures": {},
    "no young policy": {},
    "demonstrations": {},
    "ends at success": {},
    "no feature noise": {"feature_noise": 0.0},
    "no contact share": {"contact_share": 0.0},
    "one regressor": {"members": 1},
    "gaussian ensemble": {"residual": "gaussian"},
    "no errors": {"residual": "none"},
    "chunk at once": {"stride": 1000},
    "no coasting": {"coast": 0.0},
    "no carrying": {"carry": 0.0},
    "robot tells success": {"objects_first": False},
    "success from all": {"success_sparsity": 0.0},
    "own predictions": {},
    "retrieval": {},
}
YOUNG_DATA = tuple(f"rollouts-young-{percent}" for percent in YOUTH)
DATA = ("demos", "rollouts-prior", "rollouts-uniform", "rollouts-repeat", *YOUNG_DATA, "random")
FRESH = ("rollouts-fresh", "rollouts-refreshed")
_EPISODES = 256
_REIMAGINED = 250  # updates between two looks at where the regressor's own predictions end
_NEIGHBOURS = 5


def write_worlds(unit: Unit, folder: Path) -> None:
    """Trains, asks and steers in every variant, and writes what came out; goes on where it stopped."""
    study(unit)
    found = {}
    for name in CHANGES:
        part = unit.folder / "worlds" / f"{name.replace(' ', '-')}.json"
        if not part.is_file():
            write_json(part, _variant(unit, name))
        found[name] = read_json(part)
    real = {label: rate_of(outcomes) for label, outcomes in ranked(unit.folder).items()}
    write_extra(unit, folder, {"real": real, "variants": found})


def chosen(name: str, episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes that a variant learns from."""
    if name == "no failures":
        return [e for e in episodes if e.success]
    if name == "demonstrations":
        return [e for e in episodes if e.source == "expert"]
    if name == "ends at success":
        return [e.until_success() for e in episodes]
    return list(episodes)


def _variant(unit: Unit, name: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    run, seed = unit.folder, unit.seed
    config = dataclasses.replace(WORLD_PRESETS[unit.preset], **CHANGES[name])
    folders = [run / f for f in DATA if name != "no young policy" or f not in YOUNG_DATA]
    train, held_out = split(load_episodes(folders), config.held_out, seed)
    policy = load_policy(run / "policy")
    model = freeze(fitted(chosen(name, train), config, policy.spec, seed, name))
    report = calibrate(model, windows(held_out, policy.spec), seed)
    starts = np.stack([np.repeat(e.states[:1], policy.spec.obs_steps, 0) for e in train])
    seeds = [episode_seed(seed, "imagined", i) for i in range(_EPISODES)]
    exam = (policy, _EPISODES, seed)
    limit = trusted_doubt(cast(Any, ImaginedEnv(model, starts, _EPISODES)), *exam, TRUSTED)
    env = cast(ChunkEnv, ImaginedEnv(model, starts, _EPISODES, limit))
    imagined = {}
    for label in ranked(run):
        own = label.startswith("policy")
        acting = load_policy(run / label, policy.spec) if own else policy
        steerer = None if own else load_steerer(run / label, policy)
        imagined[label] = evaluate(env, acting, steerer, seeds, f"{name}: {label}").rate.to_dict()
    found = diagnose(model, load_episodes([run / f for f in FRESH]), seed)
    steered, hoped = _steered(unit, name, model, starts, policy)
    return {
        "imagined": imagined,
        "steered": {"real": steered, "imagined": hoped},
        "replay": found["replay"],
        "doubt_spearman": found["doubt"]["spearman"],
        "onset": found["onset"],
        "held_out": report,
    }


def _steered(
    unit: Unit, name: str, model: StateWorldModel, starts: np.ndarray, policy: Policy
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Real success of the policy steered in `model`, and what `model` thought of it."""
    config, seed, out = STEER_PRESETS[unit.preset], unit.seed, unit.folder / "worlds" / name.replace(" ", "-")
    episodes = load_episodes(list(rollouts(unit)))

    def imagination(envs: int, limit: float) -> Any:
        return ImaginedEnv(model, starts, envs, limit)

    limit = trusted_doubt(
        imagination(_EPISODES, float("inf")), policy, config.eval_episodes, seed, config.trust
    )
    validate = imagined_success(imagination(_EPISODES, limit), policy, config.eval_episodes, seed)
    if not is_sealed(out):
        steer(policy, lambda n: imagination(n, limit), episodes, out, config, seed, validate)
    hoped = validate(load_steerer(out, policy)).to_dict()
    return judged(unit, {name: out}, {}, f"worlds-real-{out.name}")[name], hoped


class _OwnPredictions(MemberLearner):
    """Trains on where imagination gets to as well (self-conditioning, as the longer segments of DIAMOND)."""

    def __init__(self, model: StateWorldModel, member: int, data: Windows, config: WorldConfig):
        super().__init__(model, member, data, config)
        self.model, self.data = model, data
        # Windows of an episode follow each other, one per step.
        k = model.steps
        self.after = torch.nonzero(data.episode[k:] == data.episode[:-k])[:, 0] + k
        self.recorded = self.cond.clone()

    def step(self, index: int, generator: torch.Generator) -> dict[str, float]:
        if index and index % _REIMAGINED == 0:
            self._imagine(self.after[index // _REIMAGINED % 2 :: 2])
        return super().step(index, generator)

    @torch.no_grad()
    def _imagine(self, rows: Tensor) -> None:
        before, cond = self.data[rows - self.model.steps], self.recorded[rows - self.model.steps]
        ended = before.obs[:, -1:] + self.model.decode(self.regressor(cond), cond)
        obs = torch.cat([before.obs, ended], 1)[:, -before.obs.shape[1] :]
        own = dataclasses.replace(self.data[rows], obs=obs)
        self.cond[rows] = self.model.condition(own.obs, own.actions)
        self.target[rows], self.known[rows] = targets(self.model, own)


class _Retrieving(StateWorldModel):
    """Asks its nearest recorded windows too."""

    bank: tuple[Tensor, Tensor] | None = None

    def guess(self, obs: Tensor, actions: Tensor) -> Guess:
        guess = super().guess(obs, actions)
        near = self.geometry.contact(obs)
        if self.bank is None or not near.any():
            return guess
        cond, target = self.bank
        far, which = torch.cdist(guess.cond[near], cond).topk(_NEIGHBOURS, largest=False)
        weight = 1 / far.clamp_min(1e-6)
        said = (target[which] * (weight / weight.sum(1, keepdim=True))[..., None]).sum(1)
        mean = guess.mean.clone()
        mean[near] = 0.5 * (mean[near] + said)
        return guess._replace(mean=mean)


def fitted(episodes: list[Episode], config: WorldConfig, spec: Any, seed: int, label: str) -> StateWorldModel:
    """As `world_models.train.train_world` does it, but in memory and without its checks."""
    with seeded_init(torch_seed(seed, "world-init")):
        model = (_Retrieving if label == "retrieval" else StateWorldModel)(spec, config)
    data = windows(episodes, spec, model.steps)
    fit_statistics(model, data)
    for i, member in enumerate(model.members):
        learner = (_OwnPredictions if label == "own predictions" else MemberLearner)(model, i, data, config)
        fit(learner, config.steps, torch_seed(seed, "member", i), label, quiet=True)
        member.load_state_dict(learner.average)
    errors = ErrorLearner(model, data, config)
    if config.residual != "none":
        fit(errors, config.error_steps, torch_seed(seed, "errors"), label, quiet=True)
        model.denoiser.load_state_dict(errors.average)
    fit_success(model, data, torch_seed(seed, "success"), quiet=True)
    if isinstance(model, _Retrieving):
        near = model.geometry.contact(data.obs)
        model.bank = model.condition(data.obs, data.actions)[near], targets(model, data)[0][near]
    return model
