"""Makes one table of what the units of the study found: `benchmarks/results/truth.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.checkpoint import read_json, write_json
from robopolicy.ranking import mmrv, pearson
from robopolicy.results import hardware, versions
from robopolicy.stats import wilson

RESULTS = Path(__file__).parents[1] / "results"
UNITS = RESULTS / "truth"
ARMS = ("base", "steered", "steered_refresh")


def summarise() -> dict[str, Any]:
    """Pools the units by task, by imperfection and over all; writes and returns the result."""
    units = [read_json(path) for path in sorted(UNITS.glob("*.json"))]
    tasks = _grouped(units, lambda u: u["task"])
    kinds = _grouped(units, lambda u: u["imperfection"])
    ranked = [p for u in units for p in u["ranking"]["policies"].values()]
    result = {
        "schema": 1,
        "tasks": {name: _task(found) for name, found in tasks.items()},
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
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(RESULTS / "truth.json", result)
    return result


def _task(units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    measures = ("pearson", "spearman", "kendall", "mmrv", "gap")
    return {
        **_arms(units),
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


def _arms(units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {arm: _sum(u[arm]["real"] for u in units) for arm in ARMS}


def _pooled(units: Sequence[Mapping[str, Any]], ranked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all policies of all units; violations of order count within a unit only."""
    if not ranked:
        return {}
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


def _grouped(units: Sequence[dict], key: Callable[[dict], str]) -> dict[str, list[dict]]:
    return {name: [u for u in units if key(u) == name] for name in dict.fromkeys(key(u) for u in units)}


def _sum(rates: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rows = list(rates)
    return wilson(sum(r["successes"] for r in rows), sum(r["episodes"] for r in rows)).to_dict()


def _mean(numbers: Iterable[float]) -> float:
    return float(np.mean(list(numbers)))
