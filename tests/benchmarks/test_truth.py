"""The summary of the study is what its units say, no more."""

import json

import pytest

from benchmarks.truth import summary, tables

KEYS = ("base", "steered", "steered_refresh")


def rate(successes, episodes=100):
    p = successes / episodes
    return {"successes": successes, "episodes": episodes, "rate": p, "low": p, "high": p}


def both(real, imagined):
    return {"real": rate(real), "imagined": rate(imagined)}


def unit(task, seed, steered, imperfection="mixed"):
    measure = {"value": 0.9, "low": 0.8, "high": 1.0}
    difference = {"mean": 0.1, "low": 0.0, "high": 0.2}
    return {
        "task": task,
        "seed": seed,
        "imperfection": imperfection,
        "base": both(40, 38),
        "steered": both(steered, steered + 2),
        "steered_refresh": both(95, 96),
        "paired_difference": difference,
        "refresh": {"paired_difference": difference, "real_steps": 4000, "episodes": 100},
        "gap": {"base": 0.02, "steered": -0.02, "steered_refresh": -0.01},
        "versions": {"python": "3.12"},
        "hardware": {"cpu": "a"},
        "ranking": {
            **dict.fromkeys(("pearson", "spearman", "kendall", "mmrv", "gap"), measure),
            "verdict": "yes",
            "policies": {
                "policy": both(40, 38),
                "steerer": both(steered, steered + 2),
                "worse": both(10, 90),
            },
        },
        "trust": {
            "replay": {"failures_as_failures": rate(9, 10), "successes_as_successes": rate(8, 10)},
            "doubt": {"spearman": 0.7},
        },
    }


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The summary's folders, with three units."""
    monkeypatch.setattr(summary, "RESULTS", tmp_path)
    monkeypatch.setattr(summary, "UNITS", tmp_path / "truth")
    monkeypatch.setattr(summary, "REFERENCES", tmp_path / "truth-reference")
    monkeypatch.setattr(summary, "REFRESHED", tmp_path / "truth-refreshed")
    monkeypatch.setattr(summary, "STEERING", tmp_path / "truth-steering")
    monkeypatch.setattr(summary, "WORLDS", tmp_path / "truth-worlds")
    monkeypatch.setattr(summary, "PICTURE", tmp_path / "truth.svg")
    (tmp_path / "truth").mkdir()
    for u in (unit("push", 30, 90), unit("push", 31, 70), unit("soccer", 30, 60, "few")):
        (tmp_path / "truth" / f"{u['task']}-{u['seed']}.json").write_text(json.dumps(u))
    return tmp_path


def test_summary_of_units_pools_their_episodes(results):
    truth = summary.summarise()
    push = truth["tasks"]["push"]
    assert push["seeds"] == [30, 31]
    assert (push["steered"]["successes"], push["steered"]["episodes"]) == (160, 200)
    assert push["difference"]["mean"] == pytest.approx(0.1)
    assert push["difference"]["low"] == pytest.approx(0.1 - 0.1 / 2**0.5)
    assert truth["by_imperfection"]["few"]["steered"]["rate"] == 0.6
    mean = truth["mean"]["steered"]
    assert mean["rate"] == pytest.approx((0.8 + 0.6) / 2)
    assert mean["low"] < 0.7 < mean["high"]
    assert truth["tasks"]["push"]["ranking"]["intervals"]["mmrv"] == pytest.approx(
        [0.9 - 0.1 / 2**0.5, 0.9 + 0.1 / 2**0.5]
    )
    assert truth["hardware"] == [{"cpu": "a"}]
    assert truth["replay"]["push"]["failures_as_failures"]["episodes"] == 20
    assert truth["doubt"]["push"]["spearman"] == pytest.approx(0.7)
    assert truth["pooled"]["policies"] == 9
    assert truth["pooled"]["mean_gap"] == pytest.approx((2 + 2 + 80) / 300)
    assert json.loads((results / "truth.json").read_text())["tasks"] == truth["tasks"]


def test_tables_quote_every_task_and_unit(results):
    truth = summary.summarise()
    assert tables.by_task(truth).count("\n") == 2 + 2 + 1
    assert tables.by_seed(truth).count("\n") == 2 + 3
    assert "80.0%" in tables.by_task(truth)
    page = (results / "truth.html").read_text()
    assert page.count("<table>") == page.count("</table>")
    assert "soccer (few)" in page
    assert "| few | soccer |" in tables.by_kind(truth)
    assert (results / "truth.svg").read_text().startswith("<svg")


def test_references_steering_and_world_ablations_enter_the_summary(results):
    variant = {
        "imagined": {"base": rate(30), "steered": rate(80)},
        "steered": both(85, 90),
        "replay": {"failures_as_failures": rate(9, 10), "successes_as_successes": rate(8, 10)},
        "doubt_spearman": 0.5,
        "onset": {"auc": 0.9},
    }
    world = {"real": {"base": rate(40), "steered": rate(90)}, "variants": {"full": variant}}
    replayed = {"failures_as_failures": rate(7, 10), "successes_as_successes": rate(8, 10)}
    found = {
        "refreshed": {
            "world": replayed,
            "world-refreshed": replayed | {"failures_as_failures": rate(10, 10)},
        },
        "reference": {**rate(97), "real_steps": 30_000},
        "steering": {"base": both(40, 38), "ppo": both(80, 85)},
        "worlds": world,
    }
    for what, value in found.items():
        (results / f"truth-{what}").mkdir()
        file = results / f"truth-{what}" / "push-30.json"
        file.write_text(json.dumps({"task": "push", "seed": 30, "found": value}))
    truth = summary.summarise()
    assert truth["tasks"]["push"]["reference_real_dsrl"]["real_steps"] == 30_000
    assert "reference_real_dsrl" not in truth["tasks"]["soccer"]
    assert truth["ablations"]["steering"]["ppo"]["real"]["rate"] == 0.8
    assert truth["ablations"]["world"]["push-30"]["full"]["gap"] == pytest.approx(0.1)
    rounds = truth["replay_by_round"]["push"]
    assert rounds["world"]["failures_as_failures"]["rate"] == 0.7
    assert rounds["world-refreshed"]["failures_as_failures"]["rate"] == 1.0
    assert "| push | 70.0%" in tables.by_round(truth)
    assert "ppo" in tables.steering(truth)
    assert "full" in tables.world(truth)


def test_summary_without_units_writes_nothing(tmp_path, monkeypatch):
    for name in ("RESULTS", "UNITS", "REFERENCES", "REFRESHED", "STEERING", "WORLDS"):
        monkeypatch.setattr(summary, name, tmp_path / name)
    summary.summarise()
    assert not list(tmp_path.rglob("*.json"))
