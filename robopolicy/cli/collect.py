"""`robopolicy collect`: demonstrations of scripted operators or rollouts of a policy, as a dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from robopolicy.backends import Backend, get_ready, workers
from robopolicy.cli.common import Result, choose, need, positive, run, simulator
from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from robopolicy.protocols import ChunkEnv, Policy, Steerer
    from robopolicy.spec import Camera, Spec
    from robopolicy.types import Episode


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
        episodes: how many; by default as many demonstrations as the task's recipe says.
        expert: who demonstrates: "mixed" (differing skill), "careful", or "random" (aimless actions); by
            default whom the task's recipe names.
        where: condition on the start state, such as "cube_x < 0.02"; by default that of the task's recipe
            for demonstrations, and none for a policy.
        policy: saved policy that acts instead of the expert.
        steerer: saved steerer of that policy.
        noise: latent noise of the policy: "prior" as trained, "uniform" and "repeat" bounded (repeat: one
            vector for the whole chunk).
        bound: largest element of bounded noise.
        first: index of the first episode; collections that must not share start states use different ones.
        seed: master seed.
        pictures: side in pixels of a picture at every step, recorded as video; 0 for none.
        cameras: whose pictures: "scene" and, of simulated arms, "wrist".
        processes: workers, each with a simulator; changes no episode.
        backend: where they work: "local", or "ray" (RAY_ADDRESS names a cluster).
    """

    out: Path
    task: str = "lift"
    episodes: int | None = None
    expert: str | None = None
    where: str | None = None
    policy: Path | None = None
    steerer: Path | None = None
    noise: Literal["prior", "uniform", "repeat"] = "prior"
    bound: float = 1.5
    first: int = 0
    seed: int = 0
    pictures: int = 0
    cameras: tuple[str, ...] = ("scene",)
    processes: int = 2
    backend: Backend = "local"


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
    get_ready(args.backend, args.processes)
    return run("collect", args, None, lambda: _collect(args), again=True)


def _collect(args: Collect) -> Result:
    from robopolicy.checkpoint import is_sealed
    from robopolicy.data.writer import EpisodeWriter
    from robopolicy.progress import Progress
    from sim.tasks import find_task

    task = find_task(args.task)
    recipe, spec = task.demonstrations, task.spec
    episodes = recipe.episodes if args.episodes is None else args.episodes
    positive(episodes=episodes, processes=args.processes)
    actor = _actor(args, spec)
    shifted = recipe.where if actor.source == "expert" else ""
    seeds = _seeds(args, actor, episodes, shifted if args.where is None else args.where)
    recorded_spec = spec
    if args.pictures:
        recorded_spec = dataclasses.replace(spec, cameras=_views(args))

    if is_sealed(args.out):  # only the result was still to be written
        return _collected(args, actor)
    with EpisodeWriter(args.out, recorded_spec, args.task, actor.settings) as writer:
        missing = [s for s in seeds if s not in set(writer.seeds_done)]
        if missing:
            count = min(args.processes, len(missing))
            with (
                workers(partial(_Recorder, args), args.backend, count) as run_jobs,
                Progress(f"collect ({actor.source})", len(seeds), len(seeds) - len(missing)) as bar,
            ):
                for _, episode in run_jobs(missing):
                    writer.add(episode)
                    bar.advance()
    return _collected(args, actor)


def _collected(args: Collect, actor: _Actor) -> Result:
    """What is said of the finished dataset."""
    from robopolicy.data.episodes import load_episodes
    from robopolicy.stats import wilson

    recorded = load_episodes([args.out])
    success = wilson(sum(e.success for e in recorded), len(recorded))
    return {
        "task": args.task,
        "source": actor.source,
        "episodes": len(recorded),
        "steps": sum(e.length for e in recorded),
        "success": success.to_dict(),
    }


def _views(args: Collect) -> tuple[Camera, ...]:
    from robopolicy.spec import Camera

    return tuple(Camera(name, args.pictures, args.pictures) for name in args.cameras)


