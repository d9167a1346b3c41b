"""`robopolicy evaluate` and `imagine`: the same judging in the simulator and in a world model; `report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from robopolicy.cli.common import Result, need, positive, run, say, simulator
from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from robopolicy.evaluate import Evaluation
    from robopolicy.protocols import ChunkEnv, Policy, Steerer
    from robopolicy.spec import Spec

# Imagined episodes that run at the same time; changes no episode.
_IMAGINED_BATCH = 256
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
        processes: simulators that run at the same time; changes no episode.
    """

    policy: tuple[Path, ...]
    out: Path
    steerer: tuple[Path, ...] = ()
    task: str = "lift"
    wording: Literal["familiar", "new"] = "new"
    delay: int = 0
    episodes: int = 100
    seed: int = 0
    processes: int = 2


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
    """

    world: Path
    policy: tuple[Path, ...]
    out: Path
    steerer: tuple[Path, ...] = ()
    episodes: int = 512
    real: Path | None = None
    doubt_limit: float | None = None
    seed: int = 0


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
    """Make one self-contained HTML page of a run.

    Example: robopolicy report --run runs/demo

    Attributes:
        run: folder of a run, such as that of "robopolicy demo".
        out: the page; report.html in the run's folder by default.
    """

    run: Path
    out: Path | None = None


class _Candidate(NamedTuple):
    label: str
    policy: Policy
    steerer: Steerer | None
    hashes: dict[str, str]


def evaluate(args: Evaluate) -> Result:
    """Judges in the real simulator; see `Evaluate`."""
    return run("evaluate", args, None, lambda: _evaluate(args))


def imagine(args: Imagine) -> Result:
    """Judges in imagination; see `Imagine`."""
    return run("imagine", args, None, lambda: _imagine(args))


def _evaluate(args: Evaluate) -> Result:
    from robopolicy.policies.told import told
    from robopolicy.seeding import episode_seed
    from sim.tasks import find_task

    positive(episodes=args.episodes, processes=args.processes)
    task = find_task(args.task)
    candidates = _candidates(task.spec, args.policy, args.steerer)
    if task.instruct:
        say_it = partial(task.instruct, familiar=args.wording == "familiar")
        candidates = [c._replace(policy=told(c.policy, say_it)) for c in candidates]
    candidates = [c._replace(policy=_delayed(c, args.delay)) for c in candidates]
    acted, seen = candidates[0].policy.spec.chunk, candidates[0].policy.spec.obs_steps
    seeds = _seeds(args.seed, "held_out", args.episodes)
    with simulator(args.task, min(args.processes, args.episodes), acted, seen=seen) as env:
        # Builds and warms the simulators, so that the speed measured is theirs.
        env.reset(seed=[episode_seed(args.seed, "warmup", i) for i in range(env.num_envs)])
        judged = _judge(env, candidates, seeds, "real")
    return {"task": args.task, "processes": env.num_envs, **judged, "real_minus_imagined": {}}


def _delayed(candidate: _Candidate, delay: int) -> Policy:
    """The policy when each of its chunks takes so many control steps."""
    from robopolicy.policies.load import ChunkPolicy
    from robopolicy.realtime import RealtimePolicy

    policy = candidate.policy
    if not delay:
        return policy
    if candidate.steerer or not isinstance(policy, ChunkPolicy):
        wanted = "0, but for a policy of ours without steerer that is told nothing"
        raise BadInput("delay", wanted, f"{delay} for {candidate.label}")
    most = policy.spec.chunk // 2
    if not 0 < delay <= most:
        raise BadInput("delay", f"0 to {most}, half of the policy's chunk", delay)
    return RealtimePolicy(policy, policy.spec.chunk - delay, delay)


def _imagine(args: Imagine) -> Result:
    from robopolicy.checkpoint import folder_hash
    from robopolicy.steering.steer import trusted_doubt
    from world_models.load import imagination, load_world, start_states

    positive(episodes=args.episodes)
    if args.doubt_limit is not None:
        positive(doubt_limit=args.doubt_limit)
    need("world", [args.world])
    world = load_world(args.world)
    candidates = _candidates(world.spec, args.policy, args.steerer)
    real = _real_rows(args.real, candidates) if args.real else {}
    # The rows that no steerer practised from.
    _, starts = start_states(args.world)
    batch, limit = min(_IMAGINED_BATCH, args.episodes), args.doubt_limit
    if limit is None:
        unlimited = cast("ChunkEnv", imagination(world, starts, batch))
        limit = trusted_doubt(unlimited, candidates[0].policy, args.episodes, args.seed, TRUSTED)
    env = imagination(world, starts, batch, limit)
    seeds = _seeds(args.seed, "imagined", args.episodes)
    judged = _judge(cast("ChunkEnv", env), candidates, seeds, "imagined")
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


def _judge(env: ChunkEnv, candidates: Sequence[_Candidate], seeds: list[int], where: str) -> Result:
    """The result format that simulator and imagination share."""
    from robopolicy.evaluate import compare, evaluate

    done = [(c, evaluate(env, c.policy, c.steerer, seeds, f"{c.label} ({where})")) for c in candidates]
    return {
        "policies": [_row(c, e) for c, e in done],
        # Of all pairs; those with the first policy come first.
        "differences": [
            {"first": a.label, "second": b.label, **compare(x, y).to_dict()}
            for (a, x), (b, y) in combinations(done, 2)
        ],
    }


def _row(candidate: _Candidate, e: Evaluation) -> Result:
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


def _candidates(spec: Spec, policies: Sequence[Path], steerers: Sequence[Path]) -> list[_Candidate]:
    """Every policy by itself, then every steerer with the policy it was trained for."""
    from robopolicy.checkpoint import folder_hash, read_json
    from robopolicy.policies.load import load_policy
    from robopolicy.steering.load import load_steerer
    from robopolicy.steering.steerer import policy_hash

    need("policy", policies)
    if steerers:
        need("steerer", steerers)
    labels = _labels([*policies, *steerers])
    candidates: list[_Candidate] = []
    for folder in policies:
        policy = load_policy(folder, spec)
        spec.require(policy.spec, "policy")
        hashes = {"policy": folder_hash(folder)}
        candidates.append(_Candidate(labels[folder], policy, None, hashes))
    plain, by_hash = list(candidates), {policy_hash(c.policy): c for c in candidates}
    for folder in steerers:
        config = read_json(folder / "config.json")
        # Where none fits, the loader says what is wrong with the first.
        own = by_hash.get(str(config.get("policy_hash")), plain[0])
        steerer = load_steerer(folder, own.policy)
        hashes = {**own.hashes, "steerer": folder_hash(folder)}
        candidates.append(_Candidate(labels[folder], own.policy, steerer, hashes))
    return candidates


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """Folder names, or whole paths where names repeat."""
    if len(set(folders)) < len(folders):
        raise BadInput("policy, steerer", "different folders", [str(f) for f in folders])
    names = Counter(f.resolve().name for f in folders)
    return {f: f.resolve().name if names[f.resolve().name] == 1 else str(f) for f in folders}


def _real_rows(path: Path, candidates: Sequence[_Candidate]) -> dict[str, Result]:
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
    need("run", [args.run])
    from robopolicy.report import make_report

    page = make_report(args.run, args.out or args.run / "report.html")
    say(str(page))
    return 0
