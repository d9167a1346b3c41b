"""The whole chain, stage by stage, from the verbs' own functions; what `robopolicy demo` runs."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from robopolicy.cli.collect import Collect, collect
from robopolicy.cli.common import Result, choose, plain, say
from robopolicy.cli.convert import Convert, convert
from robopolicy.cli.demo import Demo
from robopolicy.cli.film import film
from robopolicy.cli.judge import Evaluate, Imagine, evaluate, imagine
from robopolicy.cli.learn import Steer, Train, steer, train
from robopolicy.cli.world import TrainEye, TrainWorld, train_eye, train_world
from robopolicy.errors import BadInput, RoboPolicyError

if TYPE_CHECKING:
    from robopolicy.cli.demo import Demo

SETUP_SECONDS = "setup-seconds"


@dataclass(frozen=True)
class Recipe:
    """How much of everything a demo collects and judges.

    Attributes:
        demos: demonstrations; none for as many as the task's own recipe says.
        prior: rollouts of the policy as trained.
        uniform: rollouts with bounded noise, drawn anew for each action.
        repeat: rollouts with one bounded noise vector repeated along the chunk.
        young: rollouts of the policy at each age of `YOUTH`: then it fails in ways of its own.
        random: episodes of aimless actions.
        episodes: real held-out episodes per policy.
        imagined: imagined episodes per policy.
    """

    demos: int | None = None
    prior: int = 80
    uniform: int = 40
    repeat: int = 80
    young: int = 30
    random: int = 10
    episodes: int = 150
    imagined: int = 512


RECIPES = {
    "quick": Recipe(),
    "full": Recipe(200, 200, 100, 200, 75, 40, 300, 2048),
    "tiny": Recipe(6, 3, 2, 3, 1, 2, 3, 8),
}
# Side in pixels of the pictures that a demo with a pixel world model is made of.
PICTURES = {"quick": 32, "full": 64, "tiny": 32}
# Ages of a policy whose failures the world model learns from too, in per cent of its training.
YOUTH = (5, 10, 25)


def run(args: Demo) -> int:
    """Runs every stage that has not finished yet and prints one table."""
    from robopolicy.config import POLICY_PRESETS
    from robopolicy.results import Stopwatch
    from robopolicy.steering.promotion import promote

    recipe = choose("preset", RECIPES, args.preset)
    out = args.out
    demos, world, policy, steerer = (out / n for n in ("demos", "world", "policy", "steerer"))
    trained, young = POLICY_PRESETS[args.preset].steps, {p: out / f"policy-young-{p}" for p in YOUTH}
    common: dict[str, Any] = {"seed": args.seed}
    imitation: dict[str, Any] = {"policy": args.policy, "preset": args.preset, **common}
    parallel: dict[str, Any] = {**common, "processes": args.processes}

    task, eye = args.task, None if args.world == "state" else out / "eye"
    if args.world == "latent" and args.eye != "points":
        raise BadInput("eye", "points, which a latent world model imagines", args.eye)
    shot = 0 if eye is None else PICTURES[args.preset]
    # Only a world model of pictures needs those of every episode; what an eye saw is in the state.
    pixel = args.world == "pixel"
    filmed = shot if pixel else 0

    def data(name: str, episodes: int | None, first: int = 0, size: int = filmed, **how: Any) -> Result:
        how |= {"pictures": size, "cameras": args.cameras, **parallel}
        return collect(Collect(out / name, task, episodes, first=first, **how))

    stages: dict[str, list[Result]] = {}
    recorded = demos if eye is None else out / "filmed"
    stages["collect"] = [data(recorded.name, recipe.demos, size=shot)]
    if eye is not None:
        stages["train_eye"] = [train_eye(TrainEye((recorded,), eye, args.eye, args.preset, **common))]
        stages["collect"].append(convert(Convert(recorded, demos, eye=eye)))
        task = str(eye)  # from here on, nothing else is seen
    stages["train"] = [
        train(Train((demos,), policy, **imitation)),
        *(
            train(Train((demos,), folder, steps=-(-trained * percent // 100), **imitation))
            for percent, folder in young.items()
        ),
    ]
    # Each source has start states of its own: `first` keeps their seeds apart.
    stages["collect"] += [
        data("rollouts-prior", recipe.prior, 0, policy=policy),
        data("rollouts-uniform", recipe.uniform, 10_000, policy=policy, noise="uniform", bound=2.0),
        data("rollouts-repeat", recipe.repeat, 20_000, policy=policy, noise="repeat"),
        *(
            data(f"rollouts-young-{percent}", recipe.young, 60_000 + 1000 * percent, policy=folder)
            for percent, folder in young.items()
        ),
        data("random", recipe.random, 30_000, expert="random"),
    ]
    rollouts = tuple(out / f"rollouts-{n}" for n in ("prior", "uniform", "repeat"))
    failures = (*(out / f"rollouts-young-{percent}" for percent in YOUTH), out / "random")
    everything = (recorded if pixel else demos, *rollouts, *failures)
    imagining: dict[str, Any] = {"eye": eye if pixel else None, "preset": args.preset, **parallel}
    stages["train_world"] = [train_world(TrainWorld(everything, world, **imagining))]
    frozen, real_steps = _hashes(policy, world), _real_steps()
    stages["steer"] = [steer(Steer(policy, rollouts, steerer, world, preset=args.preset, **common))]
    judged = {"policy": (policy,), **common}

    def dream(world: Path, steerer: Path, name: str) -> Result:
        return imagine(Imagine(world, out=out / name, steerer=(steerer,), episodes=recipe.imagined, **judged))

    imagined, steerers = dream(world, steerer, "imagined"), [steerer]
    after, real_steps = _hashes(policy, world), _real_steps() - real_steps
    if after != frozen:
        raise RoboPolicyError("steering changed the policy or the world model on disk")
    dreams = [*imagined["policies"]]
    if args.refresh:
        more, new_world, again = (out / f"{n}-refreshed" for n in ("rollouts", "world", "steerer"))
        seen = (*rollouts, more)
        stages["refresh"] = [
            data(more.name, args.refresh, 40_000, policy=policy, steerer=steerer),
            train_world(TrainWorld((*everything, more), new_world, **imagining)),
            steer(Steer(policy, seen, again, new_world, preset=args.preset, **common)),
        ]
        steerers.append(again)
        dreams.append(dream(new_world, again, "imagined-refreshed")["policies"][1])
    exam = {"task": task, "episodes": recipe.episodes, "processes": args.processes, **judged}
    real = evaluate(Evaluate(out=out / "real", steerer=tuple(steerers), **exam))
    stages["evaluate"] = [imagined, real]

    _require_results(stages)
    watch = Stopwatch()
    with watch.stage("film"):
        if not (out / "episodes.json").is_file():
            film(out, task, policy, steerer, world, args.seed)

    result = _result(args, recipe, stages, dreams, real, watch.seconds)
    result["real_steps_between_world_and_evaluation"] = real_steps
    result["promotion"] = asdict([promote(s, real) for s in steerers][-1])
    result["hashes"] = {k: {"before": frozen[k], "after": after[k]} for k in frozen}
    _write(args, result, stages)
    _table(result)
    return 0


def _require_results(stages: dict[str, list[Result]]) -> None:
    """Refuses a stage that left its artefact but, killed in the moment between, no result of it."""
    for results in stages.values():
        for r in results:
            if "wall_clock_s" not in r:
                folder = r["config"]["args"]["out"]
                raise RoboPolicyError(f"{folder} is whole but has no result.json: delete it, run again")


def _result(
    args: Demo,
    recipe: Recipe,
    stages: dict[str, list[Result]],
    dreams: list[Result],
    real: Result,
    film_s: dict[str, float],
) -> Result:
    """The fields that every demo reports, from the results of its stages."""
    from sim.tasks import find_task

    rows = {"real": real["policies"], "imagined": dreams}
    keys = ("successes", "episodes", "rate", "low", "high")
    rates = {
        name: {where: {k: rows[where][i][k] for k in keys} for where in rows}
        for i, name in enumerate(("base", "steered", "steered_refresh")[: len(dreams)])
    }
    differences = [{k: v for k, v in d.items() if k not in ("first", "second")} for d in real["differences"]]
    refreshed: Result = {}
    if args.refresh:
        first = stages["refresh"][0]
        refreshed["refresh"] = {
            "episodes": first["episodes"],
            "real_steps": first["steps"],
            "paired_difference": differences[1],
        }
    seconds = {name: round(sum(r["wall_clock_s"] for r in rs), 1) for name, rs in stages.items()}
    seconds = {"setup": _setup_seconds(), **seconds, **film_s}
    speed = {
        f"{where}_steps_per_s": round(sum(r["steps"] for r in rs) / sum(r["seconds"] for r in rs), 1)
        for where, rs in rows.items()
    }
    return {
        "task": args.task,
        "imperfection": find_task(args.task).demonstrations.imperfection,
        "preset": args.preset,
        "master_seed": args.seed,
        **rates,
        "paired_difference": differences[0],
        **refreshed,
        "gap": {n: rates[n]["real"]["rate"] - rates[n]["imagined"]["rate"] for n in rates},
        "wall_clock_s": {**seconds, "total": round(sum(seconds.values()), 1)},
        "speed": {**speed, "processes": real["processes"]},
        "peak_memory_mb": max(r["peak_memory_mb"] for rs in stages.values() for r in rs),
        "config": {"args": plain(args), "recipe": plain(recipe)} | _settings(stages),
    }


def _settings(stages: dict[str, list[Result]]) -> dict[str, Any]:
    """The resolved configuration of each stage that has one."""
    configs = {name: results[0]["config"]["settings"] for name, results in stages.items()}
    return {name: config for name, config in configs.items() if config}


def _write(args: Demo, result: Result, stages: dict[str, list[Result]]) -> None:
    from robopolicy.checkpoint import write_json
    from robopolicy.report.page import make_report
    from robopolicy.results import write_result

    write_result(args.out, "demo", result)
    world = stages["train_world"][0]["curves"]
    curves = {
        "policy": stages["train"][0]["curve"],
        "world": world["members"],
        "steer": stages["steer"][0]["curve"],
    }
    write_json(args.out / "curves.json", curves)
    make_report(args.out, args.out / "report.html")


def _hashes(policy: Path, world: Path) -> dict[str, str]:
    from robopolicy.checkpoint import folder_hash

    return {"policy": folder_hash(policy), "world": folder_hash(world)}


def _real_steps() -> int:
    """Simulator steps this process has taken so far; none if no simulator was ever loaded."""
    simulator = sys.modules.get("sim.vector")
    return simulator.steps_taken() if simulator else 0


def _setup_seconds() -> float:
    """How long `make setup` took to install everything here."""
    note = Path(sys.prefix) / SETUP_SECONDS
    return float(note.read_text()) if note.is_file() else 0.0


def _table(result: Result) -> None:
    d, seconds, speed = result["paired_difference"], result["wall_clock_s"], result["speed"]
    stages = ", ".join(f"{k} {v:.0f}" for k, v in seconds.items() if k != "total")
    episodes = {where: result["base"][where]["episodes"] for where in ("real", "imagined")}
    table = Table(
        title=f"demo: {result['task']}, seed {result['master_seed']}",
        caption=f"""steered - base: {d["mean"]:+.1%} [{d["low"]:+.1%}, {d["high"]:+.1%}] in the real simulator
{"promoted" if result["promotion"]["promoted"] else "not promoted: no evidence that it helps"}
{result["real_steps_between_world_and_evaluation"]} real steps while steering
{speed["imagined_steps_per_s"]:,.0f} imagined steps/s, {speed["real_steps_per_s"]:,.0f} real
{seconds["total"]:.0f} s ({stages})
{result["peak_memory_mb"]:,.0f} MB of memory at the most""",
        caption_justify="left",
    )
    table.add_column("success [95%]")
    table.add_column(f"real simulator ({episodes['real']})", justify="right")
    table.add_column(f"imagined ({episodes['imagined']})", justify="right")
    table.add_column("gap", justify="right")
    for name in result["gap"]:
        real, imagined = (_interval(result[name][where]) for where in ("real", "imagined"))
        table.add_row(name, real, imagined, f"{result['gap'][name]:+.1%}")
    say(table)
    say(f"report: {result['config']['args']['out']}/report.html")


def _interval(row: Result) -> str:
    return f"{row['rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
