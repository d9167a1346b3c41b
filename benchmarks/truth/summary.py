"""Makes one table of what the units of the study found: `benchmarks/results/truth.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.truth import tables
from benchmarks.truth.page import scatter, write_page
from benchmarks.truth.unit import REFRESH, Unit
from robopolicy.checkpoint import read_json, write_atomic, write_json
from robopolicy.ranking import mmrv, pearson
from robopolicy.report.svg import standalone
from robopolicy.seeding import stream
from robopolicy.stats import wilson

RESULTS = Path(__file__).parents[1] / "results"
UNITS = RESULTS / "truth"
REFERENCES = RESULTS / "truth-reference"
REFRESHED = RESULTS / "truth-refreshed"
STEERING = RESULTS / "truth-steering"
WORLDS = RESULTS / "truth-worlds"
PICTURE = RESULTS.parents[1] / "docs" / "figures" / "truth.svg"
ARMS = ("base", "steered", "steered_refresh")
_REPLAYED = ("failures_as_failures", "successes_as_successes")
_DRAWS = 1000  # of the bootstrap
TABLES = {
    "Tasks": tables.by_task,
    "Kinds of imperfection": tables.by_kind,
    "Units": tables.by_seed,
    "Replay by the world models of both rounds": tables.by_round,
    "What parts of steering are worth": tables.steering,
    "What parts of the world model are worth": tables.world,
}


def summarise() -> dict[str, Any]:
    """Pools the units by task, by imperfection and over all; writes and returns the result, {} if none."""
    units = _all(UNITS)
    if not units:
        return {}
    references = _grouped(_all(REFERENCES), lambda x: x["task"])
    tasks = _grouped(units, lambda u: u["task"])
    kinds = _grouped(units, lambda u: u["imperfection"])
    result = {
        "schema": 1,
        "verb": "truth",
        "config": {
            "preset": Unit.preset,
            "seeds": sorted({u["seed"] for u in units}),
            "real_episodes": sorted({u[arm]["real"]["episodes"] for u in units for arm in ARMS}),
            "refresh_episodes": REFRESH,
        },
        "tasks": {
            name: {**_task(found), **_reference(references.get(name, []))} for name, found in tasks.items()
        },
        "pooled": _pooled(units),
        "replay": {
            name: {k: _sum(u["trust"]["replay"][k] for u in found) for k in _REPLAYED}
            for name, found in tasks.items()
        },
        "replay_by_round": {
            name: {
                world: {k: _sum(x["found"][world][k] for x in found) for k in _REPLAYED}
                for world in ("world", "world-refreshed")
            }
            for name, found in _grouped(_all(REFRESHED), lambda x: x["task"]).items()
        },
        "doubt": {
            name: {"spearman": _mean(rows), "lowest": min(rows), "highest": max(rows)}
            for name, found in tasks.items()
            for rows in ([u["trust"]["doubt"]["spearman"] for u in found],)
        },
        "by_imperfection": {name: _arms(found) for name, found in kinds.items()},
        "mean": {
            arm: _mean_rate([[u[arm]["real"] for u in found] for found in tasks.values()]) for arm in ARMS
        },
        "ablations": {"steering": _steering(_all(STEERING)), "world": _world(_all(WORLDS))},
        # Of the machines that measured.
        **{k: _distinct(u[k] for u in units) for k in ("versions", "hardware")},
    }
    write_json(RESULTS / "truth.json", result)
    write_page(RESULTS / "truth.html", {name: table(result) for name, table in TABLES.items()}, units)
    write_atomic(PICTURE, standalone(scatter(units)))
    return result


def _task(units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    measures = ("pearson", "spearman", "kendall", "mmrv", "gap")
    return {
        **_arms(units),
        "difference": _difference([u["paired_difference"] for u in units]),
        "refresh_difference": _difference([u["refresh"]["paired_difference"] for u in units]),
        "imperfection": units[0]["imperfection"],
        "seeds": [u["seed"] for u in units],
        "per_seed": [
            {
                "seed": u["seed"],
                **{arm: u[arm]["real"]["rate"] for arm in ARMS},
                "difference": u["paired_difference"],
                "refresh_difference": u["refresh"]["paired_difference"],
                "real_steps_of_refresh": u["refresh"]["real_steps"],
                "gap": u["gap"],
            }
            for u in units
        ],
        "ranking": {
            **{m: _mean(u["ranking"][m]["value"] for u in units) for m in measures},
            "intervals": {m: _mean_interval([u["ranking"][m] for u in units]) for m in measures},
            "policies": min(len(u["ranking"]["policies"]) for u in units),
            "verdicts": [
                "refused" if u["ranking"].get("refused") else u["ranking"]["verdict"] for u in units
            ],
        },
    }


def _difference(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of independent differences of equally many episodes."""
    low, high = _mean_interval([{**r, "value": r["mean"]} for r in rows])
    return {"mean": _mean(r["mean"] for r in rows), "low": low, "high": high}


