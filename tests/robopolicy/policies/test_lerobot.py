"""LeRobot's evaluation settings, factories and datasets take our policy for one of theirs."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import normal, random_episodes, tiny_policy, tiny_spec, write_dataset

from robopolicy.policies.load import load_policy
from robopolicy.policies.train import save_policy

SPEC = tiny_spec()
PLUGIN = "robopolicy.policies.diffusion"

# What `lerobot-eval` does with its arguments, up to the first chunk: nothing of ours is imported here.
_PREDICT = """
import sys
from pathlib import Path

import torch
from lerobot.configs import parser
from lerobot.configs.eval import EvalPipelineConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from safetensors.torch import load_file, save_file

inputs, output = sys.argv.pop(), sys.argv.pop()

@parser.wrap()
def main(cfg: EvalPipelineConfig):
    policy = get_policy_class(cfg.policy.type).from_pretrained(cfg.policy.pretrained_path).eval()
    before, after = make_pre_post_processors(cfg.policy, pretrained_path=str(cfg.policy.pretrained_path))
    batch = load_file(inputs)
    noise = batch.pop("noise")
    save_file({"chunk": after(policy.predict_action_chunk(before(batch), noise=noise))}, output)

main()
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    out = tmp_path_factory.mktemp("policy") / "policy"
    save_policy(tiny_policy(SPEC), out)
    return out


def observed(count: int = 5):
    """Physical observations, and the same under LeRobot's names."""
    starts = [e.states[3 : 3 + SPEC.obs_steps] for e in random_episodes(SPEC, count)]
    obs, n = torch.from_numpy(np.stack(starts)), SPEC.proprio_dim
    return obs, {
        "observation.state": obs[..., :n].contiguous(),
        "observation.environment_state": obs[..., n:].contiguous(),
    }


@pytest.mark.slow
def test_lerobot_command_line_loads_the_policy_and_predicts_as_ours_does(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    obs, batch = observed()
    noise = normal(len(obs), SPEC.chunk, SPEC.action_dim)
    inputs, output = tmp_path / "inputs.safetensors", tmp_path / "output.safetensors"
    save_file({**batch, "noise": noise}, inputs)
    flags = [f"--policy.discover_packages_path={PLUGIN}", f"--policy.path={saved}"]
    command = [sys.executable, "-c", _PREDICT, "--env.type=pusht", *flags]
    command += [f"--output_dir={tmp_path}/eval", output, inputs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    wanted, _ = load_policy(saved).sample(obs, {}, noise)
    assert torch.allclose(load_file(output)["chunk"], wanted, atol=1e-5)


def test_saved_configuration_names_the_registered_type(saved):
    from lerobot.policies.factory import get_policy_class

    assert json.loads((saved / "config.json").read_text())["type"] == "chunk_diffusion"
    policy = get_policy_class("chunk_diffusion").from_pretrained(saved)
    assert type(policy).__name__ == "ChunkDiffusionPolicy"
    assert policy.config.horizon == SPEC.chunk


def test_lerobot_dataset_with_delta_timestamps_trains_the_policy(saved, tmp_path):
    from lerobot.datasets.factory import resolve_delta_timestamps
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.policies.factory import make_pre_post_processors

    root = write_dataset(tmp_path / "set", SPEC, random_episodes(SPEC))
    policy = load_policy(saved).core.requires_grad_(True).train()
    plain = LeRobotDataset("robopolicy/push", root=root)
    deltas = resolve_delta_timestamps(policy.config, plain.meta)
    dataset = LeRobotDataset("robopolicy/push", root=root, delta_timestamps=deltas)
    before, _ = make_pre_post_processors(policy.config, pretrained_path=str(saved))
    batch = before(next(iter(torch.utils.data.DataLoader(dataset, batch_size=16))))
    assert batch["action"].shape == (16, SPEC.chunk, SPEC.action_dim)
    assert batch["action"].abs().max() <= 1 + 1e-5
    assert batch["action_is_pad"].any()
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    losses = []
    for _ in range(10):
        torch.manual_seed(0)  # the same noise, so that the loss can only fall by learning
        loss, _ = policy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
