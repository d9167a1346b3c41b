"""LeRobot's own policies, loaded, judged and steered as ours are, or refused saying why."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.common.flow_matching import euler_integrate, sample_noise
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import make_default_pre_post_processors
from scripted_world import SPEC, STARTS, ScriptedWorld
from tiny import change, normal, observations, random_episodes, tiny_policy, write_dataset
from torch import nn

from robopolicy.checkpoint import folder_hash, load_tensors, save_tensors
from robopolicy.config import STEER_PRESETS
from robopolicy.errors import BadInput
from robopolicy.evaluate import evaluate
from robopolicy.policies.adapter import LeRobotPolicy
from robopolicy.policies.load import load_policy
from robopolicy.policies.train import save_policy
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.steering.load import load_steerer
from robopolicy.steering.steer import imagined_success, steer
from robopolicy.train import seeded_init
from world_models.imagined_env import ImaginedEnv

T, K, A, P = SPEC.obs_steps, SPEC.chunk, SPEC.action_dim, SPEC.proprio_dim
FEATURES = {
    "input_features": {
        "observation.state": PolicyFeature(FeatureType.STATE, (P,)),
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (SPEC.state_dim - P,)),
    },
    "output_features": {"action": PolicyFeature(FeatureType.ACTION, (A,))},
    "device": "cpu",
    "push_to_hub": False,
}


def diffusion(**settings):
    own = {"n_obs_steps": T, "horizon": 8, "n_action_steps": K, "down_dims": (16, 32), "n_groups": 4}
    own |= {"noise_scheduler_type": "DDIM", "num_inference_steps": 4}
    return DiffusionConfig(**FEATURES, **own | settings)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Trained for three steps by LeRobot's class, on a dataset of ours, and saved as LeRobot saves."""
    from lerobot.datasets.factory import resolve_delta_timestamps
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = write_dataset(tmp_path_factory.mktemp("data") / "set", SPEC, random_episodes(SPEC, 4))
    config, meta = diffusion(), LeRobotDataset("robopolicy/push", root=root).meta
    deltas = resolve_delta_timestamps(config, meta)
    data = LeRobotDataset("robopolicy/push", root=root, delta_timestamps=deltas)
    out = tmp_path_factory.mktemp("policy") / "policy"
    with seeded_init(0):
        policy = DiffusionPolicy(config).train()
        both = make_pre_post_processors(config, dataset_stats=meta.stats)
        optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
        batch = both[0](next(iter(torch.utils.data.DataLoader(data, batch_size=16))))
        for _ in range(3):
            optimizer.zero_grad()
            policy(batch)[0].backward()
            optimizer.step()
    policy.save_pretrained(out)
    for pipeline in both:
        pipeline.save_pretrained(out)
    return out


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "policy")


def test_chunk_is_what_lerobots_own_loop_executes(saved):
    policy, obs, noise = load_policy(saved, SPEC), observations(SPEC), normal(5, K, A)
    core = DiffusionPolicy.from_pretrained(saved).eval()
    before, after = make_pre_post_processors(core.config, str(saved))
    whole = (noise.flatten(1) @ policy.spread).view(5, 8, A)
    for i in range(T):
        seen = {"observation.state": obs[:, i, :P], "observation.environment_state": obs[:, i, P:]}
        if i == T - 1:
            core._queues["action"].clear()
        first = core.select_action(before(seen), noise=whole)
    rest = [core.select_action(before(seen), noise=whole) for _ in range(K - 1)]
    wanted = torch.stack([after(a) for a in (first, *rest)], 1)
    assert torch.allclose(policy.sample(obs, {}, noise)[0], wanted, atol=1e-6)


def test_noise_determines_the_chunk_and_leaves_no_trace(saved):
    policy, obs, noise = load_policy(saved, SPEC), observations(SPEC), normal(5, K, A)
    before = policy.hash()
    with seeded_init(1):
        first, _ = policy.sample(obs, {}, noise)
    policy.sample(observations(SPEC, 3), {}, normal(3, K, A, seed=2))
    with seeded_init(2):
        again, _ = policy.sample(obs, {}, noise)
    assert torch.equal(first, again)
    assert not torch.equal(first, policy.sample(obs, {}, -noise)[0])
    assert torch.allclose(policy.sample(obs[2:3], {}, noise[2:3])[0], first[2:3], atol=1e-6)
    assert policy.hash() == before == load_policy(saved, SPEC).hash()


