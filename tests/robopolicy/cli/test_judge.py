"""Imagination says which policies it should not be asked about."""

import re
import shutil
from itertools import combinations

import numpy as np
import pytest
from scripted_world import SPEC, STARTS, ScriptedWorld
from tiny import tiny_policy

from robopolicy.checkpoint import folder_hash, load_tensors, read_json, save_tensors, seal, write_json
from robopolicy.cli import main
from robopolicy.cli.judge import DOUBTFUL, refusal
from robopolicy.evaluate import Evaluation, evaluate
from robopolicy.types import Episode
from sim.tasks import LIFT
from world_models.imagined_env import ImaginedEnv


def judged(*doubts):
    """An evaluation whose episodes had these doubts, one tuple of chunks each."""
    episodes = [
        Episode(
            seed=i,
            states=np.zeros((3, 2), np.float32),
            actions=np.zeros((2, 1), np.float32),
            success=False,
            terminated=False,
            truncated=True,
            noise=np.zeros((len(doubt), 2, 1), np.float32),
            chunk_starts=np.arange(len(doubt)),
            doubt=np.array(doubt, np.float32),
        )
        for i, doubt in enumerate(doubts)
    ]
    return Evaluation("policy", tuple(range(len(doubts))), episodes, 1.0)


def test_doubtful_counts_chunks_not_episodes():
    assert judged((0.5, 2.0, 1.0), (3.0,)).doubtful == pytest.approx(2 / 4)
    assert judged((0.5, 1.0)).doubtful == 0


def test_chunks_at_which_imagination_diverged_are_doubtful():
    env = ImaginedEnv(ScriptedWorld(broken=True), STARTS, 4)
    assert evaluate(env, tiny_policy(SPEC), None, range(6), "policy").doubtful == 1


def test_policies_that_the_world_model_knows_are_not_refused():
    assert refusal([{"label": "a", "doubtful": 0.0}, {"label": "b", "doubtful": DOUBTFUL}]) == ""


def test_a_policy_in_doubt_is_refused_by_name():
    said = refusal([{"label": "a", "doubtful": 0.0}, {"label": "exploiter", "doubtful": 0.4}])
    assert "exploiter (40%)" in said
    assert "a (" not in said


@pytest.fixture
def three(here, tmp_path):
    """What gives the arguments of `imagine` for three policies, judged for real too, its doubt scaled."""
    folders = {name: {"policy": folder_hash(here / name)} for name in ("policy", "third")}
    folders["steerer"] = {**folders["policy"], "steerer": folder_hash(here / "steerer")}
    won = {"policy": [1, 1, 1, 0], "third": [1, 1, 0, 0], "steerer": [1, 0, 0, 0]}
    rows = [
        {"hashes": hashes, "rate": sum(won[k]) / 4, "outcomes": dict(zip("5678", won[k], strict=True))}
        for k, hashes in folders.items()
    ]
    write_json(tmp_path / "real.json", {"verb": "evaluate", "policies": rows})

    def line(doubt: float) -> list[str]:
        world = shutil.copytree(here / "world", tmp_path / "world")
        tensors, _ = load_tensors(world / "model.safetensors")
        tensors["doubt_scale"] /= doubt
        save_tensors(world / "model.safetensors", tensors)
        seal(world, "world", LIFT, ["config.json", "model.safetensors", "starts.safetensors"])
        given = f"--policy policy third --steerer steerer --real {tmp_path}/real.json --episodes 6"
        return f"imagine --world {world} {given} --doubt-limit 1e9 --out {tmp_path}/out".split()

    return line


@pytest.mark.parametrize("doubt", [1e-3, 1e3])
def test_imagine_in_doubt_ranks_nothing_and_says_why(three, tmp_path, capsys, doubt):
    """The same policies in the same world model, but for the scale of its doubt."""
    assert main(three(doubt)) == 0
    result, said = read_json(tmp_path / "out/result.json"), capsys.readouterr().out
    doubtful, verdict = doubt > 1, "can this world model rank these policies?"
    assert [row["doubtful"] for row in result["policies"]] == [float(doubtful)] * 3
    assert bool(result["refused"]) is doubtful
    assert bool(result["ranking"]) is not doubtful
    assert doubtful or result["ranking"]["verdict"] in ("yes", "no", "cannot tell")
    assert (verdict in said) is not doubtful
    assert bool(re.search(r"\[[+-]", said)) is not doubtful, "the interval of a difference"
    assert (f"refuses to rank these policies: {result['refused']}" in said) is doubtful


def test_differences_are_of_all_pairs_those_against_the_first_first(three, tmp_path):
    assert main(three(1.0)) == 0
    result = read_json(tmp_path / "out/result.json")
    rates = {row["label"]: row["rate"] for row in result["policies"]}
    assert list(combinations(rates, 2)) == [(d["first"], d["second"]) for d in result["differences"]]
    for d in result["differences"]:
        assert d["mean"] == pytest.approx(rates[d["second"]] - rates[d["first"]])


def test_diagnose_says_what_it_promises(here, tmp_path):
    assert main(f"diagnose --world world --dataset data --out {tmp_path}/new".split()) == 0
    result = read_json(tmp_path / "new/result.json")
    assert {"failures_as_failures", "successes_as_successes", "doubt_spearman"} <= set(result)


def test_imagining_by_default_counts_only_what_the_world_model_knows(here, tmp_path):
    """Nine in ten of the plain policy's successes stand; what is doubted more is none."""
    for name, limit in {"default": "", "any": "--doubt-limit 1e9"}.items():
        assert main(f"imagine --world world --policy policy {limit} --out {tmp_path}/{name}".split()) == 0
    default, anything = (read_json(tmp_path / f"{name}/result.json") for name in ("default", "any"))
    assert 0 < default["doubt_limit"] < anything["doubt_limit"] == 1e9
    assert default["policies"][0]["successes"] < anything["policies"][0]["successes"]