class _Recorder:
    """What a worker does: the episode of a seed in a simulator of its own, filmed if that is wanted."""

    def __init__(self, args: Collect):
        from sim.film import filming
        from sim.tasks import find_task
        from sim.vector import SimSingleEnv

        self.task = find_task(args.task)
        spec = self.task.spec
        self.actor = _actor(args, spec)
        # gymnasium means something else by `spec`, so its type hides ours.
        self.env = cast("ChunkEnv", SimSingleEnv(args.task, self.actor.chunk, linger=spec.chunk))
        # Open for as long as the worker lives.
        self.open = ExitStack()
        filmed = filming(args.task, args.pictures, args.cameras)
        # Pictures that are seen anyway need not be taken once more.
        self.views = _views(args) if args.pictures else ()
        seen = set(self.views) <= set(spec.pictures)
        self.film = None if seen else self.open.enter_context(filmed)

    def __call__(self, seed: int) -> Episode:
        import numpy as np

        from robopolicy.data.film import shown
        from robopolicy.rollout import rollout

        actor = self.actor
        (episode,) = rollout(self.env, actor.policy, actor.steerer, [seed], actor.source)
        strategy = getattr(actor.policy, "strategy", lambda _: "")(seed)
        said = self.task.instruct(seed) if self.task.instruct else ""
        if self.film:
            taken = self.film(episode, range(episode.length))
            frames = {camera: np.stack(shots) for camera, shots in taken.items()}
        else:
            frames = shown(episode.states[:-1], self.task.spec)
        pictures = {c.name: frames[c.name] for c in self.views}
        return dataclasses.replace(episode, strategy=strategy, instruction=said, pictures=pictures)


def _seeds(args: Collect, actor: _Actor, episodes: int, where: str) -> list[int]:
    """Seeds of the first so many episodes that start where they should."""
    from robopolicy.seeding import episode_seed
    from sim.starts import condition, indices_where
    from sim.tasks import find_task

    def seed_of(index: int) -> int:
        try:
            return episode_seed(args.seed, actor.stage, args.first + index)
        except ValueError as e:
            raise BadInput("seed, first, episodes", "inside the range of seeds", e) from e

    indices: Sequence[int] = range(episodes)
    if where:
        actor.settings["where"] = where
        condition(where, find_task(args.task).spec)  # refused before a simulator is started for it
        with simulator(args.task, args.processes) as env:
            indices = indices_where(where, env, seed_of, episodes)
    return [seed_of(i) for i in indices]


def _actor(args: Collect, spec: Spec) -> _Actor:
    from robopolicy.checkpoint import folder_hash
    from robopolicy.rollout import PriorSteerer
    from robopolicy.steering.noise import RandomPolicy, UniformNoise
    from sim.tasks import find_task

    settings: dict[str, Any] = {"seed": args.seed, "first": args.first}
    if args.policy is None:
        for name in ("noise", "steerer"):
            if getattr(args, name) != getattr(Collect, name):
                raise BadInput(name, "a --policy that it is for", "none")
        task = find_task(args.task)
        name = args.expert or task.demonstrations.expert
        operators = choose("expert", {**task.experts(), "random": None}, name)
        if operators is None:
            settings |= {"source": "random"}
            policy = RandomPolicy(spec)
            return _Actor(policy, PriorSteerer(), spec.chunk, "rollouts", "random", settings)
        settings |= {"source": "expert", "expert": name, "operators": dataclasses.asdict(operators)}
        return _Actor(task.expert(spec, operators), PriorSteerer(), 1, "demos", "expert", settings)

    from robopolicy.policies.load import load_policy
    from robopolicy.policies.told import told

    need("policy", [args.policy])
    policy = told(load_policy(args.policy, spec), find_task(args.task).instruct)
    spec.require(policy.spec, "policy")
    settings |= {"source": "policy", "policy": folder_hash(args.policy), "noise": args.noise}
    if args.steerer:
        from robopolicy.steering.load import load_steerer

        if args.noise != "prior":
            raise BadInput("noise", "prior, where a --steerer chooses it", args.noise)
        need("steerer", [args.steerer])
        settings |= {"source": "steered", "steerer": folder_hash(args.steerer)}
        steerer = load_steerer(args.steerer, policy)
        return _Actor(policy, steerer, spec.chunk, "rollouts", "steered", settings)
    if args.noise == "prior":
        return _Actor(policy, PriorSteerer(), spec.chunk, "rollouts", "policy", settings)
    steerer = UniformNoise(args.bound, args.noise == "repeat")
    settings |= {"source": "noise", "bound": args.bound}
    return _Actor(policy, steerer, spec.chunk, "rollouts", "noise", settings)
