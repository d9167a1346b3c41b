"""benchmarks/results/policies.json, and the tables of docs/policies.md, from what each comparison found.

python -m benchmarks.policies.summary
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.policies.common import pooled
from robopolicy.checkpoint import read_json, write_json
from robopolicy.seeding import stream
from robopolicy.stats import paired

RESULTS = Path(__file__).parents[1] / "results"
PARTS = RESULTS / "policies"
KINDS = ("dp", "stacked", "lstm", "sega")
_MEMORIES = ("diffusion", "stacked windows", "LSTM", "SEGA")
_CURVES = ("dp", "sega", "lstm")
# One task at three horizons: raise the hand once, twice, three times.
HORIZONS = {"short": "count-once", "medium": "count-twice", "long": "count"}

Row = Mapping[str, Any]


def main() -> None:
    """Sums up what is there."""
    write_json(RESULTS / "policies.json", summed())


def summed() -> dict[str, Any]:
    """The results file; a comparison that was not made is left out."""
    result: dict[str, Any] = {"schema": 1}
    # Helped: with a helper, and SEGA's gates half open to begin with.
    units, helped = _units("memory"), _units("memory-helped")
    if units:
        result |= _memory(units)
    if helped:
        result["helped"] = _rates(helped)
    # With as many demonstrations and updates as on the tasks that are learned sooner.
    if fewer := _units("memory-fewer"):
        result["fewer"] = _rates(fewer)
    for name, found in (("ablations", units), ("helped_ablations", helped)):
        if ablated := _ablated(found):
            result[name] = ablated
    if sampling := _part("sampling"):
        result["beso"] = sampling["tasks"]
        result["chunk_ms"] = {name: unit for name, unit in _times(sampling["units"].values()).items()}
    if levels := _part("levels"):
        result["levels"] = levels["ways"]
    if steered := _part("steered"):
        result["steered_sega"] = {k: steered[k] for k in ("base", "steered")}
    if realtime := _part("realtime"):
        names = {"foresight": "foreseen", "with": "joined", "without": "still", "switched": "switched"}
        result["rtc"] = {
            delay: {
                name: ways[way]["success"] | {"seam": ways[way]["seam"]}
                for name, way in names.items()
                if way in ways
            }
            for delay, ways in realtime["delays"].items()
        }
    if language := _part("language"):
        result["language"] = language["kinds"]
    if (speed := _part("speed")) and "acting" in speed:
        acting = speed["acting"]
        result["speed"] = {
            "train_state_ratio": speed["training"]["ratio"],
            "train_image_ratio": speed["training_with_pictures"]["ratio"],
            "chunk_latency_ratio": acting["ratio"]["quick"],
            "over_bare_forward": acting["over_bare_forward"]["quick"],
            "equal_success": _succeeded(speed),
        }
    return result


def _succeeded(speed: Row) -> Row:
    """Success of those who were timed, and of LeRobot's at another learning rate."""
    found = {k: r for k, r in speed.get("equal_success", {}).items() if "rate" in r}
    if at_our_rate := speed.get("equal_success_at_our_rate"):
        found["lerobot_at_our_rate"] = at_our_rate["lerobot"]
    return found


def _part(name: str) -> dict[str, Any] | None:
    path = PARTS / f"{name}.json"
    return read_json(path) if path.is_file() else None


def _units(name: str) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted((PARTS / name).glob("*.json"))]


def _memory(units: list[dict[str, Any]]) -> dict[str, Any]:
    tasks = _rates(units)
    horizon = {h: tasks[task] for h, task in HORIZONS.items() if {*_CURVES} <= tasks.get(task, {}).keys()}
    longer = [u["kinds"] for u in units if all("beyond" in u["kinds"].get(kind, {}) for kind in KINDS)]
    return {
        "memory": tasks,
        "horizon": {h: {kind: rates[kind] for kind in _CURVES} for h, rates in horizon.items()},
        "against": _against(units),
        "beyond": {kind: pooled(row[kind]["beyond"] for row in longer) for kind in KINDS if longer},
    }


