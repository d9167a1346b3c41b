"""`robopolicy train`, `train-world` and `steer`: policy, world model, steerer."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from robopolicy.cli.common import Result, choose, need, positive, run, with_changes

if TYPE_CHECKING:
    import numpy as np

    from robopolicy.steering.imagination import ImaginedEnv as Imagination

# Imagined episodes that are validated at the same time.
_VALIDATION_BATCH = 256


@dataclass(frozen=True)
class Train:
    """Train a policy on recorded episodes.

    Interrupted, the same command goes on where it stopped and ends with the same weights.
    Next: robopolicy evaluate, or robopolicy train-world.

    Example: robopolicy train --dataset runs/demos --policy diffusion --preset quick --out runs/policy

    Attributes:
        dataset: folders that "robopolicy collect" wrote.
        out: folder of the policy.
        policy: kind of policy.
        preset: "quick" for two cores, "full" for a graphics processor.
        steps: number of updates, instead of the preset's.
        seed: master seed.
    """

    dataset: tuple[Path, ...]
    out: Path
    policy: Literal["diffusion"] = "diffusion"
    preset: str = "quick"
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrainWorld:
    """Train a world model to imagine in.

    It needs demonstrations and rollouts: what it has never seen fail succeeds in imagination.
    Next: robopolicy imagine, or robopolicy steer.

    Example: robopolicy train-world --dataset runs/demos runs/rollouts --preset quick --out runs/world

    Attributes:
        dataset: folders that "robopolicy collect" wrote.
        out: folder of the world model.
        preset: "quick" for two cores, "full" for a graphics processor.
        steps: updates per ensemble member, instead of the preset's.
        seed: master seed.
        processes: ensemble members are trained in this many; changes no weight.
    """

    dataset: tuple[Path, ...]
    out: Path
    preset: str = "quick"
    steps: int | None = None
    seed: int = 0
    processes: int = 2


@dataclass(frozen=True)
class Steer:
    """Learn, in imagination alone, which latent noise makes a frozen policy succeed.

    Neither policy nor world model changes by a byte. Next: robopolicy evaluate with both.

    Example: robopolicy steer --world runs/world --policy runs/policy --dataset runs/rollouts
    --method dsrl --preset quick --out runs/steerer

    Attributes:
        world: world model to practise in.
        policy: policy to steer.
        dataset: recorded episodes; their transitions are learned from first.
        out: folder of the steerer.
        method: "dsrl" (soft actor-critic over the noise) or "ppo" (started at the plain policy).
        preset: "quick" for two cores, "full" for a graphics processor.
        steps: learner steps, instead of the preset's.
        doubt_limit: doubt that ends an imagined episode; by default one that lets a share of the plain
            policy's successes stand ("trust" in the preset).
        seed: master seed.
    """

    world: Path
    policy: Path
    dataset: tuple[Path, ...]
    out: Path
    method: Literal["dsrl", "ppo"] = "dsrl"
    preset: str = "quick"
    steps: int | None = None
    doubt_limit: float | None = None
    seed: int = 0


def train(args: Train) -> Result:
    """Trains a policy; see `Train`."""
    from robopolicy.config import POLICY_PRESETS

    config = with_changes(choose("preset", POLICY_PRESETS, args.preset), steps=args.steps)
    positive(steps=config.steps)

    def work() -> Result:
        from robopolicy.checkpoint import folder_hash
        from robopolicy.policies.train import train_policy

        report = train_policy(need("dataset", args.dataset), args.out, config, args.seed)
        return {**report, "hash": folder_hash(args.out)}

    return run("train", args, config, work)


def train_world(args: TrainWorld) -> Result:
    """Trains a world model; see `TrainWorld`."""
    from robopolicy.config import WORLD_PRESETS

    config = with_changes(choose("preset", WORLD_PRESETS, args.preset), steps=args.steps)
    positive(steps=config.steps, processes=args.processes)

    def work() -> Result:
        from robopolicy.checkpoint import folder_hash
        from world_models import train as world

        report = world.train_world(need("dataset", args.dataset), args.out, config, args.seed, args.processes)
        return {**report, "hash": folder_hash(args.out)}

    return run("train-world", args, config, work)


def steer(args: Steer) -> Result:
    """Trains a steerer; see `Steer`."""
    from robopolicy.config import STEER_PRESETS

    preset = choose("preset", STEER_PRESETS, args.preset)
    config = with_changes(preset, method=args.method)
    if args.steps is not None:
        positive(steps=args.steps)
        own = with_changes(getattr(config, args.method), steps=args.steps)
        config = with_changes(config, **{args.method: own})

    def work() -> Result:
        from robopolicy.data.episodes import dataset_info, load_episodes
        from robopolicy.policies.load import load_policy
        from robopolicy.steering import steer as steering
        from world_models.imagined_env import ImaginedEnv
        from world_models.load import load_world, start_states, world_hash

        if args.doubt_limit is not None:
            positive(doubt_limit=args.doubt_limit)
        need("world", [args.world])
        need("policy", [args.policy])
        world = load_world(args.world)
        policy = load_policy(args.policy, world.spec)
        world.spec.require(policy.spec, "policy")
        for folder in need("dataset", args.dataset):
            world.spec.require(dataset_info(folder)[0], str(folder))
        practice, exam = start_states(args.world)
        # In deployment an episode ends at success; what was recorded beyond is for world models.
        episodes = [e.until_success() for e in load_episodes(list(args.dataset))]
        batch = min(_VALIDATION_BATCH, config.eval_episodes)

        def imagination(starts: np.ndarray, envs: int, limit: float) -> Imagination:
            # gymnasium means something else by `spec`, so its type hides ours.
            return cast("Imagination", ImaginedEnv(world, starts, envs, limit))

        exams = (policy, config.eval_episodes, args.seed)
        limit = args.doubt_limit
        if limit is None:
            unlimited = imagination(practice, batch, float("inf"))
            limit = steering.trusted_doubt(unlimited, *exams, config.trust)
        report = steering.steer(
            policy,
            lambda n: imagination(practice, n, limit),
            episodes,
            args.out,
            config,
            args.seed,
            steering.imagined_success(imagination(exam, batch, limit), *exams),
            lambda: world_hash(world),
        )
        return {**report, "doubt_limit": limit if isfinite(limit) else None}

    return run("steer", args, config, work)
