"""`robopolicy train` and `steer`: policy and steerer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from robopolicy.cli.common import Result, choose, need, positive, run, simulator, with_changes
from robopolicy.config import SteerConfig, SteerMethod
from robopolicy.errors import BadInput
from robopolicy.refine.config import RefineConfig, RefineMethod

if TYPE_CHECKING:
    import numpy as np

    from robopolicy.spec import Spec
    from robopolicy.steering.imagination import ImaginedEnv as Imagination
    from robopolicy.types import Episode

# Imagined episodes that are validated at the same time.
_VALIDATION_BATCH = 256
# Practice in the real simulator: processes, evaluations on the way, and episodes of each.
_REAL_ENVS = 2
_REAL_EXAMS = 5
_REAL_EXAM_EPISODES = 20


# Numbers by which a policy is told what to do.
_TASK_SIZE = 32
PolicyKind = Literal["diffusion", "beso", "flow", "lstm", "sega"]
# What a kind of policy changes in the presets.
_KINDS: dict[str, dict[str, Any]] = {
    "diffusion": {},
    "beso": {"process": "beso", "inference_steps": 3},
    "flow": {"process": "flow"},
    "lstm": {"memory": "lstm", "memory_width": 128},
    "sega": {"memory": "sega"},
}


@dataclass(frozen=True)
class Train:
    """Train a policy on recorded episodes.

    Interrupted, the same command goes on where it stopped and ends with the same weights. For several
    processes, each with a batch: accelerate launch --multi_gpu -m robopolicy.cli train and so on.
    Next: robopolicy evaluate, or robopolicy train-world.

    Example: robopolicy train --dataset runs/demos --policy diffusion --preset quick --out runs/policy

    Attributes:
        dataset: folders that "robopolicy collect" wrote.
        out: folder of the policy.
        policy: kind of policy:
            - diffusion: DDIM.
            - beso: a score model, three steps of sampling.
            - flow: flow matching.
            - lstm, sega: diffusion that also remembers what it saw before.

        preset: "quick" for two cores, "full" for a graphics processor.
        told: teach it to be told what to do, by a sentence or by a state that is to be reached; for policies
            without memory.
        init: a policy to go on from, of the same kind and preset; "robopolicy merge" then mixes the two.
        vision: how pictures are read, where there are any, instead of the preset's: "small" for a CPU.
        steps: number of updates, instead of the preset's.
        precision: of the networks in training; bf16 is for graphics processors.
        compiler: backend of torch.compile, such as inductor, which takes minutes to begin with; by default
            nothing is compiled.
        log: scalars of every update, for "tensorboard --logdir OUT/logs" or Weights & Biases.
        seed: master seed.
    """

    dataset: tuple[Path, ...]
    out: Path
    policy: PolicyKind = "diffusion"
    preset: str = "quick"
    told: bool = False
    init: Path | None = None
    vision: Literal["small", "resnet18", "vit"] | None = None
    steps: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    compiler: str = ""
    log: Literal["none", "tensorboard", "wandb"] = "none"
    seed: int = 0


# "dsrl" is written down, whichever of its two names was given.
Method = Literal["dsrl-sac", SteerMethod, RefineMethod]
_ALIASES = {"dsrl-sac": "dsrl"}
# What only some methods understand.
_FOR: dict[str, tuple[str, ...]] = {
    "warm_start": ("dsrl", "dsrl-na"),
    "critics": ("dsrl", "dsrl-na", "best-of-n", "pa-rl"),
    "radius": ("dsrl", "dsrl-na"),
    "real": ("dsrl", "dsrl-na"),
}


@dataclass(frozen=True)
class Steer:
    """Learn, in imagination alone, which latent noise makes a frozen policy succeed.

    Or refine the weights of a copy of it. Neither policy nor world model changes by a byte.
    Next: robopolicy evaluate with both, a steerer as --steerer, a refined copy as one more --policy.

    Example: robopolicy steer --world runs/world --policy runs/policy --dataset runs/rollouts
    --method dsrl --preset quick --out runs/steerer

    Attributes:
        policy: policy to steer, or to refine a copy of.
        dataset: recorded episodes; their transitions are learned from first.
        out: folder of the steerer, or of the refined copy.
        world: world model to practise in; not needed with --real.
        method: over the noise, the policy frozen:
            - dsrl, dsrl-sac: soft actor-critic.
            - dsrl-na: a critic of actions, whoever took them.
            - ppo: PPO, started at the plain policy.
            - best-of-n: its own samples, ranked by a critic.
            - none: learns nothing: the plain policy.
            - uniform: learns nothing: bounded uniform noise.

            Over the weights of a copy:
            - pa-rl: teaches it what a critic holds better.
            - ppo-gaussian: PPO on a Gaussian that imitates it.
            - diffusion-nft: to good episodes, away from bad.

        preset: "quick" for two cores, "full" for a graphics processor.
        steps: learner steps, instead of the preset's.
        warm_start: updates of implicit Q-learning (IQL) on what was recorded, before the first step; for dsrl
            and dsrl-na.
        critics: members of the ensemble of critics, instead of the preset's; for dsrl, dsrl-na, best-of-n
            and pa-rl.
        radius: largest noise element that may be chosen, instead of the preset's; for dsrl and dsrl-na.
        doubt_limit: doubt that ends an imagined episode; by default one that lets a share of the plain
            policy's successes stand ("trust" in the preset).
        horizon: imagined steps of a practice episode, which then starts anywhere in the recorded ones; by
            default it starts where they do and takes as long as the task may.
        real: practise in the real simulator instead, the reference that imagination is measured by; for
            dsrl and dsrl-na.
        real_steps: with --real, practice ends before it would take more steps than this.
        compiler: backend of torch.compile for a world model of pictures, such as inductor or cudagraphs; by
            default nothing is compiled.
        seed: master seed.
    """

    policy: Path
    dataset: tuple[Path, ...]
    out: Path
    world: Path | None = None
    method: Method = "dsrl"
    preset: str = "quick"
    steps: int | None = None
    warm_start: int | None = None
    critics: int | None = None
    radius: float | None = None
    doubt_limit: float | None = None
    horizon: int | None = None
    real: bool = False
    real_steps: int = 20_000
    compiler: str = ""
    seed: int = 0


def train(args: Train) -> Result:
    """Trains a policy; see `Train`."""
    from robopolicy.config import POLICY_PRESETS

    config = choose("preset", POLICY_PRESETS, args.preset)
    config = with_changes(config, steps=args.steps, vision=args.vision)
    config = with_changes(config, **_KINDS[args.policy], precision=args.precision, compiler=args.compiler)
    if args.told:
        if config.memory != "none":
            raise BadInput("told", "a policy without memory", args.policy)
        config = with_changes(config, task_size=_TASK_SIZE)
    if config.memory != "none":  # a batch holds whole episodes
        config = with_changes(config, batch_size=config.batch_size // 4)
    positive(steps=config.steps)

    def work() -> Result:
        from robopolicy.checkpoint import folder_hash
        from robopolicy.policies.train import train_policy

        folders = need("dataset", args.dataset)
        report = train_policy(folders, args.out, config, args.seed, args.init, args.log)
        return {**report, "hash": folder_hash(args.out)}

    return run("train", args, config, work, shared=True)


def steer(args: Steer) -> Result:
    """Trains a steerer, or refines a copy of the policy; see `Steer`."""
    args = replace(args, method=_ALIASES.get(args.method, args.method))
    for name, methods in _FOR.items():
        if getattr(args, name) not in (None, False) and args.method not in methods:
            wanted = f"one of {', '.join(methods)}, with --{name.replace('_', '-')}"
            raise BadInput("method", wanted, args.method)
    if args.real and args.compiler:
        raise BadInput("compiler", "none with --real: nothing is imagined then", args.compiler)
    config = _steer_config(args)
    if isinstance(config, SteerConfig) and args.real:
        return run("steer", args, config, lambda: _steer_for_real(args, config))
    if args.world is None:
        raise BadInput("world", "a world model to practise in, or --real", None)
    world = args.world
    return run("steer", args, config, lambda: _steer_in_imagination(args, config, world))


def _steer_config(args: Steer) -> SteerConfig | RefineConfig:
    """The preset of the method's kind, with what was asked for instead."""
    from robopolicy.config import STEER_PRESETS
    from robopolicy.refine.config import REFINE_METHODS, REFINE_PRESETS

    if args.steps is not None:
        positive(steps=args.steps)
    if args.method in REFINE_METHODS:
        preset = with_changes(choose("preset", REFINE_PRESETS, args.preset), critics=args.critics)
        return preset.of(args.method, args.steps)
    preset = choose("preset", STEER_PRESETS, args.preset)
    config = with_changes(preset, method=args.method, warm_start=args.warm_start, critics=args.critics)
    config = with_changes(config, **{config.section: with_changes(config.own, steps=args.steps)})
    return with_changes(config, dsrl=with_changes(config.dsrl, bound=args.radius))


