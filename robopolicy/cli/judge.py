"""`robopolicy evaluate` and `imagine`: the same judging in the simulator and in a world model; `report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import ceil, inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from robopolicy.backends import Backend, Run, get_ready, workers
from robopolicy.cli.candidates import Candidate, candidates, delayed
from robopolicy.cli.common import Result, need, positive, run, say
from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from robopolicy.evaluate import Evaluation
    from robopolicy.protocols import ChunkEnv

# Imagined episodes that a worker runs at the same time.
_IMAGINED_BATCH = 64
# Ten times as many doubtful chunks as where doubt was calibrated.
DOUBTFUL = 0.1
# Share of the first policy's imagined successes that imagination may doubt no more than.
TRUSTED = 0.9


@dataclass(frozen=True)
class Evaluate:
    """Judge policies in the real simulator, on seeds that nothing else uses.

    All run the same seeds, so that the difference of any two is paired. Each --steerer is judged with the
    policy it was trained for. Next: robopolicy report, or robopolicy deploy.

    Example: robopolicy evaluate --policy runs/policy --steerer runs/steerer --episodes 100 --out runs/real

    Attributes:
        policy: saved policies; the first is what the others are compared with.
        out: folder of the result.
        steerer: saved steerers of these policies.
        task: where to judge.
        episodes: per policy.
        seed: master seed.
        wording: of what a policy is told, where the task differs from episode to episode: as demonstrations
            say it, or as they never do.
        delay: control steps that a policy takes for a chunk ("robopolicy bench-policy" says how many). It is
            asked so early, and its plans continue each other; for policies without memory and steerer.
        foresight: saved world model: plans begin where it says that the robot will be when they are there.
        processes: workers, each with a simulator; changes no episode.
        backend: where they work: "local", or "ray" (RAY_ADDRESS names a cluster).
    """

    policy: tuple[Path, ...]
    out: Path
    steerer: tuple[Path, ...] = ()
    task: str = "lift"
    wording: Literal["familiar", "new"] = "new"
    delay: int = 0
    foresight: Path | None = None
    episodes: int = 100
    seed: int = 0
    processes: int = 2
    backend: Backend = "local"


@dataclass(frozen=True)
class Imagine:
    """Judge policies in a world model: hundreds of episodes in seconds.

    The result has the format of "robopolicy evaluate"; --real compares with one. A gap between the two is
    what the world model has yet to learn. With three or more policies it also says whether this world model
    can rank them: correlations, rank violation and a verdict, with 95% intervals. It refuses to rank where it
    doubts too much.

    Example: robopolicy imagine --world runs/world --policy runs/policy --real runs/real/result.json
    --out runs/imagined

    Attributes:
        world: saved world model.
        policy: saved policies; the first is what the others are compared with.
        out: folder of the result.
        steerer: saved steerers of these policies.
        episodes: per policy.
        real: result.json of "robopolicy evaluate" with the same policies.
        doubt_limit: doubt that ends an episode (1 is the 99th percentile on held-out data); by default the
            one that lets nine in ten of the first policy's successes stand: what the world model does not
            know does not count.
        seed: master seed.
        compiler: backend of torch.compile for a world model of pictures, such as inductor or cudagraphs; by
            default nothing is compiled.
        processes: workers, each with the world model; changes no episode.
        backend: where they work: "local", or "ray" (RAY_ADDRESS names a cluster).
    """

    world: Path
    policy: tuple[Path, ...]
    out: Path
    steerer: tuple[Path, ...] = ()
    episodes: int = 512
    real: Path | None = None
    doubt_limit: float | None = None
    compiler: str = ""
    seed: int = 0
    processes: int = 2
    backend: Backend = "local"


@dataclass(frozen=True)
class Promote:
    """Let a steerer replace its base, if a real evaluation shows that it is better.

    It must have been judged beside its base on at least 100 held-out episodes, and the 95% interval of the
    paired difference must lie above zero. The verdict is left beside the steerer; "robopolicy deploy" asks
    for it. Exit code 1 if it is not promoted.

    Example: robopolicy promote --steerer runs/steerer --real runs/real/result.json

    Attributes:
        steerer: saved steerer.
        real: result.json of "robopolicy evaluate".
    """

    steerer: Path
    real: Path


@dataclass(frozen=True)
class Report:
    """Make one self-contained HTML page of a run, or one that compares several.

    Example: robopolicy report --run runs/demo

    Attributes:
        run: folder of a run, such as that of "robopolicy demo"; others are compared with the first.
        out: the page; report.html in the run's folder, or compared.html in the first's, by default.
    """

    run: tuple[Path, ...]
    out: Path | None = None


def evaluate(args: Evaluate) -> Result:
    """Judges in the real simulator; see `Evaluate`."""
    get_ready(args.backend, args.processes)
    return run("evaluate", args, None, lambda: _evaluate(args))


def imagine(args: Imagine) -> Result:
    """Judges in imagination; see `Imagine`."""
    get_ready(args.backend, args.processes)
    return run("imagine", args, None, lambda: _imagine(args))


def _evaluate(args: Evaluate) -> Result:
    positive(episodes=args.episodes, processes=args.processes)
    seeds = _seeds(args.seed, "held_out", args.episodes)
    found = _real_candidates(args)
    with workers(partial(_Real, args), args.backend, min(args.processes, args.episodes)) as run_jobs:
        judged = _judge(run_jobs, found, seeds, 1, "real")
    return {"task": args.task, "processes": args.processes, **judged, "real_minus_imagined": {}}


def _real_candidates(args: Evaluate) -> list[Candidate]:
    from robopolicy.policies.told import told
    from sim.tasks import find_task

    task = find_task(args.task)
    found = candidates(task.spec, args.policy, args.steerer)
    if task.instruct:
        say_it = partial(task.instruct, familiar=args.wording == "familiar")
        found = [c._replace(policy=told(c.policy, say_it)) for c in found]
    return [c._replace(policy=delayed(c, args.delay, args.foresight)) for c in found]


class _Real:
    """What a worker of `evaluate` does: episodes in a simulator of its own."""

    def __init__(self, args: Evaluate):
        from sim.vector import SimSingleEnv

        self.candidates = _real_candidates(args)
        spec = self.candidates[0].policy.spec
        # gymnasium means something else by `spec`, so its type hides ours.
        self.env = cast("ChunkEnv", SimSingleEnv(args.task, spec.chunk, seen=spec.obs_steps))

    def __call__(self, job: _Job) -> Evaluation:
        from robopolicy.evaluate import evaluate

        one = self.candidates[job.candidate]
        return evaluate(self.env, one.policy, one.steerer, job.seeds, one.label, quiet=True)


def _imagine(args: Imagine) -> Result:
    from robopolicy.checkpoint import folder_hash
    from robopolicy.steering.steer import doubt_limit
    from world_models.load import load_world

    positive(episodes=args.episodes, processes=args.processes)
    if args.doubt_limit is not None:
        positive(doubt_limit=args.doubt_limit)
    need("world", [args.world])
    world = load_world(args.world)
    found = candidates(world.spec, args.policy, args.steerer)
    real = _real_rows(args.real, found) if args.real else {}
    seeds = _seeds(args.seed, "imagined", args.episodes)
    count, limit = min(args.processes, ceil(args.episodes / _IMAGINED_BATCH)), args.doubt_limit
    with workers(partial(_Imagined, args), args.backend, count) as run_jobs:
        if limit is None:
            plain = found[0]._replace(label="doubt")
            trial = _seeds(args.seed, "validation", args.episodes)
            done = _judged(run_jobs, 0, plain, trial, _IMAGINED_BATCH, "imagined")
            limit = doubt_limit(done.episodes, TRUSTED)
        judged = _judge(run_jobs, found, seeds, _IMAGINED_BATCH, "imagined", limit)
    imagined = {row["label"]: row for row in judged["policies"]}
    gaps = {
        label: {"real": r["rate"], "imagined": i["rate"], "gap": r["rate"] - i["rate"]}
        for label, r in real.items()
        for i in (imagined[label],)
    }
    refused = refusal(judged["policies"])
    ranking = {} if refused else _ranking(list(real.values()), [imagined[label] for label in real])
    common: Result = {"task": world.spec.task, "world": folder_hash(args.world)}
    common["doubt_limit"] = limit if isfinite(limit) else None
    return {**common, **judged, "real_minus_imagined": gaps, "ranking": ranking, "refused": refused}


class _Imagined:
    """What a worker of `imagine` does: many episodes at once in a world model of its own."""

    def __init__(self, args: Imagine):
        from world_models.load import imagination, load_world, start_states

        world = load_world(args.world, args.compiler)
        self.candidates = candidates(world.spec, args.policy, args.steerer)
        # The rows that no steerer practised from.
        _, starts = start_states(args.world)
        self.imagination = partial(imagination, world, starts)

    def __call__(self, job: _Job) -> Evaluation:
        from robopolicy.evaluate import evaluate

        one, env = self.candidates[job.candidate], self.imagination(len(job.seeds), job.doubt_limit)
        return evaluate(cast("ChunkEnv", env), one.policy, one.steerer, job.seeds, one.label, quiet=True)


def refusal(rows: Sequence[Result]) -> str:
    """Why imagination should rank none of these policies; empty if it may."""
    lost = [f"{r['label']} ({r['doubtful']:.0%})" for r in rows if r["doubtful"] > DOUBTFUL]
    if not lost:
        return ""
    return (
        f"the world model does not know what {', '.join(lost)} would meet: more than {DOUBTFUL:.0%} of those "
        "chunks diverge, or are in greater doubt than 99% of what it was calibrated on. Collect rollouts, "
        "train it again."
    )


class _Job(NamedTuple):
    candidate: int
    seeds: list[int]
    doubt_limit: float


def _judge(
    run_jobs: Run[_Job, Evaluation],
    found: Sequence[Candidate],
    seeds: list[int],
    batch: int,
    where: str,
    doubt_limit: float = inf,
) -> Result:
    """The result format that simulator and imagination share."""
    from robopolicy.evaluate import compare

    done = [(c, _judged(run_jobs, i, c, seeds, batch, where, doubt_limit)) for i, c in enumerate(found)]
    return {
        "policies": [_row(c, e) for c, e in done],
        # Of all pairs; those with the first policy come first.
        "differences": [
            {"first": a.label, "second": b.label, **compare(x, y).to_dict()}
            for (a, x), (b, y) in combinations(done, 2)
        ],
    }


def _judged(
    run_jobs: Run[_Job, Evaluation],
    index: int,
    candidate: Candidate,
    seeds: list[int],
    batch: int,
    where: str,
    doubt_limit: float = inf,
) -> Evaluation:
    """One candidate, `batch` episodes to a job."""
    from robopolicy.evaluate import joined
    from robopolicy.progress import Progress

    jobs = [_Job(index, seeds[i : i + batch], doubt_limit) for i in range(0, len(seeds), batch)]
    parts: dict[int, Evaluation] = {}
    with Progress(f"{candidate.label} ({where})", len(seeds)) as bar:
        for i, part in run_jobs(jobs):
            parts[i] = part
            bar.advance(len(part.seeds))
    return joined([parts[i] for i in range(len(jobs))])


def _row(candidate: Candidate, e: Evaluation) -> Result:
    return {
        "label": candidate.label,
        **e.rate.to_dict(),
        "hashes": candidate.hashes,
        "steps": e.steps,
        "seconds": round(e.seconds, 3),
        "steps_per_s": e.steps / e.seconds,
        "mean_doubt": e.mean_doubt,
        "doubtful": e.doubtful,
        "ended": dict(Counter(x.reason or "success" for x in e.episodes)),
        "outcomes": {str(seed): won for seed, won in zip(e.seeds, e.outcomes, strict=True)},
    }


def _real_rows(path: Path, candidates: Sequence[Candidate]) -> dict[str, Result]:
    """Real results by label, of those policies that are judged here too (by hash, not by name)."""
    from robopolicy.checkpoint import read_json

    result = read_json(path)
    if result.get("verb") != "evaluate" or not isinstance(result.get("policies"), list):
        raise BadInput("real", "the result.json of an evaluation", f"{path} (of {result.get('verb')})")
    found = {c.label: row for c in candidates for row in result["policies"] if row.get("hashes") == c.hashes}
    if not found:
        raise BadInput("real", "an evaluation of the same policies", f"{path} (of others)")
    return found


def _ranking(real: Sequence[Result], imagined: Sequence[Result]) -> Result:
    """Whether imagination orders these policies as the simulator did; empty for fewer than three."""
    import numpy as np

    from robopolicy.ranking import FEWEST, rank
    from robopolicy.seeding import stream

    if len(real) < FEWEST:
        return {}

    def table(rows: Sequence[Result]) -> np.ndarray:
        shared = sorted(set.intersection(*(set(row["outcomes"]) for row in rows)), key=int)
        return np.array([[row["outcomes"][seed] for seed in shared] for row in rows])

    return rank(table(real), table(imagined), stream(0, "bootstrap", "ranking")).to_dict()


def _seeds(seed: int, stage: str, episodes: int) -> list[int]:
    from robopolicy.seeding import episode_seed

    try:
        return [episode_seed(seed, stage, i) for i in range(episodes)]
    except ValueError as e:
        raise BadInput("seed, episodes", "inside the range of seeds", e) from e


def promote(args: Promote) -> int:
    """Judges the evidence; see `Promote`."""
    from robopolicy.checkpoint import read_json
    from robopolicy.steering import promotion

    verdict = promotion.promote(args.steerer, read_json(args.real))
    say(f"{'promoted' if verdict.promoted else 'not promoted'}: {verdict.reason}")
    return 0 if verdict.promoted else 1


def report(args: Report) -> int:
    """Writes the page; see `Report`."""
    first, *others = need("run", args.run)
    from robopolicy.report.compare import compare_runs
    from robopolicy.report.page import make_report

    if others:
        say(str(compare_runs(args.run, args.out or first / "compared.html")))
    else:
        say(str(make_report(first, args.out or first / "report.html")))
    return 0
