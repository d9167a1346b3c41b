"""`lerobot-train` goes on training a policy of ours, with a dataset of ours."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny import POLICY, random_episodes, tiny_policy, tiny_spec, write_dataset

from robopolicy.policies.train import save_policy

SPEC = tiny_spec()


@pytest.mark.slow
def test_lerobot_train_goes_on_from_our_policy_with_our_dataset(tmp_path):
    save_policy(tiny_policy(SPEC), tmp_path / "policy")
    write_dataset(tmp_path / "data", SPEC, random_episodes(SPEC, 2))
    flags = [
        f"--policy.path={tmp_path}/policy",
        "--policy.discover_packages_path=robopolicy.policies.diffusion",
        "--policy.push_to_hub=false",
        "--dataset.repo_id=robopolicy/push",
        f"--dataset.root={tmp_path}/data",
        "--steps=2",
        "--batch_size=4",
        "--num_workers=0",
        f"--output_dir={tmp_path}/out",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.lerobot_train", *flags],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    saved = tmp_path / "out/checkpoints/000002/pretrained_model"
    assert json.loads((saved / "config.json").read_text())["width"] == POLICY.width
    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "policy", saved))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert all(v.isfinite().all() for v in after.values())
