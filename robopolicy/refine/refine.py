"""Refines a policy's weights in imagination, into a new policy; the given one stays as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Generator

from robopolicy.checkpoint import PROGRESS, folder_hash, is_sealed, remember, remembered
from robopolicy.data.windows import PolicyWindows
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.policies.gaussian import GaussianPolicy, save_gaussian
from robopolicy.policies.load import ChunkPolicy
from robopolicy.policies.train import proved, save_policy
from robopolicy.protocols import ChunkEnv, Policy
from robopolicy.refine.config import RefineConfig
from robopolicy.refine.nft import Nft
from robopolicy.refine.pa_rl import PaRl
from robopolicy.refine.ppo_gaussian import PpoGaussian
from robopolicy.rollout import PriorSteerer
from robopolicy.seeding import torch_seed
from robopolicy.stats import Rate, difference
from robopolicy.steering.imagination import ImaginedEnv
from robopolicy.steering.steer import BestKeeper, data_hash, imagined_success
from robopolicy.steering.steerer import policy_hash
from robopolicy.train import Learner, fit
from robopolicy.types import Episode


class RefiningLearner(Learner, Protocol):
    """A learner that holds the new policy."""

    @property
    def policy(self) -> ChunkPolicy | GaussianPolicy: ...
    @property
    def prefilled(self) -> int: ...


_LEARNERS: dict[str, Callable[..., RefiningLearner]] = {
    "pa-rl": PaRl,
    "ppo-gaussian": PpoGaussian,
    "diffusion-nft": Nft,
}


def policy_success(env: ChunkEnv, episodes: int, seed: int) -> Callable[[Policy], Rate]:
    """A `validate` for `refine`: success of a policy by itself on the same validation seeds every time.

    Args:
        env: imagination from start states that training does not use.
        episodes: per evaluation.
        seed: master seed.
    """
    return lambda policy: imagined_success(env, policy, episodes, seed)(PriorSteerer())


def refine(
    policy: Policy,
    make_env: Callable[[int], ImaginedEnv],
    episodes: Sequence[Episode],
    out: Path,
    config: RefineConfig,
    seed: int,
    validate: Callable[[Policy], Rate],
    world_hash: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Refines a policy in imagination and keeps the one whose imagined success is surest.

    The policy that training begins with is a candidate too. Resumes what was interrupted.

    Args:
        policy: frozen.
        make_env: builds imagination with so many environments.
        episodes: recorded real episodes.
        out: folder of the new policy.
        config: settings.
        seed: of every random draw.
        validate: imagined success of a policy, such as `policy_success(...)`.
        world_hash: hash of what `make_env` imagines with.

    Returns:
        Method, imagined success ("prior" of the given policy, "best" with its step, "last"), whether it
        "helped" (the 95% interval of best minus prior lies above zero), learning "curve" from step 0 and
        "rows" (metrics), "prefilled" transitions, "hashes" of given policy and world
        before and after, "hash" of the new policy.

    Raises:
        BadInput: if `out` already holds an artefact, or one begun with other episodes, settings, policy or
            world; if there are no episodes; if the method cannot refine this kind of policy.
        RoboPolicyError: if training changed the given policy or the world model.
    """
    episodes = [e for e in episodes if e.length]
    if not episodes:
        raise BadInput("episodes", "at least one recorded episode", 0)
    if config.method != "ppo-gaussian" and not isinstance(policy, ChunkPolicy):
        raise BadInput("policy", f"a diffusion policy for {config.method}", type(policy).__name__)

    def hashes() -> dict[str, str]:
        return {"policy": policy_hash(policy), "world": world_hash() if world_hash else ""}

    before = hashes()
    settings = {**dataclasses.asdict(config), **before, "data": data_hash(episodes)}
    if done := remembered(out, {**settings, "seed": seed}):
        return {**done, "hash": folder_hash(out)}
    if is_sealed(out):
        raise BadInput("out", "a folder without a finished artefact", out)
    env = make_env(config.own.envs)
    try:
        initial = Generator().manual_seed(torch_seed(seed, "refine", "initial"))
        learner = _LEARNERS[config.method](policy, env, episodes, config, initial)
        prior = validate(policy)
        keeper = BestKeeper(learner, learner.policy, validate, config.eval_every, config.own.steps)
        keeper.judge(0)
        out.mkdir(parents=True, exist_ok=True)
        rows = fit(keeper, config.own.steps, seed, f"refine ({config.method})", out / PROGRESS, settings)
    finally:
        env.close()
    after = hashes()
    for name in before:
        if before[name] != after[name]:
            raise RoboPolicyError(f"refining changed the given {name}; nothing was saved")

    new = learner.policy
    new.load_state_dict(keeper.best)
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
    if isinstance(new, GaussianPolicy):
        save_gaussian(new, out)
    else:
        save_policy(new, out, answers=proved(new, PolicyWindows(episodes, new.spec)))
    return {**fields, "hash": folder_hash(out)}