def _steer_in_imagination(args: Steer, config: SteerConfig | RefineConfig, folder: Path) -> Result:
    from robopolicy.policies.load import load_policy
    from robopolicy.refine.refine import policy_success, refine
    from robopolicy.steering import steer as steering
    from robopolicy.steering.transitions import everywhere
    from world_models import load
    from world_models.state import StateWorldModel

    given_limits = {k: getattr(args, k) for k in ("doubt_limit", "horizon")}
    positive(**{k: v for k, v in given_limits.items() if v is not None})
    need("world", [folder])
    need("policy", [args.policy])
    world = load.load_world(folder, args.compiler)
    if args.horizon is not None and not isinstance(world, StateWorldModel):
        raise BadInput("horizon", "none with a world model of pictures", args.horizon)
    policy = load_policy(args.policy, world.spec)
    world.spec.require(policy.spec, "policy")
    episodes = _recorded(args.dataset, world.spec)
    practice, exam = load.start_states(folder)
    batch = min(_VALIDATION_BATCH, config.eval_episodes)

    def imagination(starts: np.ndarray, envs: int, limit: float, horizon: int | None = None) -> Imagination:
        # gymnasium means something else by `spec`, so its type hides ours.
        return cast("Imagination", load.imagination(world, starts, envs, limit, horizon))

    exams = (policy, config.eval_episodes, args.seed)
    limit = args.doubt_limit
    if limit is None:
        unlimited = imagination(practice, batch, float("inf"))
        limit = steering.trusted_doubt(unlimited, *exams, config.trust)
    judged_in = imagination(exam, batch, limit)
    if args.horizon is not None:
        practice = everywhere(episodes, world.spec.obs_steps)
    given = (policy, lambda n: imagination(practice, n, limit, args.horizon), episodes, args.out)
    if isinstance(config, RefineConfig):
        validate = policy_success(judged_in, *exams[1:])
        report = refine(*given, config, args.seed, validate, lambda: load.world_hash(world))
    else:
        validate = steering.imagined_success(judged_in, *exams)
        report = steering.steer(*given, config, args.seed, validate, lambda: load.world_hash(world))
    return {**report, "doubt_limit": limit if isfinite(limit) else None}


