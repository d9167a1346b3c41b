"""Faults of checkpoints, each by its number in docs/faults.md: 19 to 23, what is damaged or does not fit."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh import fresh_python
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_policy, tiny_spec

from robopolicy.checkpoint import load_strict, load_tensors, open_sealed, save_tensors, tensor_hash
from robopolicy.errors import BadInput
from robopolicy.policies.gaussian import GaussianPolicy, load_gaussian, save_gaussian
from robopolicy.spec import Camera, Spec

SPEC = tiny_spec()
FILES = ("config.json", "manifest.json", "model.safetensors", "spec.json")
# Of each type in JSON, values of all others.
JUNK: dict[type, list[Any]] = {
    str: [None, True, 3, [], {}],
    int: [None, True, "x", [], {}, 1.5],
    float: [None, True, "x", [], {}],
    list: [None, True, 3, "x", {}],
    dict: [None, True, 3, "x", []],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("policy") / "policy"
    save_gaussian(GaussianPolicy(SPEC, 2, 1, torch.Generator().manual_seed(0)), out)
    return out


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "policy")


def load(folder: Path) -> GaussianPolicy:
    return load_gaussian(folder, open_sealed(folder, "policy"))


def reseal(folder: Path) -> None:
    """Makes the manifest fit the files again, so that what lies behind its check is reached."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edits(data: Any) -> Iterator[Any]:
    """`data` with each of its values replaced by one of another type, and each key lost or unheard of."""
    yield from JUNK[type(data)]
    if isinstance(data, dict):
        yield {**data, "unheard_of": 1}
        yield from ({k: v for k, v in data.items() if k != lost} for lost in data if lost != "cameras")
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        for other in edits(data[key]):
            whole = data.copy()
            whole[key] = other
            yield whole


@pytest.mark.parametrize("name", FILES)
def test_fault_19_checkpoint_with_any_byte_changed_is_refused(folder, name):
    data = (folder / name).read_bytes()
    for at in range(len(data)):
        (folder / name).write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with pytest.raises(BadInput):
            load(folder)


def test_fault_19_file_of_tensors_with_any_byte_changed_is_refused_or_the_same(tmp_path):
    """Of progress and recordings no manifest speaks: they hold a checksum of their own."""
    path, wanted = tmp_path / "progress.safetensors", {"w": torch.arange(5.0), "n": torch.tensor(2)}
    save_tensors(path, wanted, {"next": 7})
    data, kept = path.read_bytes(), 0
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            tensors, _ = load_tensors(path)
        except BadInput:
            continue
        kept += 1
        assert tensor_hash(tensors) == tensor_hash(wanted)
    assert kept <= len("robopolicy" + "sha256")  # the names under which the checksum is found


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "spec.json"])
def test_fault_19_checkpoint_with_any_token_of_json_changed_is_refused(folder, name):
    path = folder / name
    data = json.loads(path.read_text())
    if name == "spec.json":
        data["fps"] = float(data["fps"])
    for other in edits(data):
        left = other.get("files") if isinstance(other, dict) else None
        if isinstance(left, dict) and name == "manifest.json" and set(left) < set(data["files"]):
            continue  # a file that the manifest does not name is not checked by it
        path.write_text(json.dumps(other))
        if name != "manifest.json":
            reseal(folder)
        with pytest.raises(BadInput):
            Spec.load(folder) if name == "spec.json" else load(folder)


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
@pytest.mark.parametrize("how", ["twice", "NaN", "deep", "bytes"])
def test_fault_19_checkpoint_with_json_that_python_would_take_is_refused(folder, name, how):
    path = folder / name
    text = path.read_text()
    first = re.findall(r'"\w+": [^,{]+,', text)[0]
    junk = {
        "NaN": '{"a": NaN,',
        "deep": '{"a": ' + "[" * 100_000,
        "twice": "{" + first,
        "bytes": '{"\udcff":',
    }
    path.write_bytes(text.replace("{", junk[how], 1).encode(errors="surrogateescape"))
    if name != "manifest.json":
        reseal(folder)
    with pytest.raises(BadInput, match=re.escape(name)):
        load(folder)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_fault_19_checkpoint_with_any_weight_not_finite_is_refused_by_its_name(folder, bad):
    tensors, _ = load_tensors(folder / "model.safetensors")
    for name, tensor in tensors.items():
        spoiled = tensor.clone()
        spoiled.view(-1)[-1] = bad
        save_tensors(folder / "model.safetensors", tensors | {name: spoiled})
        reseal(folder)
        with pytest.raises(BadInput, match=f"safetensors:{re.escape(name)}: wanted finite"):
            load(folder)


