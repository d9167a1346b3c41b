"""What all verbs share: finishing once, measuring, naming the nearest choice, one table at the end."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from rich.table import Table

    from robopolicy.protocols import ChunkEnv

Result = dict[str, Any]


def say(text: str | Table, markup: bool = False) -> None:
    """Prints for the user; lines are never broken, so that paths can be copied."""
    from rich.console import Console

    Console(highlight=False).print(text, markup=markup, soft_wrap=isinstance(text, str))


class HasOut(Protocol):
    """Arguments of a verb that leaves a `result.json`."""

    @property
    def out(self) -> Path: ...


def run(
    verb: str,
    args: HasOut,
    settings: Any,
    work: Callable[[], Result],
    again: bool = False,
    shared: bool = False,
) -> Result:
    """Does `work` unless `args.out` already holds its result, and writes down what came out.

    Args:
        verb: its name.
        args: its arguments, a dataclass.
        settings: the stage's resolved config, a dataclass or none.
        work: returns the verb's own fields.
        again: `work` knows what to do in a folder whose artefact is finished and whose result is not.
        shared: `accelerate launch` may start several processes that do `work` together.

    Raises:
        BadInput: if there are several and they cannot; if the folder holds something else, or another process
            writes there; nothing has been written.
    """
    from robopolicy.processes import alone, count, leads
    from robopolicy.results import PeakMemory, Stopwatch, write_result

    if not shared and count() > 1:
        raise BadInput("accelerate launch", f"one process for this {verb}", count())
    config = {"args": plain(args), "settings": plain(settings) if settings else {}}
    with alone(args.out) if leads() else nullcontext():
        done = _finished(verb, args.out, config, again)
        if done is not None:
            say(f"{args.out} is finished already: nothing to do (delete it to start over)")
            return done
        watch = Stopwatch()
        with PeakMemory() as memory, watch.stage(verb):
            fields = work()
        measured = {"wall_clock_s": watch.seconds[verb], "peak_memory_mb": memory.mb}
        if not leads():
            return {"verb": verb, "config": config, **fields, **measured}
        return write_result(args.out, verb, {"config": config, **fields, **measured})


def _finished(verb: str, out: Path, config: Result, again: bool) -> Result | None:
    """The result in `out` if the same verb with the same settings finished there; none if it is free."""
    from robopolicy.checkpoint import REMEMBERED, is_sealed, read_json
    from robopolicy.results import RESULT

    if out.exists() and not out.is_dir():
        raise BadInput("out", "a folder", f"{out} (a file)")
    if not (out / RESULT).is_file():
        # Sealed but without a result: the run ended between the two. The artefact itself is whole.
        said = again or (out / REMEMBERED).is_file() or not is_sealed(out)
        return None if said else {"verb": verb, "config": config}
    found = read_json(out / RESULT)
    if found.get("verb") != verb:
        raise BadInput("out", f"a free folder or one of {verb}", f"{out} (holds a {found.get('verb')})")
    differing = _differences(found.get("config", {}), config)
    if differing:
        raise BadInput("out", "a free folder or the same settings as before", f"{out}, other {differing}")
    return found


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    # How many processes work and where, and what is logged, changes no result.
    keys = [
        f"{k}.{name}"
        for k in ("args", "settings")
        for name in sorted({*before.get(k, {}), *after[k]} - {"out", "processes", "backend", "log"})
        if before.get(k, {}).get(name) != after[k].get(name)
    ]
    return ", ".join(keys)


def plain(settings: Any) -> Result:
    """A dataclass as JSON-able values; paths as they were given."""
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def choose[T](field: str, table: Mapping[str, T], name: str) -> T:
    """`table[name]`; an unknown name is refused with the nearest known one."""
    if name not in table:
        near = difflib.get_close_matches(name, table, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BadInput(field, f"one of {sorted(table)}", f"{name!r}{hint}")
    return table[name]


def with_changes[T](config: T, **changes: Any) -> T:
    """A frozen config with the changes that are not none."""
    given = {k: v for k, v in changes.items() if v is not None}
    return dataclasses.replace(config, **given)  # pyright: ignore[reportArgumentType, reportCallIssue]


def need(field: str, folders: Sequence[Path]) -> list[Path]:
    """At least one folder, all of them there."""
    if not folders:
        raise BadInput(field, "at least one folder", "none")
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(field, "a folder", f"{folder} (no such folder)")
    return list(folders)


def positive(**numbers: float) -> None:
    """Refuses numbers that are not above zero, by name."""
    for name, number in numbers.items():
        if not number > 0:
            raise BadInput(name, "a positive number", number)


@contextmanager
def simulator(
    task: str, processes: int, chunk: int | None = None, linger: int = 0, seen: int | None = None
) -> Iterator[ChunkEnv]:
    """The real simulator; see `sim.vector.SimVectorEnv`. The cores belong to its processes meanwhile."""
    import torch

    from sim.vector import SimVectorEnv

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    env = SimVectorEnv(task, processes, chunk, linger, seen)
    try:
        # gymnasium means something else by `spec`, so its type hides ours.
        yield cast("ChunkEnv", env)
    finally:
        env.close(terminate=True)
        torch.set_num_threads(threads)


def show(result: Result) -> None:
    """Prints the table with which a verb ends."""
    from rich.table import Table

    if "policies" in result:
        say(_judged(result))
        if result.get("refused"):
            say(f"refuses to rank these policies: {result['refused']}")
        elif result.get("ranking"):
            say(_ranked(result["ranking"]))
        return
    if "runs" in result:
        say(_swept(result))
        return
    table = Table(title=result["verb"], show_header=False)
    for name, value in result.items():
        if isinstance(value, bool | int | float | str) and name not in ("schema", "verb"):
            # 16 digits of a hash are enough to compare; the file has them all.
            text = f"{value:,.4g}" if isinstance(value, float) else str(value)
            table.add_row(name.replace("_", " "), text[:16] if name in ("hash", "steerer") else text)
        elif isinstance(value, dict) and "rate" in value:
            table.add_row(name, rate(value))
    table.add_row("out", result["config"]["args"]["out"])
    say(table)
    if not result.get("helped", True):
        best, plain_policy = rate(result["best"]), rate(result["prior"])
        say(f"does not help, as far as these episodes tell: at best {best}, the plain policy {plain_policy}")


def _swept(result: Result) -> Table:
    """A line for each run: what it came to, and where it lies."""
    from rich.table import Table

    table = Table(title=f"sweep of {result['swept']}")
    table.add_column("run")
    rows = []
    for run_result in result["runs"]:
        policies = {p["label"]: p for p in run_result.get("policies", [])}
        found = {
            k: rate(v) for k, v in (run_result | policies).items() if isinstance(v, dict) and "rate" in v
        }
        rows.append((run_result["name"], found, f"{run_result['wall_clock_s']:,.0f} s"))
    names = list(dict.fromkeys(name for _, found, _ in rows for name in found))
    for name in (*names, "time"):
        table.add_column(name.replace("_", " "), justify="right")
    for name, found, seconds in rows:
        table.add_row(name, *(found.get(n, "") for n in names), seconds)
    return table


def _judged(result: Result) -> Table:
    from rich.table import Table

    table = Table(title=result["verb"])
    for heading in ("policy", "success [95%]", "minus first [95%]", "real - imagined", "steps/s"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    # A refusal to rank refuses the comparisons too.
    compared = [] if result.get("refused") else result["differences"]
    differences = {d["second"]: d for d in compared if d["first"] == result["policies"][0]["label"]}
    gaps = result["real_minus_imagined"]
    for row in result["policies"]:
        label = row["label"]
        d, gap = differences.get(label), gaps.get(label)
        difference = f"{d['mean']:+.1%} [{d['low']:+.1%}, {d['high']:+.1%}]" if d else ""
        gap_text = f"{gap['gap']:+.1%}" if gap else ""
        table.add_row(label, rate(row), difference, gap_text, f"{row['steps_per_s']:,.0f}")
    return table


def _ranked(ranking: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="ranking", show_header=False)
    table.add_row("can this world model rank these policies?", ranking["verdict"])
    for name in ("pearson", "spearman", "kendall", "mmrv", "gap"):
        m = ranking[name]
        table.add_row(name, f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]")
    return table


def rate(row: Mapping[str, Any]) -> str:
    """ "62% [54%, 70%] (62/100)" """
    share = f"{row['rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
    return f"{share} ({row['successes']}/{row['episodes']})"