def _against(units: list[dict[str, Any]]) -> dict[str, Any]:
    """SEGA's success on all tasks less that of each of the others, in the same episodes."""
    found = {}
    for kind in KINDS[:-1]:
        rows = [u["kinds"] for u in units if {kind, "sega"} <= u["kinds"].keys()]
        seeds = [(r, seed) for r in rows for seed in r["sega"]["outcomes"]]
        own, other = ([r[k]["outcomes"][seed] for r, seed in seeds] for k in ("sega", kind))
        if rows:
            found[kind] = paired(other, own, stream(0, "against")).to_dict()
    return found


def _rates(units: list[dict[str, Any]]) -> dict[str, Any]:
    """By task what all its seeds give together, for the kinds that all of them have."""
    tasks: dict[str, Any] = {}
    for task in sorted({u["task"] for u in units}):
        rows = [u["kinds"] for u in units if u["task"] == task]
        tasks[task] = {k: pooled(r[k]["success"] for r in rows) for k in KINDS if all(k in r for r in rows)}
        tasks[task]["seeds"] = sorted(u["seed"] for u in units if u["task"] == task)
    return tasks


def _ablated(units: list[dict[str, Any]]) -> dict[str, Any]:
    """By task SEGA, and SEGA without one of its parts."""
    units, tasks = [u for u in units if u["kinds"].keys() - {*KINDS}], {}
    for task in sorted({u["task"] for u in units}):
        found = [u for u in units if u["task"] == task]
        kinds = ["sega", *(k for k in found[0]["kinds"] if k not in KINDS)]
        tasks[task] = {k: pooled(u["kinds"][k]["success"] for u in found) for k in kinds}
        tasks[task]["seeds"] = [u["seed"] for u in found]
    return tasks


def _times(units: Iterable[Row]) -> dict[str, float]:
    rows = list(units)
    return {name: sum(r[name]["ms"] for r in rows) / len(rows) for name in rows[0]}


def memory(result: Row, which: str = "memory") -> str:
    """One line per task that needs memory."""
    rows = result.get(which, {})
    head = ("task", "seeds", *_MEMORIES)
    return _table(
        head, ((n, len(r["seeds"]), *(rate(r[k]) if k in r else "" for k in KINDS)) for n, r in rows.items())
    )


def fewer(result: Row) -> str:
    """The same with less to learn from."""
    return memory(result, "fewer")


