"""Trains a steerer in imagination and keeps the one whose imagined success is surest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn

from robopolicy.checkpoint import PROGRESS, folder_hash, is_sealed, remember, remembered, tensor_hash
from robopolicy.config import SteerConfig
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.protocols import ChunkEnv, Policy, Steerer
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import episode_seed, torch_seed
from robopolicy.stats import Rate, difference, wilson
from robopolicy.steering.best_of_n import BestOfN
from robopolicy.steering.dsrl import Dsrl
from robopolicy.steering.dsrl_na import DsrlNa
from robopolicy.steering.imagination import ImaginedEnv
from robopolicy.steering.parts import part
from robopolicy.steering.ppo import Ppo
from robopolicy.steering.steerer import NoiseSteerer, policy_hash, save_steerer
from robopolicy.steering.untrained import Untrained
from robopolicy.train import Learner, fit
from robopolicy.types import Episode


class SteeringLearner(Learner, Protocol):
    """A learner that holds the steerer it trains."""

    steerer: NoiseSteerer
    prefilled: int


LEARNERS: dict[str, Callable[..., SteeringLearner]] = {
    "dsrl": Dsrl,
    "dsrl-na": DsrlNa,
    "ppo": Ppo,
    "best-of-n": BestOfN,
    "none": Untrained,
    "uniform": Untrained,
}


class BestKeeper:
    """A learner that evaluates what another trains every `every` steps and keeps the best.

    Best is the highest lower end of the 95% Wilson interval; the earlier one wins a tie. The best
    weights and the learning curve are part of the state: a resumed run keeps the same ones.

    Args:
        learner: what trains.
        kept: the module it trains and that is judged: a steerer, or a policy.
        validate: imagined success of `kept`.
        every: steps between evaluations.
        steps: the last step is evaluated in any case.
    """

    def __init__(
        self, learner: Learner, kept: nn.Module, validate: Callable[[Any], Rate], every: int, steps: int
    ):
        self.learner, self.kept, self.validate = learner, kept, validate
        self.every, self.steps = every, steps
        self.curve: list[tuple[int, Rate]] = []
        self.best: dict[str, Tensor] = {}
        self.best_at = -1

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        metrics = self.learner.step(index, generator)
        if (index + 1) % self.every == 0 or index + 1 == self.steps:
            self.judge(index + 1)
        return metrics

    def judge(self, done: int) -> None:
        """Evaluates what is there after `done` steps."""
        rate = self.validate(self.kept)
        if not isfinite(rate.low):  # it would be the best for ever, as nothing is more than NaN
            raise RoboPolicyError(f"the evaluation after {done} steps says {rate.low}")
        if self.best_at < 0 or rate.low > self.curve[self.best_at][1].low:
            self.best_at = len(self.curve)
            self.best = {k: v.clone() for k, v in self.kept.state_dict().items()}
        self.curve.append((done, rate))

    def state(self) -> dict[str, Tensor]:
        curve = [(at, rate.successes, rate.episodes) for at, rate in self.curve]
        table = torch.tensor(curve, dtype=torch.int64).reshape(len(curve), 3)
        own = {"curve": table, "best_at": torch.tensor(self.best_at)}
        own |= {f"best.{k}": v.clone() for k, v in self.best.items()}
        return own | {f"learner.{k}": v for k, v in self.learner.state().items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.curve = [(int(at), wilson(int(s), int(n))) for at, s, n in tensors["curve"]]
        self.best_at = int(tensors["best_at"])
        self.best = part(tensors, "best")
        self.learner.load_state(part(tensors, "learner"))


def imagined_success(env: ChunkEnv, policy: Policy, episodes: int, seed: int) -> Callable[[Steerer], Rate]:
    """A `validate` for `steer`: success in `env` on the same validation seeds every time.

    Args:
        env: imagination from start states that training does not use.
        policy: frozen.
        episodes: per evaluation.
        seed: master seed.
    """
    seeds = [episode_seed(seed, "validation", i) for i in range(episodes)]

    def validate(steerer: Steerer) -> Rate:
        done = rollout(env, policy, steerer, seeds, source="imagined")
        return wilson(sum(e.success for e in done), len(done))

    return validate


def trusted_doubt(env: ChunkEnv, policy: Policy, episodes: int, seed: int, share: float) -> float:
    """The doubt limit at which `share` of the plain policy's imagined successes would still stand.

    See `doubt_limit`.

    Args:
        env: imagination without a limit.
        policy: frozen.
        episodes: how many to imagine.
        seed: master seed.
        share: in (0, 1).
    """
    seeds = [episode_seed(seed, "validation", i) for i in range(episodes)]
    return doubt_limit(rollout(env, policy, PriorSteerer(), seeds, source="imagined"), share)


def doubt_limit(done: Sequence[Episode], share: float) -> float:
    """The doubt limit at which `share` of the successes among imagined episodes would still stand.

    Doubt has no natural unit: models trained on other data doubt their own successes two times as much.
    Where the plain policy succeeds is where a model has seen most; a learner may go that far and no further
    (halting as in MOReL, Kidambi et al. 2020, arXiv 2005.05951, with the limit measured instead of guessed).

    Args:
        done: of the plain policy, in imagination without a limit.
        share: in (0, 1).
    """
    # Of a policy that never succeeds all episodes count: there is nothing better to go by.
    doubts = [float(e.doubt.max()) for e in done if e.success] or [float(e.doubt.max()) for e in done]
    # A model that cannot doubt, having one member only, cannot be halted by it either.
    return float(np.quantile(doubts, share)) or float("inf")


def steer(
    policy: Policy,
    make_env: Callable[[int], ImaginedEnv],
    episodes: Sequence[Episode],
    out: Path,
    config: SteerConfig,
    seed: int,
    validate: Callable[[Steerer], Rate],
    world_hash: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Trains a steerer for a frozen policy; resumes what was interrupted.

    Args:
        policy: frozen.
        make_env: builds imagination with so many environments.
        episodes: recorded real episodes.
        out: folder of the steerer.
        config: settings.
        seed: of every random draw.
        validate: imagined success of a steerer, such as `imagined_success(...)`.
        world_hash: hash of what `make_env` imagines with.

    Returns:
        Method, imagined success ("prior", "best" with its step, "last"), whether it "helped" (the 95%
        interval of best minus prior lies above zero), learning "curve" (evaluations) and "rows"
        (metrics), "prefilled" transitions, "hashes" of policy and world before and after,
        "steerer" hash.

    Raises:
        BadInput: if `out` already holds a steerer, or one begun with other episodes, settings, policy or
            world; if there are no episodes.
        RoboPolicyError: if training changed the policy or the world model.
    """
    if not episodes:
        raise BadInput("episodes", "at least one recorded episode", 0)

    def hashes() -> dict[str, str]:
        return {"policy": policy_hash(policy), "world": world_hash() if world_hash else ""}

    before = hashes()
    settings = {**dataclasses.asdict(config), **before, "data": data_hash(episodes)}
    if done := remembered(out, {**settings, "seed": seed}):
        return {**done, "steerer": folder_hash(out)}
    if is_sealed(out):
        raise BadInput("out", "a folder without a finished artefact", out)
    own = config.own
    env = make_env(own.envs)
    try:
        initial = Generator().manual_seed(torch_seed(seed, "steer", "initial"))
        learner = LEARNERS[config.method](policy, env, episodes, config, initial)
        prior = validate(PriorSteerer())
        keeper = BestKeeper(learner, learner.steerer, validate, config.eval_every, own.steps)
        out.mkdir(parents=True, exist_ok=True)
        rows = fit(keeper, own.steps, seed, f"steer ({config.method})", out / PROGRESS, settings)
    finally:
        env.close()
    after = hashes()
    for name in before:
        if before[name] != after[name]:
            raise RoboPolicyError(f"steering changed the frozen {name}; nothing was saved")

    learner.steerer.load_state_dict(keeper.best)
    curve = [{"step": at, **rate.to_dict()} for at, rate in keeper.curve]
    fields = {
        "method": config.method,
        "prior": prior.to_dict(),
        "best": curve[keeper.best_at],
        "last": curve[-1],
        "helped": difference(prior, keeper.curve[keeper.best_at][1])[0] > 0,
        "curve": curve,
        "rows": rows,
        "prefilled": learner.prefilled,
        "hashes": {name: {"before": before[name], "after": after[name]} for name in before},
    }
    remember(out, {**settings, "seed": seed}, fields)
    save_steerer(out, learner.steerer, before["policy"], before["world"])
    return {**fields, "steerer": folder_hash(out)}


def data_hash(episodes: Sequence[Episode]) -> str:
    """Hash of everything that was recorded."""
    names = ("states", "actions", "noise", "achieved")
    flat = {n: np.concatenate([getattr(e, n).ravel() for e in episodes]) for n in names}
    return tensor_hash({n: torch.from_numpy(x) for n, x in flat.items()})
