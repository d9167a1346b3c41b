"""What the comparisons of policies measure by."""

import dataclasses
import re
import sys

import numpy as np
import pytest
import torch
from tiny import normal, random_episodes, tiny_spec

from benchmarks.policies import levels, realtime, summary
from benchmarks.policies.common import compare, pooled
from benchmarks.policies.figures import horizon, paths
from benchmarks.policies.memory import ABLATIONS, KINDS, matched, parameters
from benchmarks.policies.sampling import Ddpm
from robopolicy.checkpoint import read_json, write_json
from robopolicy.data.windows import PolicyWindows
from robopolicy.nets.sampling import Beso, Ddim
from robopolicy.stats import wilson

SPEC = tiny_spec()


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_memory_have_equally_many_parameters(kind):
    data = PolicyWindows(random_episodes(SPEC), SPEC)
    wanted = parameters(data, KINDS["sega"])
    assert parameters(data, matched(data, KINDS[kind])) == pytest.approx(wanted, rel=0.05)


def test_ablations_change_one_setting_each():
    base = dataclasses.asdict(KINDS["sega"])
    for changed in ABLATIONS.values():
        assert sum(base[k] != v for k, v in dataclasses.asdict(changed).items()) == 1


def test_ddpm_with_the_best_network_gives_the_distribution_of_the_data():
    made, mean, spread = Ddpm(Ddim(100, 8, "sample"), 0), 0.2, 0.15

    def network(x, level):
        a = made.ancestral.alphas_cumprod[level][:, None, None]
        return mean + spread**2 * a.sqrt() / (a * spread**2 + 1 - a) * (x - a.sqrt() * mean)

    restored = made.restore(network, normal(3000, 2, 1))
    assert restored.mean() == pytest.approx(mean, abs=0.02)
    assert restored.std() == pytest.approx(spread, rel=0.15)
    assert not torch.equal(made.restore(network, torch.zeros(1, 2, 1)), restored[:1])


def test_jumps_are_told_apart_at_the_seams():
    first = random_episodes(SPEC, 1)[0]
    actions = np.zeros_like(first.actions)
    actions[4:, 1] = 0.1
    episode = dataclasses.replace(first, actions=actions, chunk_starts=np.array([0, 4]))
    seam, inside = realtime.jumps([episode], np.full(3, 0.4))
    assert seam == pytest.approx(0.25)
    assert inside == 0


def test_compare_runs_what_is_missing_and_keeps_the_rest(tmp_path, monkeypatch):
    ran, results = [], tmp_path / "new" / "some.json"

    def study(task, seed, out):
        ran.append((task, seed, str(out)))
        return {"seed": seed}

    for seeds in (["1"], ["1", "2"]):
        monkeypatch.setattr(sys, "argv", ["compare", "--seeds", *seeds])
        compare("About.", results, ["a", "b"], study, lambda units: {"units": units})
    assert ran == [(t, s, f"runs/some/{t}-{s}") for s in (1, 2) for t in "ab"]
    assert read_json(results)["units"].keys() == {"a-1", "b-1", "a-2", "b-2"}
    ran.clear()
    compare("All.", results, ["a", "b"], study, lambda units: {"units": units}, lambda u: "more" in u)
    assert [task for task, _, _ in ran] == ["a", "b"] * 2


def test_delay_that_one_way_has_not_been_measured_with_is_run_and_shown_without_it():
    rate = {"success": wilson(40, 50).to_dict(), "seam": 0.2, "inside": 0.1}
    unit: dict = {str(d): dict.fromkeys(realtime.WAYS, rate) for d in realtime.DELAYS}
    assert realtime._missing(unit) == []
    del unit["4"]["foreseen"]
    assert realtime._missing(unit) == [(4, "foreseen")]
    delays = realtime.summary({"push-1": unit, "push-2": unit})["delays"]
    assert delays["0"]["foreseen"]["success"] == wilson(80, 100).to_dict()
    assert delays["4"].keys() == {"joined", "switched", "still"}


def test_pooled_is_the_rate_of_all_episodes():
    assert pooled([wilson(3, 10).to_dict(), wilson(50, 90).to_dict()]) == wilson(53, 100).to_dict()