def test_noise_of_executed_steps_is_passed_on_and_the_rest_is_normal_if_it_is(saved):
    spread = load_policy(saved, SPEC).spread
    executed = spread.view(K * A, 8, A)[:, T - 1 : T - 1 + K].flatten(1)
    assert torch.equal(executed, torch.eye(K * A))
    others = spread.view(K * A, 8, A)[:, [0, *range(T - 1 + K, 8)]].flatten(1)
    assert torch.allclose(others.T @ others, torch.eye(others.shape[1]), atol=1e-6)


def test_statistics_are_part_of_the_hash(saved, folder):
    path = next(folder.glob("policy_preprocessor*.safetensors"))
    tensors, _ = load_tensors(path)
    tensors["observation.state.max"] += 1
    save_tensors(path, tensors)
    assert load_policy(folder, SPEC).hash() != load_policy(saved, SPEC).hash()
    assert folder_hash(folder) != folder_hash(saved)


def test_actions_stay_in_the_range_of_the_spec(saved):
    narrow = dataclasses.replace(SPEC, action=(dataclasses.replace(SPEC.action[0], low=-0.01, high=0.01),))
    actions, _ = load_policy(saved, narrow).sample(observations(SPEC), {}, 3 * normal(5, K, A))
    assert actions.abs().max() == np.float32(0.01)


def test_policy_is_judged_and_steered_in_imagination(saved, tmp_path):
    policy, world = load_policy(saved, SPEC), ScriptedWorld(won_above=0.1)
    judged = evaluate(ImaginedEnv(world, STARTS, 8), policy, None, range(16), "imagined")
    assert len(judged.episodes) == 16
    recorded = rollout(ImaginedEnv(world, STARTS, 4), policy, PriorSteerer(), range(4))
    exam = imagined_success(ImaginedEnv(world, STARTS, 8), policy, 8, 0)
    config = STEER_PRESETS["tiny"]
    report = steer(
        policy,
        lambda n: ImaginedEnv(world, STARTS, n, doubt_limit=1.0),
        recorded,
        tmp_path / "s",
        config,
        0,
        exam,
    )
    assert report["hashes"]["policy"]["before"] == policy.hash()
    steerer = load_steerer(tmp_path / "s", load_policy(saved, SPEC))
    steered = evaluate(ImaginedEnv(world, STARTS, 8), policy, steerer, range(16), "imagined")
    assert any(
        not np.array_equal(a.actions, b.actions)
        for a, b in zip(judged.episodes, steered.episodes, strict=True)
    )


def test_checkpoint_without_a_spec_is_refused_unless_one_is_given(saved):
    with pytest.raises(BadInput, match=r"manifest\.json"):
        load_policy(saved)


def test_our_policy_as_lerobot_saves_it_is_loaded_with_a_spec(tmp_path):
    policy = tiny_policy(SPEC)
    save_policy(policy, tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert load_policy(tmp_path, SPEC).hash() == policy.hash()


def test_unfinished_policy_of_ours_is_refused_with_a_spec_too(tmp_path):
    save_policy(tiny_policy(SPEC), tmp_path)
    (tmp_path / "manifest.json").rename(tmp_path / "progress.safetensors")
    with pytest.raises(BadInput, match=r"manifest\.json"):
        load_policy(tmp_path, SPEC)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"noise_scheduler_type": "DDPM"}, "noise alone.*DDIM"),
        ({"n_action_steps": K - 1}, "n_action_steps.*wanted 4.*got 3"),
        ({"n_obs_steps": 3}, "n_obs_steps.*at most 2"),
        ({"n_obs_steps": 1, "horizon": 16}, r"model\.safetensors"),
    ],
)
def test_configuration_that_does_not_fit_is_refused_by_name(folder, settings, named):
    with pytest.raises(BadInput, match=named):
        load_policy(change(folder, **settings), SPEC)


