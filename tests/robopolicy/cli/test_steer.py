"""`robopolicy steer`: every method of it, by its name."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from robopolicy.checkpoint import read_json
from robopolicy.cli import main
from robopolicy.cli.common import rate, show
from robopolicy.config import STEER_PRESETS, SteerMethod
from robopolicy.policies.load import load_policy
from robopolicy.refine.config import REFINE_METHODS
from robopolicy.stats import wilson
from robopolicy.steering.load import load_steerer
from sim.tasks import LIFT

METHODS = [*get_args(SteerMethod), *REFINE_METHODS]
STEER = "steer --world world --policy policy --dataset data"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_steering_gives_what_imagining_judges(here, tmp_path, method):
    assert main(f"{STEER} --preset tiny --method {method} --out {tmp_path}/new".split()) == 0
    assert read_json(tmp_path / "new/result.json")["method"] == method
    new = f"policy {tmp_path}/new" if method in REFINE_METHODS else f"policy --steerer {tmp_path}/new"
    assert main(f"imagine --world world --policy {new} --episodes 2 --out {tmp_path}/out".split()) == 0
    assert len(read_json(tmp_path / "out/result.json")["policies"]) == 2


@pytest.mark.parametrize("method", ["none", "pa-rl"])
def test_steer_that_did_not_help_says_so(here, tmp_path, capsys, method):
    assert main(f"{STEER} --preset tiny --method {method} --out {tmp_path}/new".split()) == 0
    result = read_json(tmp_path / "new/result.json")
    said = f"does not help, as far as these episodes tell: at best {rate(result['best'])}, the plain policy"
    assert result["helped"] is False
    assert f"{said} {rate(result['prior'])}\n" in capsys.readouterr().out


def test_show_says_nothing_more_of_what_helped(capsys):
    judged = {"best": wilson(90, 100).to_dict(), "prior": wilson(10, 100).to_dict()}
    show({"verb": "steer", "config": {"args": {"out": "s"}}, "helped": True, **judged})
    assert "does not help" not in capsys.readouterr().out


def test_dsrl_by_its_other_name_is_the_same(here, capsys):
    assert main(f"{STEER} --preset tiny --method dsrl-sac --out steerer".split()) == 0
    assert "finished already" in capsys.readouterr().out


def test_radius_bounds_the_noise_that_is_chosen(here, tmp_path):
    assert main(f"{STEER} --preset tiny --radius 0.25 --out {tmp_path}/new".split()) == 0
    policy = load_policy(Path("policy"), LIFT)
    prior = torch.randn(64, LIFT.chunk, LIFT.action_dim, generator=torch.Generator().manual_seed(0))
    obs = torch.zeros(64, LIFT.obs_steps, LIFT.state_dim)
    chosen = load_steerer(tmp_path / "new", policy).noise(obs, prior)
    assert 0 < chosen.abs().max() <= 0.25


def test_practice_of_one_chunk_ends_after_every_chunk(here, tmp_path):
    assert main(f"{STEER} --preset tiny --horizon {LIFT.chunk} --out {tmp_path}/new".split()) == 0
    rows = read_json(tmp_path / "new/result.json")["rows"]
    assert {row["ended"] for row in rows} == {STEER_PRESETS["tiny"].dsrl.envs}


def test_the_help_of_steer_has_a_line_for_every_method(capsys):
    assert main(["steer", "--help"]) == 0
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    for method in ("dsrl, dsrl-sac", *METHODS[1:]):
        (line,) = [x for x in lines if x.startswith(f"- {method}: ")]
        assert "." in line[-len(" (default: dsrl)") - 1 :], "one line, not two"


BAD = {
    "not a method": ("--method x", ["--method", "'dsrl-sac'", *(f"'{m}'" for m in METHODS)]),
    "compiler for real": ("--real --compiler inductor", ["compiler", "--real"]),
    "not for real": ("--method ppo --real", ["method", "dsrl-na", "--real", "ppo"]),
    "no horizon": ("--horizon 0", ["horizon", "positive", "0"]),
    "no critics": ("--method ppo --critics 3", ["method", "best-of-n", "--critics", "ppo"]),
    "no warm start": ("--method pa-rl --warm-start 9", ["method", "dsrl-na", "--warm-start", "pa-rl"]),
    "unknown preset": ("--method pa-rl --preset fast", ["preset", "quick"]),
}


@pytest.mark.parametrize(("flags", "named"), BAD.values(), ids=list(BAD))
def test_what_a_method_does_not_know_is_refused_and_nothing_written(here, tmp_path, capsys, flags, named):
    assert main(f"{STEER} {flags} --out {tmp_path}/new".split()) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in named)
    assert not (tmp_path / "new").exists()
