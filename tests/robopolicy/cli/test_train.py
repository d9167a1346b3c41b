"""Every kind of policy goes through the chain by its name."""

import pytest

from robopolicy.checkpoint import read_json
from robopolicy.cli import main
from robopolicy.policies.load import load_policy

KINDS = {
    "beso": ("beso", 3, "none"),
    "flow": ("flow", 5, "none"),
    "lstm": ("ddim", 5, "lstm"),
    "sega": ("ddim", 5, "sega"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_train_by_name_then_imagine_and_steer(kind, here, tmp_path):
    trained = f"train --dataset data --policy {kind} --preset tiny --steps 3 --out {tmp_path}/policy"
    assert main(trained.split()) == 0
    config = load_policy(tmp_path / "policy").core.config
    assert (config.process, config.num_inference_steps, config.memory) == KINDS[kind]
    common = f"--world world --policy {tmp_path}/policy"
    steered = f"steer {common} --dataset data --preset tiny --out {tmp_path}/steerer"
    assert main(steered.split()) == 0
    imagined = f"imagine {common} --steerer {tmp_path}/steerer --episodes 4 --out {tmp_path}/imagined"
    assert main(imagined.split()) == 0
    rows = read_json(tmp_path / "imagined/result.json")["policies"]
    assert [row["episodes"] for row in rows] == [4, 4]


def test_train_on_then_merge_with_the_weight_that_imagines_most(here, tmp_path):
    # Two policies of different age have the same statistics: those of their data.
    merging = f"merge --policy policy third --world world --episodes 4 --out {tmp_path}/merged"
    assert main(merging.split()) == 0
    result = read_json(tmp_path / "merged/result.json")
    rates = {row["weight"]: row["rate"] for row in result["imagined"]}
    assert list(rates) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert result["weight"] == min(w for w, rate in rates.items() if rate == max(rates.values()))
    given = f"merge --policy policy third --weight 0.5 --group denoiser.out=1 --out {tmp_path}/half"
    assert main(given.split()) == 0
    half, third = load_policy(tmp_path / "half").core, load_policy(here / "third").core
    assert half.denoiser.out.weight.equal(third.denoiser.out.weight)
    assert not half.denoiser.inp.weight.equal(third.denoiser.inp.weight)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("", "weight"),
        ("--weight 0.5 --world world", "weight"),
        ("--weight 0.5 --group denoiser", "NAME=WEIGHT"),
    ],
)
def test_merge_refuses_before_it_writes(flags, named, here, tmp_path, capsys):
    assert main(f"merge --policy policy third {flags} --out {tmp_path}/out".split()) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bench_policy_tells_percentiles_and_when_to_ask(here, tmp_path):
    line = f"bench-policy --policy policy --steerer steerer --chunks 20 --out {tmp_path}/bench"
    assert main(line.split()) == 0
    found = read_json(tmp_path / "bench/result.json")
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    assert (
        found["late_steps"] + found["ask_after_steps"] == found["chunk_steps"] or not found["ask_after_steps"]
    )