def unit(task, seed, rates):
    kinds = {
        kind: {"success": wilson(n, 100).to_dict(), "outcomes": {str(i): i < n for i in range(100)}}
        for kind, n in rates.items()
    }
    return {"task": task, "seed": seed, "kinds": kinds}


def test_summary_keeps_ablations_with_a_helper_apart(tmp_path, monkeypatch):
    rates = {"sega": 90, "lstm": 60, "dp": 20, "stacked": 50}
    monkeypatch.setattr(summary, "PARTS", tmp_path)
    folders = {"memory": (80, "ablations"), "memory-helped": (70, "helped_ablations")}
    for folder, (without, _) in folders.items():
        (tmp_path / folder).mkdir()
        write_json(tmp_path / folder / "count-1.json", unit("count", 1, rates))
        write_json(tmp_path / folder / "count-2.json", unit("count", 2, rates | {"no gate": without}))
    result = summary.summed()
    for without, name in folders.values():
        assert result[name]["count"]["no gate"] == wilson(without, 100).to_dict()
        assert result[name]["count"]["seeds"] == [2]
        table = getattr(summary, name)(result).splitlines()
        assert [line.split(" |")[0] for line in table[2:]] == ["| sega", "| no gate"]
    assert summary.helped(result).splitlines()[2].startswith("| count | 2 | 60.0% [")


def test_summary_pools_seeds_and_finds_the_horizon(tmp_path, monkeypatch):
    (tmp_path / "memory").mkdir()
    rates = {"sega": 90, "dp": 20, "stacked": 50, "lstm": 60}
    for seed in (1, 2):
        for task, less in zip(summary.HORIZONS.values(), (0, 10, 20), strict=True):
            own = {k: n - less * (k != "sega") for k, n in rates.items()}
            write_json(tmp_path / "memory" / f"{task}-{seed}.json", unit(task, seed, own))
    asked_later = unit("cue-medium", 1, rates)
    for kind in asked_later["kinds"].values():
        kind["beyond"] = wilson(7, 100).to_dict()
    write_json(tmp_path / "memory" / "cue-medium-1.json", asked_later)
    monkeypatch.setattr(summary, "PARTS", tmp_path)
    result = summary.summed()
    assert result["memory"]["count-once"]["lstm"] == wilson(120, 200).to_dict()
    assert [result["horizon"][h]["dp"]["rate"] for h in summary.HORIZONS] == [0.2, 0.1, 0.0]
    assert result["beyond"] == dict.fromkeys(KINDS, wilson(7, 100).to_dict())
    against = result["against"]["lstm"]
    assert (against["fixed"], against["broken"]) == (2 * (30 + 40 + 50) + 30, 0)
    assert summary.against(result).splitlines()[4].startswith("| LSTM | +38.6 [")
    assert "beso" not in result
    table = summary.memory(result).splitlines()
    assert len(table) == 2 + 4
    assert table[3].startswith("| count-once | 2 | 20.0% [")
    assert summary.sampling(result) == summary.speed(result) == "Not measured yet.\n"
    assert horizon(result).count("<polyline") == 3 + 9 + 1


def test_levels_the_way_that_was_chosen_is_what_policies_do():
    def network(x, level):
        return torch.tanh(x) + 0.01 * level[:, None, None]

    noise = normal(20, 2, 1)
    made = Beso(3).restore(network, noise)
    off = {
        name: (levels.Falling(*way).restore(network, noise) - made).abs().max()
        for name, way in levels.WAYS.items()
    }
    assert min(off, key=off.__getitem__) == "0.5, 0.15, none"
    assert off["0.5, 0.15, none"] < 0.02 < off["0.5, 0.15, noise"]


@pytest.mark.parametrize("kind", ["ddim", "beso", "flow"])
def test_paths_end_at_the_two_actions_that_were_demonstrated(kind):
    ends = [float(line.split()[-1].split(",")[1]) for line in re.findall(r'points="([^"]*)"', paths(kind))]
    assert len(ends) == 14
    assert len({round(end / 5) for end in ends}) == 2
