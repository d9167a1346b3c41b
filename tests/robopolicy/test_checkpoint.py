"""An artefact is whole or refused, and the refusal names the file."""

import os

import pytest
import torch
from torch import nn

from robopolicy import checkpoint
from robopolicy.checkpoint import (
    load_strict,
    load_tensors,
    open_sealed,
    read_json,
    save_tensors,
    seal,
    tensor_hash,
    write_atomic,
    write_json,
)
from robopolicy.errors import BadInput, RoboPolicyError
from sim.tasks import LIFT

FILES = ("config.json", "model.safetensors", "spec.json")


@pytest.fixture
def sealed(tmp_path):
    """A small sealed artefact."""
    write_json(tmp_path / "config.json", {"width": 3})
    save_tensors(tmp_path / "model.safetensors", {"w": torch.arange(6.0), "n": torch.tensor(2)}, {"a": 1})
    save_tensors(tmp_path / "progress.safetensors", {"w": torch.zeros(1)})
    seal(tmp_path, "policy", LIFT, ["config.json", "model.safetensors"])
    return tmp_path


def test_round_trip(sealed):
    assert open_sealed(sealed, "policy") == LIFT
    tensors, meta = load_tensors(sealed / "model.safetensors")
    assert torch.equal(tensors["w"], torch.arange(6.0))
    assert meta == {"a": 1}
    assert not (sealed / "progress.safetensors").exists()


def test_files_beside_the_sealed_ones_do_no_harm(sealed):
    write_json(sealed / "result.json", {"rate": 1.0})
    open_sealed(sealed, "policy")


def test_another_kind_is_refused(sealed):
    with pytest.raises(BadInput, match="wanted a world, got a policy"):
        open_sealed(sealed, "world")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such directory"):
        open_sealed(tmp_path / "nowhere", "policy")


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.json").write_text('{"x": NaN}')
    with pytest.raises(BadInput, match=r"a\.json"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", "[1]", "{", "\udcff"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_damaged_tensor_file_is_named(tmp_path):
    save_tensors(tmp_path / "m.safetensors", {"w": torch.zeros(100)})
    data = (tmp_path / "m.safetensors").read_bytes()
    for content in (b"", data[:50], data[:-4], os.urandom(200)):
        (tmp_path / "m.safetensors").write_bytes(content)
        with pytest.raises(BadInput, match=r"m\.safetensors"):
            load_tensors(tmp_path / "m.safetensors")
    with pytest.raises(BadInput, match="no such file"):
        load_tensors(tmp_path / "other.safetensors")


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.os, "replace", fail)
    with pytest.raises(RoboPolicyError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_strict_load_lists_every_difference():
    module = nn.Linear(2, 3)
    own = module.state_dict()
    load_strict(module, own, "model")
    wrong = {"weight": torch.zeros(3, 4), "extra": torch.zeros(1)}
    before = tensor_hash(own)
    with pytest.raises(BadInput) as error:
        load_strict(module, wrong, "model")
    for part in ("missing bias", "unexpected extra", "weight is (3, 4) torch.float32, not (3, 2)"):
        assert part in str(error.value)
    assert tensor_hash(module.state_dict()) == before


def test_another_number_type_is_refused():
    module = nn.Linear(1, 1)
    wrong = {k: v.double() for k, v in module.state_dict().items()}
    with pytest.raises(BadInput, match="weight"):
        load_strict(module, wrong, "model")


def test_the_hash_knows_names_types_shapes_and_bytes_but_no_order():
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    hashes = [
        tensor_hash(t)
        for t in ({"a": a}, {"b": a}, {"a": b}, {"a": a.reshape(3, 2)}, {"a": a.int()}, {"a": a, "b": b})
    ]
    assert len(set(hashes)) == len(hashes)
    assert tensor_hash({"a": a, "b": b}) == tensor_hash({"b": b, "a": a})
