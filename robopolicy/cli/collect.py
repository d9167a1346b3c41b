"""`robopolicy collect`: demonstrations of scripted operators or rollouts of a policy, as a dataset."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robopolicy.cli.common import Result, choose, need, positive, run, simulator
from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from robopolicy.protocols import Policy, Steerer
    from robopolicy.spec import Spec


@dataclass(frozen=True)
class Collect:
    """Record episodes in the simulator as a LeRobot dataset.

    Without --policy a scripted operator gives demonstrations, mistakes included. With --policy the
    policy acts; its failures are what a world model learns failure from. Interrupted, the same command goes
    on where it stopped. Next: robopolicy train.

    Example: robopolicy collect --task lift --episodes 60 --out runs/demos

    Attributes:
        out: folder of the dataset.
        task: what to do.
        episodes: how many.
        expert: who demonstrates: "mixed" (differing skill), "careful", or "random" (aimless actions).
        policy: saved policy that acts instead of the expert.
        noise: latent noise of the policy: "prior" as trained, "uniform" and "repeat" bounded (repeat: one
            vector for the whole chunk).
        bound: largest element of bounded noise.
        first: index of the first episode; collections that must not share start states use different ones.
        seed: master seed.
        processes: simulators that run at the same time; changes no episode.
    """

    out: Path
    task: str = "lift"
    episodes: int = 60
    expert: str = "mixed"
    policy: Path | None = None
    noise: Literal["prior", "uniform", "repeat"] = "prior"
    bound: float = 1.5
    first: int = 0
    seed: int = 0
    processes: int = 2


@dataclass(frozen=True)
class _Actor:
    """Who acts, in chunks of how many, and what the dataset says about it."""

    policy: Policy
    steerer: Steerer
    chunk: int
    stage: str
    source: str
    settings: dict[str, Any]


def collect(args: Collect) -> Result:
    """Records what is missing in `args.out`; see `Collect`."""
    return run("collect", args, None, lambda: _collect(args))


def _collect(args: Collect) -> Result:
    from robopolicy.data.writer import EpisodeWriter
    from robopolicy.progress import Progress
    from robopolicy.rollout import rollout
    from robopolicy.seeding import episode_seed
    from robopolicy.stats import wilson
    from robopolicy.types import Episode
    from sim.tasks import find_task

    positive(episodes=args.episodes, processes=args.processes)
    spec = find_task(args.task).spec
    actor = _actor(args, spec)
    seeds = _seeds(args, actor.stage, episode_seed)
    strategy = getattr(actor.policy, "strategy", lambda _: "")
    successes = 0

    with EpisodeWriter(args.out, spec, args.task, actor.settings) as writer:
        missing = [s for s in seeds if s not in set(writer.seeds_done)]
        if missing:
            processes = min(args.processes, len(missing))
            with (
                simulator(args.task, processes, actor.chunk, linger=spec.chunk) as env,
                Progress(f"collect ({actor.source})", len(seeds), len(seeds) - len(missing)) as bar,
            ):

                def keep(episode: Episode) -> None:
                    nonlocal successes
                    writer.add(dataclasses.replace(episode, strategy=strategy(episode.seed)))
                    successes += episode.success
                    bar.advance()

                rollout(env, actor.policy, actor.steerer, missing, actor.source, keep)
    fields: Result = {"task": args.task, "source": actor.source, "episodes": len(seeds)}
    if len(missing) < len(seeds):
        successes = _count_successes(args.out)
    return fields | {"success": wilson(successes, len(seeds)).to_dict()}


def _seeds(args: Collect, stage: str, episode_seed: Any) -> list[int]:
    try:
        return [episode_seed(args.seed, stage, args.first + i) for i in range(args.episodes)]
    except ValueError as e:
        raise BadInput("seed, first, episodes", "inside the range of seeds", e) from e


def _count_successes(folder: Path) -> int:
    from robopolicy.data.episodes import load_episodes

    return sum(e.success for e in load_episodes([folder]))


def _actor(args: Collect, spec: Spec) -> _Actor:
    from robopolicy.checkpoint import folder_hash
    from robopolicy.rollout import PriorSteerer
    from robopolicy.steering.noise import RandomPolicy, UniformNoise
    from sim.tasks import find_task

    settings: dict[str, Any] = {"seed": args.seed, "first": args.first}
    if args.policy is None:
        if args.noise != "prior":
            raise BadInput("noise", "a --policy whose noise it is", "none")
        if args.expert == "random":
            settings |= {"source": "random"}
            policy = RandomPolicy(spec)
            return _Actor(policy, PriorSteerer(), spec.chunk, "rollouts", "random", settings)
        task = find_task(args.task)
        operators = choose("expert", {**task.experts(), "random": None}, args.expert)
        assert operators is not None
        settings |= {"source": "expert", "expert": args.expert, "operators": dataclasses.asdict(operators)}
        return _Actor(task.expert(spec, operators), PriorSteerer(), 1, "demos", "expert", settings)

    from robopolicy.policies.load import load_policy

    need("policy", [args.policy])
    policy = load_policy(args.policy)
    spec.require(policy.spec, "policy")
    settings |= {"source": "policy", "policy": folder_hash(args.policy), "noise": args.noise}
    if args.noise == "prior":
        return _Actor(policy, PriorSteerer(), spec.chunk, "rollouts", "policy", settings)
    steerer = UniformNoise(args.bound, args.noise == "repeat")
    settings |= {"source": "noise", "bound": args.bound}
    return _Actor(policy, steerer, spec.chunk, "rollouts", "noise", settings)
