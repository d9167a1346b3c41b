"""Saved policies load as they were, or are refused naming the file."""

import dataclasses
import json
import shutil

import pytest
import torch
from tiny import normal, random_episodes, tiny_policy, tiny_spec, write_dataset

from robopolicy.checkpoint import load_tensors, save_tensors, seal
from robopolicy.errors import BadInput
from robopolicy.policies.load import load_policy
from robopolicy.policies.train import save_policy

SPEC = tiny_spec()
NORMALIZER = "policy_preprocessor*normalizer*.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    out = tmp_path_factory.mktemp("policy") / "policy"
    save_policy(tiny_policy(SPEC), out)
    return out


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "policy")


def reseal(folder, spec=SPEC):
    """Seals a spoiled folder again, so that what lies behind the manifest's check is reached."""
    keep = {"spec.json", "manifest.json"}
    seal(folder, "policy", spec, [p.name for p in folder.iterdir() if p.name not in keep])


def test_loaded_policy_is_the_saved_one(saved):
    policy, loaded = tiny_policy(SPEC), load_policy(saved)
    assert loaded.hash() == policy.hash()
    assert loaded.spec == SPEC
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    obs, noise = torch.zeros(3, SPEC.obs_steps, SPEC.state_dim), normal(3, SPEC.chunk, SPEC.action_dim)
    assert torch.equal(loaded.sample(obs, {}, noise)[0], policy.sample(obs, {}, noise)[0])


def test_policy_of_a_spec_without_objects_is_loaded_as_saved(tmp_path):
    policy = tiny_policy(tiny_spec(objects=False))
    save_policy(policy, tmp_path / "policy")
    assert load_policy(tmp_path / "policy").hash() == policy.hash()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "spec.json", NORMALIZER])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_file_is_refused_by_name(folder, name, damage):
    path = next(folder.glob(name))
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=path.name):
        load_policy(folder)


def test_unfinished_policy_is_refused(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(BadInput, match=r"manifest\.json"):
        load_policy(folder)


def test_dataset_is_no_policy(tmp_path):
    root = write_dataset(tmp_path / "set", SPEC, random_episodes(SPEC, 2))
    with pytest.raises(BadInput, match="a policy"):
        load_policy(root)


def test_configuration_of_a_policy_with_other_features_is_refused(folder):
    from lerobot.policies.act.configuration_act import ACTConfig

    ACTConfig(device="cpu", push_to_hub=False)._save_pretrained(folder)
    reseal(folder)
    with pytest.raises(BadInput, match="features"):
        load_policy(folder)


@pytest.mark.parametrize(
    "change", [{"type": "nonsense"}, {"denoiser": "rnn"}, {"horizon": "many"}, {"unheard_of": 1}]
)
def test_configuration_that_makes_no_sense_is_refused_by_name(folder, change):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    reseal(folder)
    with pytest.raises(BadInput, match=r"config\.json"):
        load_policy(folder)


def test_weights_of_another_size_are_refused_by_name(folder):
    tensors, _ = load_tensors(folder / "model.safetensors")
    tensors["denoiser.inp.weight"] = torch.zeros(1, 1)
    save_tensors(folder / "model.safetensors", tensors)
    reseal(folder)
    with pytest.raises(BadInput, match=r"model\.safetensors.*denoiser\.inp\.weight"):
        load_policy(folder)


def test_missing_statistics_are_refused_by_name(folder):
    path = next(folder.glob(NORMALIZER))
    tensors, _ = load_tensors(path)
    del tensors["observation.state.mean"]
    save_tensors(path, tensors)
    reseal(folder)
    with pytest.raises(BadInput, match=r"policy_preprocessor\.json.*observation\.state\.mean"):
        load_policy(folder)


def test_statistics_that_are_not_finite_are_refused(folder):
    path = next(folder.glob(NORMALIZER))
    tensors, _ = load_tensors(path)
    tensors["observation.state.mean"][0] = torch.nan
    save_tensors(path, tensors)
    reseal(folder)
    with pytest.raises(BadInput, match=r"observation\.state\.mean"):
        load_policy(folder)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (dataclasses.replace(SPEC, chunk=6), "horizon.*wanted 6, 2, got 4, 2"),
        (dataclasses.replace(SPEC, obs_steps=3), "n_obs_steps.*wanted 4, 3, got 4, 2"),
        (
            dataclasses.replace(SPEC, action=SPEC.proprio),
            r"features.*'action': \(4,\).*got.*'action': \(3,\)",
        ),
        (tiny_spec(objects=False), "features.*got.*environment_state"),
    ],
)
def test_policy_sealed_with_a_spec_of_other_sizes_is_refused(folder, other, named):
    reseal(folder, other)
    with pytest.raises(BadInput, match=named):
        load_policy(folder)