def _steer_for_real(args: Steer, config: SteerConfig) -> Result:
    """The same in the real simulator, in which a step costs what it costs; the steps are counted.

    One chunk in each of `_REAL_ENVS` simulators per learner step. A simulator does not go on where
    another left off: resumed training starts its episodes anew.
    """
    from robopolicy.data.episodes import dataset_info
    from robopolicy.policies.load import load_policy
    from robopolicy.steering import steer as steering
    from robopolicy.steering.imagination import RealEnv

    need("policy", [args.policy])
    spec = dataset_info(need("dataset", args.dataset)[0])[0]
    policy = load_policy(args.policy, spec)
    spec.require(policy.spec, "policy")
    episodes = _recorded(args.dataset, spec)
    steps = args.real_steps // (_REAL_ENVS * spec.chunk)
    positive(**{f"real_steps / {_REAL_ENVS * spec.chunk}": steps})
    own = with_changes(config.dsrl, envs=_REAL_ENVS, steps=min(steps, args.steps or steps))
    every = ceil(own.steps / _REAL_EXAMS)
    config = with_changes(config, dsrl=own, eval_every=every, eval_episodes=_REAL_EXAM_EPISODES)
    with simulator(spec.task, _REAL_ENVS) as practice, simulator(spec.task, _REAL_ENVS) as exam:
        envs = {"practice": RealEnv(practice), "validation": RealEnv(exam)}
        report = steering.steer(
            policy,
            lambda n: envs["practice"],
            episodes,
            args.out,
            config,
            args.seed,
            steering.imagined_success(envs["validation"], policy, config.eval_episodes, args.seed),
        )
    return {**report, "real_steps": {name: env.steps for name, env in envs.items()}}


def _recorded(folders: tuple[Path, ...], spec: Spec) -> list[Episode]:
    from robopolicy.data.episodes import dataset_info, load_episodes

    for folder in need("dataset", folders):
        # Pictures beside the states do not disturb a policy that has no use for them.
        spec.require(replace(dataset_info(folder)[0], cameras=spec.cameras), str(folder))
    return load_episodes(list(folders))
