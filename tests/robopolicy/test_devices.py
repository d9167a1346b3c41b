"""Training on several processes, in half the precision, compiled, with its scalars written down."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from fresh import run_by_two
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import POLICY, normal, observations, random_episodes, tiny_spec, write_dataset

from robopolicy.checkpoint import read_json, write_json
from robopolicy.devices import Devices, scalar_log
from robopolicy.errors import BadInput
from robopolicy.policies.load import load_policy
from robopolicy.policies.train import train_policy

SPEC = tiny_spec()
KINDS = {
    "diffusion": POLICY,
    "sega": dataclasses.replace(POLICY, memory="sega", memory_width=16, batch_size=4),
}
# Trains a policy of each kind with half the batch.
SCRIPT = """
import dataclasses, sys
from pathlib import Path
sys.path.insert(0, {helpers!r})
sys.path.insert(0, {here!r})
from test_devices import KINDS
from robopolicy.checkpoint import write_json
from robopolicy.policies.train import train_policy
from robopolicy.processes import leads

for kind, config in KINDS.items():
    half = dataclasses.replace(config, batch_size=config.batch_size // 2)
    out = Path({out!r}) / kind
    report = train_policy([Path({dataset!r})], out, half, 3, log="tensorboard")
    write_json(out / ("curve.json" if leads() else "other.json"), {{"curve": report["curve"]}})
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SPEC, random_episodes(SPEC))


@pytest.fixture(scope="module")
def shared(dataset, tmp_path_factory):
    """Both kinds, trained by two processes."""
    out, here = tmp_path_factory.mktemp("shared"), Path(__file__).parent
    places = {"helpers": str(here.parent / "helpers"), "here": str(here)}
    (out / "script.py").write_text(SCRIPT.format(out=str(out), dataset=str(dataset), **places))
    run_by_two(out / "script.py")
    return out


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    """Both kinds, trained by this process with the whole batch."""
    out = tmp_path_factory.mktemp("alone")
    for kind, config in KINDS.items():
        report = train_policy([dataset], out / kind, config, 3, log="tensorboard")
        write_json(out / kind / "curve.json", {"curve": report["curve"]})
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one_with_the_double_batch(shared, alone, kind):
    curves = [read_json(out / kind / "curve.json")["curve"] for out in (shared, alone)]
    assert len(curves[0]) == POLICY.steps
    assert [r["loss"] for r in curves[0]] == pytest.approx([r["loss"] for r in curves[1]], rel=1e-4)
    assert read_json(shared / kind / "other.json")["curve"] == curves[0]
    # Not weight by weight: one that changes nothing, such as a bias of keys, follows the last bits.
    obs, noise = observations(SPEC), normal(5, SPEC.chunk, SPEC.action_dim)
    policies = [load_policy(out / kind) for out in (shared, alone)]
    one, other = (p.sample(obs, p.initial(range(5)), noise)[0] for p in policies)
    assert torch.allclose(one, other, atol=1e-4)
    assert not torch.allclose(one, torch.zeros_like(one), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_tensorboard_holds_the_loss_of_every_update(alone, kind):
    read = EventAccumulator(str(alone / kind / "logs"))
    read.Reload()
    curve = read_json(alone / kind / "curve.json")["curve"]
    assert [e.value for e in read.Scalars("loss")] == pytest.approx([r["loss"] for r in curve])


def test_log_of_a_library_that_is_missing_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(BadInput, match="pip install wandb"):
        scalar_log("wandb", tmp_path, {})


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_and_compiler_train_almost_the_same(dataset, alone, tmp_path, kind):
    whole = [r["loss"] for r in read_json(alone / kind / "curve.json")["curve"]]
    for changes, close in (({"precision": "bf16"}, 0.05), ({"compiler": "eager"}, 1e-5)):
        config = dataclasses.replace(KINDS[kind], **changes)
        out = tmp_path / "-".join(changes)
        losses = [r["loss"] for r in train_policy([dataset], out, config, 3)["curve"]]
        assert losses == pytest.approx(whole, rel=close)
        weights = load_policy(out).state_dict().values()
        assert all(w.dtype == torch.float32 for w in weights if w.is_floating_point())
        assert (losses == whole) == ("compiler" in changes)


def test_alone_all_rows_are_ones_own_and_sums_change_nothing():
    devices, numbers = Devices(), [torch.arange(3.0), torch.ones(2, 2)]
    assert devices.own(4) == slice(0, 4)
    devices.add_up(numbers)
    assert torch.equal(numbers[0], torch.arange(3.0))
    assert torch.equal(numbers[1], torch.ones(2, 2))
