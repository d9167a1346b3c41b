"""Tables of the study, in Markdown, from `benchmarks/results/truth.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_IMAGINED = {
    "latent": "points",
    "latent2": "points of two cameras",
    "pixel": "pictures, seen through points",
    "read": "pictures, read by the policy",
}


def by_task(truth: Row) -> str:
    """One line per task: success of base and steered policy, and how true imagination was."""
    lines = _head(
        "task (demonstrations)",
        "seeds",
        "base",
        "steered, no real step",
        "gain",
        "refreshed with 100 real episodes",
        "real - imagined",
        "r",
        "MMRV",
        "failures, successes replayed as such",
        "doubt",
    )
    for name, t in truth["tasks"].items():
        ranking, replay = t["ranking"], truth["replay"][name]
        gaps = [p["gap"]["steered"] for p in t["per_seed"]]
        failures, successes = (replay[f"{x}_as_{x}"]["rate"] for x in ("failures", "successes"))
        lines.append(
            _row(
                f"{name} ({t['imperfection']})",
                len(t["seeds"]),
                rate(t["base"]),
                rate(t["steered"]),
                gain(t["difference"]),
                rate(t["steered_refresh"]),
                f"{sum(gaps) / len(gaps):+.1%}",
                f"{ranking['pearson']:.2f}",
                f"{ranking['mmrv']:.3f}",
                f"{failures:.0%}, {successes:.0%}",
                f"{truth['doubt'][name]['spearman']:.2f}",
            )
        )
    base, steered, refreshed = (rate(truth["mean"][arm]) for arm in ("base", "steered", "steered_refresh"))
    better = sum(t["difference"]["low"] > 0 for t in truth["tasks"].values())
    gains = f"better on {better} of {len(truth['tasks'])}"
    lines.append(_row("mean of the tasks", "", base, steered, gains, refreshed, "", "", "", "", ""))
    return _text(lines)


def by_kind(truth: Row) -> str:
    """One line per kind of imperfection of the demonstrations."""
    tasks = truth["tasks"]
    lines = _head("demonstrations", "tasks", "base", "steered, no real step", "refreshed")
    for kind, arms in truth["by_imperfection"].items():
        names = ", ".join(name for name, t in tasks.items() if t["imperfection"] == kind)
        lines.append(_row(kind, names, *(rate(arms[arm]) for arm in ("base", "steered", "steered_refresh"))))
    return _text(lines)


def by_seed(truth: Row) -> str:
    """One line per unit: the paired gains with their intervals."""
    lines = _head(
        "task", "master seed", "base", "steered", "gain", "refreshed", "gain", "real steps of the refresh"
    )
    for name, t in truth["tasks"].items():
        for p in t["per_seed"]:
            lines.append(
                _row(
                    name,
                    p["seed"],
                    f"{p['base']:.1%}",
                    f"{p['steered']:.1%}",
                    gain(p["difference"]),
                    f"{p['steered_refresh']:.1%}",
                    gain(p["refresh_difference"]),
                    f"{p['real_steps_of_refresh']:,}",
                )
            )
    return _text(lines)


def by_round(truth: Row) -> str:
    """How the world models of both rounds replay the same episodes, which neither has seen."""
    if not truth["replay_by_round"]:
        return "Not run yet.\n"
    lines = _head(
        "task", *(f"{kind}, {w}" for kind in ("failures", "successes") for w in ("first", "refreshed"))
    )
    for name, worlds in truth["replay_by_round"].items():
        kinds = ("failures_as_failures", "successes_as_successes")
        cells = (rate(worlds[w][kind]) for kind in kinds for w in ("world", "world-refreshed"))
        lines.append(_row(name, *cells))
    return _text(lines)


def steering(truth: Row) -> str:
    """Ways of steering, over the same units."""
    table = truth["ablations"]["steering"]
    if not table:
        return "Not run yet.\n"
    lines = _head("steering", "real", "imagined")
    for name, row in table.items():
        if name != "units":
            lines.append(_row(name, rate(row["real"]), rate(row["imagined"])))
    for name, t in truth["tasks"].items():
        if "reference_real_dsrl" in t:
            reference = t["reference_real_dsrl"]
            steps = f"{reference['real_steps']:,} real steps"
            lines.append(_row(f"{name}: DSRL in the real simulator, {steps}", rate(reference), ""))
    return _text(lines)


def world(truth: Row) -> str:
    """Variants of the world model, a table per unit."""
    units = truth["ablations"]["world"]
    if not units:
        return "Not run yet.\n"
    return "\n".join(f"{unit}:\n\n{_variants(rows)}" for unit, rows in units.items())


def _variants(rows: Row) -> str:
    lines = _head(
        "world model",
        "steered in it, real",
        "imagined",
        "mean gap",
        "MMRV",
        "failures as failures",
        "successes as successes",
        "doubt",
        "onset AUC",
    )
    for name, row in rows.items():
        lines.append(
            _row(
                name,
                rate(row["steered"]["real"]),
                rate(row["steered"]["imagined"]),
                f"{row['gap']:.1%}",
                f"{row['mmrv']:.3f}",
                rate(row["failures_as_failures"]),
                rate(row["successes_as_successes"]),
                f"{row['doubt_spearman']:.2f}",
                f"{row['onset_auc']:.2f}",
            )
        )
    return _text(lines)


def ranking(truth: Row) -> str:
    """Agreement of the orders over all policies, and per task."""
    pooled, units = truth["pooled"], sum(len(t["seeds"]) for t in truth["tasks"].values())
    within = pooled["intervals"]
    low, high = within["mean_gap"]
    lines = [
        f"Over {pooled['policies']} policies of {units} units:",
        f"Pearson {_within(pooled['pearson'], within['pearson'])},",
        f"mean MMRV {_within(pooled['mmrv'], within['mmrv'])},",
        f"mean absolute gap {pooled['mean_gap']:.1%} [{low:.1%}, {high:.1%}].",
        "",
        *_head("task", "Pearson", "Spearman", "Kendall", "MMRV", "mean absolute gap", "can it rank these?"),
    ]
    for name, t in truth["tasks"].items():
        r = t["ranking"]
        cells = (_within(r[m], r["intervals"][m]) for m in ("pearson", "spearman", "kendall", "mmrv", "gap"))
        lines.append(_row(name, *cells, ", ".join(r["verdicts"])))
    return _text(lines)


def sensitivity(units: Mapping[str, Row]) -> str:
    """How often reality itself repeats what was recorded; `benchmarks.sensitivity`."""
    if not units:
        return "Not run yet.\n"
    offs = list(next(iter(units.values())))
    lines = _head("unit: failures, successes that end as before", *(f"{off} off" for off in offs))
    for name, row in units.items():
        cells = (", ".join(f"{kind['rate']:.0%}" for kind in row[off].values()) for off in offs)
        lines.append(_row(name, *cells))
    return _text(lines)


def shared(result: Row) -> str:
    """One world model for several tasks against one for each; `benchmarks.multi_task`."""
    if not result:
        return "Not run yet.\n"
    lines = _head("failures, successes replayed as such; doubt; onset AUC", *result["units"])
    for name, rows in result["models"].items():
        cells = (
            f"{', '.join(f'{kind["rate"]:.0%}' for kind in row['replay'].values())}; "
            f"{row['doubt_spearman']:.2f}; {row['onset']['auc']:.2f}"
            for row in rows.values()
        )
        lines.append(_row(name, *cells))
    return _text(lines)


def before(units: Sequence[Row]) -> str:
    """How true imagination was in single units, from their own results."""
    lines = _head(
        "task", "seed", "Pearson", "MMRV", "mean absolute gap", "failures, successes replayed as such"
    )
    for u in units:
        r, replay = u["ranking"], u["trust"]["replay"]
        cells = (_within(r[m]["value"], (r[m]["low"], r[m]["high"])) for m in ("pearson", "mmrv", "gap"))
        failures, successes = (replay[f"{x}_as_{x}"]["rate"] for x in ("failures", "successes"))
        lines.append(_row(u["task"], u["seed"], *cells, f"{failures:.0%}, {successes:.0%}"))
    return _text(lines)


def pictures(chains: Mapping[str, Row]) -> str:
    """One line per chain that saw pictures alone, of `benchmarks.pixels`."""
    lines = _head(
        "what is imagined",
        "task",
        "seed",
        "base",
        "steered, no real step",
        "gain",
        "imagined base, steered",
        "r",
        "MMRV",
    )
    for name, unit in chains.items():
        kind, task, seed = name.rsplit("-", 2)
        ranking, arms = unit.get("ranking"), ("base", "steered")
        lines.append(
            _row(
                _IMAGINED[kind],
                task,
                seed,
                *(rate(unit[arm]["real"]) for arm in arms),
                gain(unit["paired_difference"]),
                ", ".join(f"{unit[arm]['imagined']['rate']:.1%}" for arm in arms),
                *(f"{ranking[k]['value']:.2f}" if ranking else "" for k in ("pearson", "mmrv")),
            )
        )
    return _text(lines)


def codes(found: Mapping[str, Row]) -> str:
    """One line per way of telling a pixel world model of actions, of `benchmarks.pixels`."""
    lines = _head(
        "actions", "PSNR", "nothing changes", "SSIM", "Frechet distance", "error with other actions"
    )
    for name, row in found.items():
        ours, still = (row["chunk"][k] for k in ("model", "no_change"))
        ratio = f"{row['action_error_ratio']:.2f} times"
        decibels = (f"{x['psnr_db']:.1f} dB" for x in (ours, still))
        lines.append(_row(name, *decibels, f"{ours['ssim']:.3f}", f"{row['frechet']:.1f}", ratio))
    return _text(lines)


def rate(row: Row) -> str:
    """A rate with its interval."""
    return f"{row['rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"


def gain(d: Row) -> str:
    """A paired difference with its interval."""
    return f"{d['mean']:+.1%} [{d['low']:+.1%}, {d['high']:+.1%}]"


def _within(value: float, interval: Sequence[float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _head(*names: str) -> list[str]:
    return [_row(*names), _row(*["---"] * len(names))]


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(c) for c in cells)} |"


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
