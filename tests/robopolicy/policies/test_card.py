"""The model card beside a policy is one that Hugging Face can read, and says what the policy is."""

import dataclasses
import shutil
from types import SimpleNamespace

import torch
from huggingface_hub import HfApi, ModelCard
from lerobot.policies.factory import get_policy_class
from tiny import POLICY, random_episodes, tiny_policy, tiny_spec, write_dataset

from robopolicy.policies.load import load_policy
from robopolicy.policies.train import save_policy, train_policy

SPEC = tiny_spec()


def test_card_is_read_by_hugging_face_and_names_every_field(tmp_path):
    data = write_dataset(tmp_path / "data", SPEC, random_episodes(SPEC))
    train_policy([data], tmp_path / "policy", dataclasses.replace(POLICY, steps=2, process="beso"), 0)
    card = ModelCard.load(tmp_path / "policy/README.md")
    assert card.data.library_name == "lerobot"
    assert {"robotics", "lerobot", "chunk_diffusion"} <= set(card.data.tags)
    for field in (*SPEC.state, *SPEC.action):
        assert f"| {field.name} | {field.size} | {field.unit} |" in card.text
    assert "12 episodes" in card.text
    assert "beso" in card.text


def test_policy_goes_to_the_hub_and_comes_back(tmp_path, monkeypatch):
    """LeRobot's own way there, with a folder in place of the Hub."""
    hub = tmp_path / "hub"

    def upload(self, *, folder_path, **_):
        shutil.copytree(folder_path, hub)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    policy = tiny_policy(SPEC)
    policy.core.push_to_hub("someone/push")
    again = get_policy_class("chunk_diffusion").from_pretrained(hub, strict=True)
    own = policy.core.state_dict()
    assert again.state_dict().keys() == own.keys()
    assert all(torch.equal(v, own[k]) for k, v in again.state_dict().items())


def test_folder_of_a_policy_is_all_that_a_hub_needs(tmp_path):
    save_policy(tiny_policy(SPEC), tmp_path / "policy")
    copied = shutil.copytree(tmp_path / "policy", tmp_path / "downloaded")
    assert load_policy(copied).hash() == tiny_policy(SPEC).hash()