def test_policy_with_cameras_is_refused(folder):
    inputs = json.loads((folder / "config.json").read_text())["input_features"]
    inputs["observation.images.top"] = {"type": "VISUAL", "shape": [3, 64, 64]}
    with pytest.raises(BadInput, match=r"features.*images\.top"):
        load_policy(change(folder, input_features=inputs), SPEC)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "policy_postprocessor.json"])
def test_missing_file_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(BadInput, match=name):
        load_policy(folder, SPEC)


def test_missing_statistics_are_refused(folder):
    next(folder.glob("policy_preprocessor*.safetensors")).unlink()
    with pytest.raises(BadInput, match="processor"):
        load_policy(folder, SPEC)


@pytest.mark.parametrize("name", ["policy_preprocessor*.safetensors", "policy_preprocessor.json"])
def test_damaged_processor_is_refused(folder, name):
    path = next(folder.glob(name))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadInput, match="processor"):
        load_policy(folder, SPEC)


def test_statistics_that_are_not_finite_are_refused(folder):
    path = next(folder.glob("policy_preprocessor*.safetensors"))
    tensors, _ = load_tensors(path)
    tensors["observation.state.max"][0] = torch.nan
    save_tensors(path, tensors)
    with pytest.raises(BadInput, match="finite statistics"):
        load_policy(folder, SPEC)


def test_policy_that_takes_no_noise_is_refused():
    config = ACTConfig(
        **FEATURES, chunk_size=K, n_action_steps=K, dim_model=16, n_heads=2, dim_feedforward=16
    )
    with seeded_init(0), pytest.raises(BadInput, match="act, which takes none"):
        LeRobotPolicy(SPEC, ACTPolicy(config), *make_default_pre_post_processors(config))


class Flow(nn.Module):
    """Called as LeRobot's flow policies are: more steps and dimensions than are executed, one observation.

    Args:
        heed: whether it starts from the noise given to it.
    """

    name = "flow"

    def __init__(self, heed=True):
        super().__init__()
        self.config = SimpleNamespace(
            **FEATURES,
            chunk_size=6,
            max_action_dim=5,
            n_obs_steps=1,
            observation_delta_indices=None,
            action_delta_indices=list(range(6)),
        )
        self.heed, self.net = heed, nn.Linear(SPEC.state_dim + 5, 5)

    def reset(self):
        pass

    def predict_action_chunk(self, batch, **kwargs):
        cond = torch.cat([batch["observation.state"], batch["observation.environment_state"]], -1)
        assert cond.ndim == 2
        assert batch["task"] == [SPEC.task] * len(cond)
        noise = kwargs["noise"]
        assert noise.shape == (len(cond), 6, 5)
        start = noise if self.heed else sample_noise(noise.shape, "cpu")
        around = cond[:, None].expand(-1, 6, -1)
        field = lambda x, time: self.net(torch.cat([around, x], -1))  # noqa: E731
        return euler_integrate(field, start, 4)[..., :A]


def flow(**settings):
    with seeded_init(0):
        core = Flow(**settings)
    processors = make_default_pre_post_processors(ACTConfig(**FEATURES), None)
    return LeRobotPolicy(SPEC, core, *processors)


def test_flow_policy_with_padded_actions_and_a_longer_chunk_is_a_function_of_our_noise():
    policy, obs, noise = flow(), observations(SPEC), normal(5, K, A)
    chunk, _ = policy.sample(obs, {}, noise)
    assert chunk.shape == (5, K, A)
    assert torch.equal(chunk, policy.sample(obs, {}, noise)[0])
    assert not torch.equal(chunk, policy.sample(obs, {}, -noise)[0])
    # Only the newest observation counts.
    assert torch.equal(chunk, policy.sample(torch.cat([0 * obs[:, :1], obs[:, 1:]], 1), {}, noise)[0])


def test_policy_that_draws_its_own_noise_is_refused():
    with pytest.raises(BadInput, match="flow, which draws more"):
        flow(heed=False)
