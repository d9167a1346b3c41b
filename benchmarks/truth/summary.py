"""Makes one table of what the units of the study found: `benchmarks/results/truth.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.truth import tables
from benchmarks.truth.page import scatter, write_page
from robopolicy.checkpoint import read_json, write_atomic, write_json
from robopolicy.ranking import mmrv, pearson
from robopolicy.results import hardware, versions
from robopolicy.stats import wilson

RESULTS = Path(__file__).parents[1] / "results"
UNITS = RESULTS / "truth"
REFERENCES = RESULTS / "truth-reference"
STEERING = RESULTS / "truth-steering"
PICTURE = RESULTS.parents[1] / "docs" / "figures" / "truth.svg"
ARMS = ("base", "steered", "steered_refresh")
TABLES = {
    "Tasks": tables.by_task,
    "Units": tables.by_seed,
    "What parts of steering are worth": tables.steering,
    "What parts of the world model are worth": tables.world,
}


def summarise() -> dict[str, Any]:
    """Pools the units by task, by imperfection and over all; writes and returns the result, {} if none."""
    units, worlds = _all(UNITS), _all(RESULTS, "world-ablation-*.json")
    if not units:
        return {}
    references = _grouped(_all(REFERENCES), lambda x: x["task"])
    tasks = _grouped(units, lambda u: u["task"])
    kinds = _grouped(units, lambda u: u["imperfection"])
    ranked = [p for u in units for p in u["ranking"]["policies"].values()]
    result = {
        "schema": 1,
        "tasks": {
            name: {**_task(found), **_reference(references.get(name, []))} for name, found in tasks.items()
        },
        "pooled": _pooled(units, ranked),
        "replay": {
            name: {k: _sum(u["trust"]["replay"][k] for u in found) for k in found[0]["trust"]["replay"]}
            for name, found in tasks.items()
        },
        "doubt": {
            name: {"spearman": _mean(u["trust"]["doubt"]["spearman"] for u in found)}
            for name, found in tasks.items()
        },
        "by_imperfection": {name: _arms(found) for name, found in kinds.items()},
        "mean": {arm: _mean(_arms(found)[arm]["rate"] for found in tasks.values()) for arm in ARMS},
        "ablations": {"steering": _steering(_all(STEERING)), "world": _world(worlds)},
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(RESULTS / "truth.json", result)
    write_page(RESULTS / "truth.html", {name: table(result) for name, table in TABLES.items()}, units)
    write_atomic(PICTURE, scatter(units).encode())
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
                "promoted": u["promotion"]["promoted"],
            }
            for u in units
        ],
        "ranking": {
            **{m: _mean(u["ranking"][m]["value"] for u in units) for m in measures},
            "policies": sum(len(u["ranking"]["policies"]) for u in units),
            "verdicts": [u["ranking"]["verdict"] for u in units],
        },
    }


def _difference(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of independent differences of equally many episodes; the variances behind their intervals add."""
    mean = _mean(r["mean"] for r in rows)
    half = float(np.sqrt(sum(((r["high"] - r["low"]) / 2) ** 2 for r in rows))) / len(rows)
    return {"mean": mean, "low": mean - half, "high": mean + half}


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
    """Each variant of the world model over the same units: how far it is from the truth."""
    if not worlds:
        return {}

    def of(name: str) -> dict[str, Any]:
        rows = [(w["variants"][name], w["real"]) for w in worlds]
        return {
            "gap": _mean(
                abs(v["imagined"][label]["rate"] - r[label]["rate"]) for v, r in rows for label in r
            ),
            "mmrv": _mean(
                _mmrv([{"real": r[label], "imagined": v["imagined"][label]} for label in r]) for v, r in rows
            ),
            **{k: _sum(v["replay"][k] for v, _ in rows) for k in rows[0][0]["replay"]},
            "doubt_spearman": _mean(v["doubt_spearman"] for v, _ in rows),
            "onset_auc": _mean(v["onset"]["auc"] for v, _ in rows),
        }

    units = [f"{w['task']}-{w['master_seed']}" for w in worlds]
    return {"units": units, **{name: of(name) for name in worlds[0]["variants"]}}


def _arms(units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {arm: _sum(u[arm]["real"] for u in units) for arm in ARMS}


def _pooled(units: Sequence[Mapping[str, Any]], ranked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all policies of all units; violations of order count within a unit only."""
    real, imagined = (np.array([p[where]["rate"] for p in ranked]) for where in ("real", "imagined"))
    return {
        "policies": len(ranked),
        "pearson": pearson(real, imagined),
        "mmrv": _mean(_mmrv(u["ranking"]["policies"].values()) for u in units),
        "mean_gap": float(np.abs(real - imagined).mean()),
    }


def _mmrv(policies: Iterable[Mapping[str, Any]]) -> float:
    rates = np.array([[p["real"]["rate"], p["imagined"]["rate"]] for p in policies])
    return mmrv(rates[:, 0], rates[:, 1])


def _all(folder: Path, names: str = "*.json") -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(folder.glob(names))]


def _grouped(units: Sequence[dict], key: Callable[[dict], str]) -> dict[str, list[dict]]:
    return {name: [u for u in units if key(u) == name] for name in dict.fromkeys(key(u) for u in units)}


def _sum(rates: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rows = list(rates)
    return wilson(sum(r["successes"] for r in rows), sum(r["episodes"] for r in rows)).to_dict()


def _mean(numbers: Iterable[float]) -> float:
    return float(np.mean(list(numbers)))