def _mean_interval(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """Of the mean of independent values with intervals; the variances behind them add."""
    mean = _mean(r["value"] for r in rows)
    below, above = (
        float(np.sqrt(sum((r[end] - r["value"]) ** 2 for r in rows))) / len(rows) for end in ("low", "high")
    )
    return [mean - below, mean + above]


def _reference(references: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """DSRL in the real simulator; nothing where none was run."""
    rows = [x["found"] for x in references]
    if not rows:
        return {}
    return {"reference_real_dsrl": {**_sum(rows), "real_steps": sum(r["real_steps"] for r in rows)}}


def _steering(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each way of steering over the same units, real and imagined."""
    if not parts:
        return {}
    tried = {
        name: {where: _sum(x["found"][name][where] for x in parts) for where in ("real", "imagined")}
        for name in parts[0]["found"]
    }
    return {"units": [f"{x['task']}-{x['seed']}" for x in parts], **tried}


def _world(worlds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By unit, each variant of the world model: how true it is, what steering gains."""

    def of(variant: Mapping[str, Any], real: Mapping[str, Any]) -> dict[str, Any]:
        both = [{"real": real[label], "imagined": variant["imagined"][label]} for label in real]
        return {
            "gap": _mean(abs(b["imagined"]["rate"] - b["real"]["rate"]) for b in both),
            "mmrv": _mmrv(both),
            **variant["replay"],
            "steered": variant["steered"],
            "doubt_spearman": variant["doubt_spearman"],
            "onset_auc": variant["onset"]["auc"],
        }

    return {
        f"{w['task']}-{w['seed']}": {
            name: of(variant, w["found"]["real"]) for name, variant in w["found"]["variants"].items()
        }
        for w in worlds
    }


def _arms(units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {arm: _sum(u[arm]["real"] for u in units) for arm in ARMS}


def _mean_rate(tasks: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Mean over tasks of the rate over their seeds; the bootstrap draws seeds, then episodes."""
    rng = stream(0, "bootstrap", "mean")
    drawn = []
    for _ in range(_DRAWS):
        chosen = [[rows[i] for i in rng.integers(len(rows), size=len(rows))] for rows in tasks]
        drawn.append(
            _mean(_mean(rng.binomial(r["episodes"], r["rate"]) / r["episodes"] for r in c) for c in chosen)
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"rate": _mean(_sum(rows)["rate"] for rows in tasks), "low": float(low), "high": float(high)}


def _pooled(units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all policies of all units; the bootstrap draws units."""
    rng, found = stream(0, "bootstrap", "pooled"), _agreement(units)
    drawn = [_agreement([units[i] for i in rng.integers(len(units), size=len(units))]) for _ in range(_DRAWS)]
    return {
        "policies": sum(len(u["ranking"]["policies"]) for u in units),
        **found,
        "intervals": {k: np.quantile([d[k] for d in drawn], [0.025, 0.975]).tolist() for k in found},
    }


def _agreement(units: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of imagined with real success; violations of order count within a unit only."""
    rows = [list(u["ranking"]["policies"].values()) for u in units]
    real, imagined = (np.array([p[w]["rate"] for ps in rows for p in ps]) for w in ("real", "imagined"))
    return {
        "pearson": pearson(real, imagined),
        "mmrv": _mean(_mmrv(ps) for ps in rows),
        "mean_gap": float(np.abs(real - imagined).mean()),
    }


def _mmrv(policies: Iterable[Mapping[str, Any]]) -> float:
    rates = np.array([[p["real"]["rate"], p["imagined"]["rate"]] for p in policies])
    return mmrv(rates[:, 0], rates[:, 1])


def _all(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(folder.glob("*.json"))]


def _distinct(rows: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for row in rows:
        if row not in found:
            found.append(row)
    return found


def _grouped(units: Sequence[dict], key: Callable[[dict], str]) -> dict[str, list[dict]]:
    return {name: [u for u in units if key(u) == name] for name in dict.fromkeys(key(u) for u in units)}


def _sum(rates: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rows = list(rates)
    return wilson(sum(r["successes"] for r in rows), sum(r["episodes"] for r in rows)).to_dict()


def _mean(numbers: Iterable[float]) -> float:
    return float(np.mean(list(numbers)))