def against(result: Row) -> str:
    """How much better SEGA is over all tasks."""
    names = dict(zip(KINDS, _MEMORIES, strict=True))
    rows = result.get("against", {})
    return _table(
        ("SEGA, against", "points", "only SEGA succeeds", "only the other", "p"),
        ((names[k], _points(r), r["fixed"], r["broken"], _chance(r["p_value"])) for k, r in rows.items()),
    )


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _points(row: Row) -> str:
    """A difference in points with its interval."""
    mean, low, high = (f"{100 * row[k]:+.1f}" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def beyond(result: Row) -> str:
    """Success where the wait is longer than any that was demonstrated."""
    row = result.get("beyond", {})
    rows = [[*(rate(row[k]) for k in KINDS), row[KINDS[0]]["episodes"]]] if row else []
    return _table((*_MEMORIES, "episodes each"), rows)


def ablations(result: Row, which: str = "ablations") -> str:
    """What SEGA is worth without a part of it."""
    rows = result.get(which, {})
    head = ("SEGA", *(f"{task}, {len(r['seeds'])} seeds" for task, r in rows.items()))
    kinds = [k for k in next(iter(rows.values()), {}) if k != "seeds"]
    return _table(head, ((k, *(rate(r[k]) for r in rows.values())) for k in kinds))


def helped_ablations(result: Row) -> str:
    """The same where it was trained with a helper."""
    return ablations(result, "helped_ablations")


def helped(result: Row) -> str:
    """What remembers, as it was trained with a helper."""
    rows = result.get("helped", {})
    lines = ((n, len(r["seeds"]), rate(r["lstm"]), rate(r["sega"])) for n, r in rows.items())
    return _table(("task", "seeds", "LSTM", "SEGA"), lines)


def sampling(result: Row) -> str:
    """One line per task: success by sampler; the last line is milliseconds per chunk."""
    rows = result.get("beso", {})
    names = list(next(iter(rows.values()), {}))
    lines = [(task, *(rate(r[n]) for n in names)) for task, r in rows.items()]
    if rows:
        lines.append(("ms per chunk", *(f"{result['chunk_ms'][n]:.1f}" for n in names)))
    return _table(("task", *names), lines)


def levels(result: Row) -> str:
    """Success of three steps of BESO by where they are; the last line is a diffusion policy's."""
    rows = dict(result.get("levels", {}))
    lines = [("DDIM, 8 steps", "", rate(rows.pop("ddim8")))] if rows else []
    return _table(
        ("second and third level", "last call sees", "lever-pull"),
        [*((", ".join(n.split(", ")[:2]), n.split(", ")[2], rate(r)) for n, r in rows.items()), *lines],
    )


def delays(result: Row) -> str:
    """One line per delay: success and jumps at the seams."""
    ways = {
        "foresight": "foresight",
        "with": "real-time chunking",
        "switched": "switched",
        "without": "still",
    }
    moving = [w for w in ways if w != "without"]
    head = ("delay in steps", *ways.values(), *(f"seam, {ways[w]}" for w in moving))
    rows = result.get("rtc", {})
    return _table(
        head,
        (
            (d, *(rate(r[w]) if w in r else "" for w in ways), *(_seam(r, w) for w in moving))
            for d, r in rows.items()
        ),
    )


def _seam(row: Row, way: str) -> str:
    return f"{row[way]['seam']:.2f}" if way in row else ""


def steered(result: Row) -> str:
    """SEGA before and after DSRL."""
    rows = result.get("steered_sega", {})
    head = ("SEGA on push", "real", "imagined", "real episodes")
    found = ((n, rate(r["real"]), rate(r["imagined"]), r["real"]["episodes"]) for n, r in rows.items())
    return _table(head, found)


def language(result: Row) -> str:
    """One line per kind of policy that is told what to do."""
    rows, ways = result.get("language", {}), ("new", "familiar", "goals")
    head = ("policy", "new wordings", "wordings demonstrated", "goals")
    return _table(head, ((k, *(rate(r[w]) if w in r else "" for w in ways)) for k, r in rows.items() if r))


def speed(result: Row) -> str:
    """Ratios to LeRobot."""
    s = result.get("speed")
    if not s:
        return _NOTHING
    success, latency, over = s["equal_success"], s["chunk_latency_ratio"], s["over_bare_forward"]
    ratio, pictured = s["train_state_ratio"], s["train_image_ratio"]
    return (
        "Updates per second against `lerobot-train`, the same network, batch and dataset:\n"
        f"{ratio:.0f} times as many, {pictured:.1f} times with pictures. A chunk takes 1/{1 / latency:,.0f}\n"
        "of the time that LeRobot's diffusion policy takes with its default settings (its network is that\n"
        f"much larger, and called 100 times), and {over:.2f} times that of its own network\n"
        f"alone.{_equal(success)}\n"
    )


def _equal(success: Row) -> str:
    """What those who were timed achieve; the timing alone where that is not measured yet."""
    if not success:
        return " That they succeed as often is not measured yet."
    ours, beso, lerobot = (rate(success[k]) for k in ("diffusion", "beso", "lerobot"))
    said = f" Success on push: ours\n{ours}, with three steps of BESO {beso},\nLeRobot's {lerobot}"
    if at_our_rate := success.get("lerobot_at_our_rate"):
        said += f" at its\nown learning rate, {rate(at_our_rate)} at ours"
    return said + "."


_NOTHING = "Not measured yet.\n"


def rate(row: Row) -> str:
    """A success rate with its interval."""
    return f"{row['rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(map(str, row)) for row in rows]
    if not lines:
        return _NOTHING
    names = list(map(str, head))
    everything = [names, ["---"] * len(names), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in everything)


if __name__ == "__main__":
    main()