@pytest.mark.parametrize("name", FILES)
def test_fault_20_checkpoint_cut_short_anywhere_or_missing_a_file_is_refused_by_name(folder, name):
    path = folder / name
    data = path.read_bytes()
    # The last byte of the manifest is the end of its line.
    for size in range(0, len(data) - (name == "manifest.json"), 1 + len(data) // 1000):
        path.write_bytes(data[:size])
        with pytest.raises(BadInput) as error:
            load(folder)
        assert name in error.value.field
        assert name == "manifest.json" or f"{len(data)} bytes, got {size} bytes" in str(error.value)
    path.unlink()
    with pytest.raises(BadInput, match=f"{re.escape(name)}.*no such file"):
        load(folder)


def test_fault_20_file_of_tensors_cut_short_anywhere_is_refused_by_name(tmp_path):
    path = tmp_path / "progress.safetensors"
    save_tensors(path, {"w": torch.arange(5.0)}, {"next": 7})
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(BadInput, match=r"progress\.safetensors"):
            load_tensors(path)


@pytest.fixture
def bomb(tmp_path) -> tuple[bytes, Path]:
    """A pickle that makes a file when it is read, and where; it does."""
    marker = tmp_path / "exploded"
    data = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    (tmp_path / "bomb.pkl").write_bytes(data)
    fresh_python("-m", "pickle", str(tmp_path / "bomb.pkl"))
    assert marker.exists()
    marker.unlink()
    return data, marker


def test_fault_21_pickle_under_any_name_is_never_opened(folder, bomb):
    data, marker = bomb
    for name in FILES:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
        if name != "manifest.json":
            reseal(folder)
        with pytest.raises(BadInput):
            load(folder)
        (folder / name).write_bytes(whole)
        if name != "manifest.json":
            reseal(folder)
    for name in ("model.pt", "model.pkl", "policy.ckpt", "pytorch_model.bin", "stats.npz"):
        (folder / name).write_bytes(data)
    load(folder)
    assert not marker.exists()


def test_fault_21_processor_that_names_code_or_a_file_elsewhere_is_not_opened(bomb, tmp_path):
    from robopolicy.policies.load import PREPROCESSOR, load_policy
    from robopolicy.policies.train import save_policy

    out = tmp_path / "policy"
    save_policy(tiny_policy(SPEC), out)
    whole = json.loads((out / PREPROCESSOR).read_text())
    touch = {"class": "subprocess.Popen", "config": {"args": ["touch", str(bomb[1])]}}
    away = [{**s, "state_file": "../bomb.pkl"} if "state_file" in s else s for s in whole["steps"]]
    for steps in ([touch], [*whole["steps"], touch], [{"class": "os.system"}], away, "x", [3], [{}]):
        (out / PREPROCESSOR).write_text(json.dumps({**whole, "steps": steps}))
        reseal(out)
        with pytest.raises(BadInput, match=re.escape(PREPROCESSOR)):
            load_policy(out)
    assert not bomb[1].exists()


NET = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2), torch.nn.Linear(2, 3))
NAMES = list(NET.state_dict())


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["drop", "reshape", "recast"]), min_size=1))
def test_fault_22_checkpoint_that_does_not_fit_lists_all_that_differs_and_loads_nothing(wrong):
    own, tensors = NET.state_dict(), {"extra": torch.zeros(1), **NET.state_dict()}
    before = tensor_hash(own)
    for name, how in wrong.items():
        tensor = tensors.pop(name) + 1.0
        if how != "drop":
            tensors[name] = tensor[None] if how == "reshape" else tensor.double()
    with pytest.raises(BadInput) as error:
        load_strict(NET, tensors, "model")
    problems = error.value.got.split("; ")
    assert len(problems) == len(wrong) + 1
    assert all(any(name in p.split() for p in problems) for name in [*wrong, "extra"])
    assert tensor_hash(NET.state_dict()) == before


def test_fault_22_checkpoint_of_another_size_is_refused_when_it_is_opened(folder):
    tensors, _ = load_tensors(folder / "model.safetensors")
    for name, tensor in tensors.items():
        for changed in ({}, {name: tensor[None]}, {name: tensor.half()}):
            rest = {k: v for k, v in tensors.items() if k != name}
            save_tensors(folder / "model.safetensors", rest | changed)
            reseal(folder)
            with pytest.raises(BadInput, match=re.escape(name)):
                load(folder)


FILMED = dataclasses.replace(SPEC, cameras=(Camera("front", 8, 8),))


def changed(data: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """`data` with each of its numbers and words changed in turn, and where."""
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            for where, other in changed(data[key], (*path, key)):
                whole = data.copy()
                whole[key] = other
                yield where, whole
    else:
        yield path, "point" if data == "other" else f"{data}x" if isinstance(data, str) else data + 0.01


def test_fault_23_spec_that_differs_in_anything_is_refused_and_what_differs_is_named():
    seen, whole = {FILMED.fingerprint}, json.loads(json.dumps(FILMED.to_dict()))
    for where, other in changed(whole):
        if where[-1] in ("size", "role", "moves"):
            continue  # not free to change alone
        if isinstance(where[-1], str) and where[-1] in ("chunk", "obs_steps", "horizon", "height", "width"):
            continue  # whole numbers, below
        spec = Spec.from_dict(other)
        seen.add(spec.fingerprint)
        name = where[0] if where[-1] == "name" or len(where) == 1 else f"{where[0]}\\.\\w+\\.{where[2]}"
        with pytest.raises(BadInput, match=f"policy spec: wanted {name}="):
            FILMED.require(spec, "policy")
    for name, value in (("chunk", 5), ("obs_steps", 3), ("horizon", 11), ("cameras", ())):
        spec = dataclasses.replace(FILMED, **{name: value})
        seen.add(spec.fingerprint)
        with pytest.raises(BadInput, match=f"policy spec: wanted {name}="):
            FILMED.require(spec, "policy")
    swapped = dataclasses.replace(SPEC, proprio=SPEC.proprio[::-1])
    with pytest.raises(BadInput, match=r"\['hand', 'reach'\], got proprio=\['reach', 'hand'\]"):
        SPEC.require(swapped, "policy")
    assert len(seen) > 20


def test_fault_23_fingerprint_is_what_it_was_in_earlier_versions():
    assert SPEC.fingerprint == "6799cfce3c2d2773"
