"""LeRobot's SmolVLA and pi0, tiny and never trained, loaded and steered as our policies are.

SmolVLA reads its sizes from a folder. LeRobot 0.6.1 knows two sizes of pi0, the smaller of width 1024, and
fixes vocabulary and vision tower (`get_gemma_config`, `PaliGemmaWithExpertModel` in `modeling_pi0.py`): these
are replaced here, the rest is LeRobot's. Its tokeniser is on the Hub, so it gets SmolVLA's processors.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from scripted_world import SPEC, STARTS, ScriptedWorld
from tiny import change, normal, observations
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from robopolicy.config import STEER_PRESETS
from robopolicy.errors import BadInput
from robopolicy.evaluate import evaluate
from robopolicy.policies.load import load_policy
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.steering.load import load_steerer
from robopolicy.steering.steer import imagined_success, steer
from robopolicy.train import seeded_init
from world_models.imagined_env import ImaginedEnv

T, K, A, D = SPEC.obs_steps, SPEC.chunk, SPEC.action_dim, SPEC.state_dim
H, DIMS = 6, 5  # steps and dimensions of the model's own noise
WORDS = ["<unk>", "<pad>", "<image>", "<fake>", "<global>", "push"]
CAMERA = "observation.images.empty_camera_0"


def write_vlm(folder):
    """What SmolVLA wants to find on the Hub: sizes of the vision and language model, and a tokeniser."""
    own = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token=WORDS[0]))
    own.pre_tokenizer = Whitespace()
    special = dict(zip(("image_token", "fake_image_token", "global_image_token"), WORDS[2:5], strict=True))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own, unk_token=WORDS[0], pad_token=WORDS[1], extra_special_tokens=special
    )
    parts = (SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor())
    SmolVLMProcessor(*parts, chat_template="").save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"model_type": "llama", "num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(WORDS)}
    SmolVLMConfig(
        vision_config=size | {"image_size": 32, "patch_size": 16},
        text_config=size | text | {"pad_token_id": 1},
        image_token_id=2,
        pad_token_id=1,
        tie_word_embeddings=True,
    ).save_pretrained(folder)


@pytest.fixture(scope="module", autouse=True)
def small_pi0():
    vlm, expert = modeling_pi0.PaliGemmaForConditionalGenerationWithPiGemma, modeling_pi0.PiGemmaForCausalLM
    sizes = {"width": 32, "depth": 2, "mlp_dim": 32, "num_heads": 4, "num_kv_heads": 1, "head_dim": 8}

    def small_vlm(config):
        config.projection_dim, config.text_config.vocab_size, config.image_token_index = 32, len(WORDS), 2
        vision = {"hidden_size": 32, "intermediate_size": 32, "projection_dim": 32, "patch_size": 16}
        config.vision_config.update(vision | {"num_hidden_layers": 1, "num_attention_heads": 4})
        return vlm(config)

    def small_expert(config):
        config.vocab_size = len(WORDS)
        return expert(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_pi0, "get_gemma_config", lambda _: modeling_pi0.GemmaConfig(**sizes))
        patch.setattr(modeling_pi0, "PaliGemmaForConditionalGenerationWithPiGemma", small_vlm)
        patch.setattr(modeling_pi0, "PiGemmaForCausalLM", small_expert)
        yield


@pytest.fixture(scope="module", params=["smolvla", "pi0"])
def saved(request, tmp_path_factory):
    """As LeRobot saves it, with statistics of our state and action."""
    vlm, out = tmp_path_factory.mktemp("vlm"), tmp_path_factory.mktemp("policy") / "policy"
    write_vlm(vlm)
    both = {
        "input_features": {"observation.state": PolicyFeature(FeatureType.STATE, (D,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (A,))},
        "device": "cpu",
        "push_to_hub": False,
        "empty_cameras": 1,
        "chunk_size": H,
        "n_action_steps": K,
        "max_state_dim": 8,
        "max_action_dim": DIMS,
    }
    own = {"vlm_model_name": str(vlm), "num_vlm_layers": 2, "num_steps": 4}
    config = smolvla = SmolVLAConfig(**both, **own, resize_imgs_with_padding=(32, 32))
    if request.param == "pi0":
        config = PI0Config(**both, num_inference_steps=4, image_resolution=(32, 32))
    stats = {
        "observation.state": {"mean": torch.full((D,), 0.1), "std": torch.full((D,), 0.3)},
        "action": {"mean": torch.zeros(A), "std": torch.full((A,), 0.05)},
    }
    with seeded_init(0):
        policy = get_policy_class(config.type)(config)
    policy.save_pretrained(out)
    for pipeline in make_pre_post_processors(smolvla, dataset_stats=stats):
        pipeline.save_pretrained(out)
    return out


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "policy")


def test_chunk_is_what_lerobots_class_makes_of_whole_state_black_picture_and_task(saved):
    policy, obs, noise = load_policy(saved, SPEC), observations(SPEC), normal(5, K, A)
    kind = json.loads((saved / "config.json").read_text())["type"]
    core = get_policy_class(kind).from_pretrained(saved).eval()
    before, after = make_pre_post_processors(core.config, str(saved))
    black = torch.zeros(5, *core.config.input_features[CAMERA].shape)
    seen = {"observation.state": obs[:, -1], CAMERA: black, "task": ["push"] * 5}
    whole = (noise.flatten(1) @ policy.spread).view(5, H, DIMS)
    wanted = after(core.predict_action_chunk(before(seen), noise=whole))[:, :K]
    assert torch.allclose(policy.sample(obs, {}, noise)[0], wanted.clamp(policy.low, policy.high), atol=1e-6)


def test_noise_determines_the_chunk_and_leaves_no_trace(saved):
    policy, obs, noise = load_policy(saved, SPEC), observations(SPEC), normal(5, K, A)
    before = policy.hash()
    with seeded_init(1):
        first, _ = policy.sample(obs, {}, noise)
    policy.sample(observations(SPEC, 3), {}, normal(3, K, A, seed=2))
    with seeded_init(2):
        again, _ = policy.sample(obs, {}, noise)
    assert first.shape == (5, K, A)
    assert torch.equal(first, again)
    assert not torch.allclose(first, policy.sample(obs, {}, -noise)[0], atol=1e-2)
    assert torch.allclose(policy.sample(obs[2:3], {}, noise[2:3])[0], first[2:3], atol=1e-6)
    assert policy.hash() == before == load_policy(saved, SPEC).hash()


@pytest.mark.parametrize("number", range(D))
def test_every_number_of_the_newest_state_counts_and_no_older_one(saved, number):
    policy, obs, noise = load_policy(saved, SPEC), observations(SPEC), normal(5, K, A)
    first, _ = policy.sample(obs, {}, noise)
    for step, counts in ((0, False), (T - 1, True)):
        other = obs.clone()
        other[:, step, number] += 0.5
        assert torch.equal(policy.sample(other, {}, noise)[0], first) != counts


def test_noise_of_executed_numbers_is_passed_on_and_the_rest_is_normal_if_it_is(saved):
    spread = load_policy(saved, SPEC).spread.view(K * A, H, DIMS)
    assert torch.equal(spread[:, :K, :A].flatten(1), torch.eye(K * A))
    assert torch.allclose(spread.square().sum(0), torch.ones(H, DIMS), atol=1e-6)


def test_what_it_is_told_is_part_of_its_hash(saved):
    other = dataclasses.replace(SPEC, task="pull")
    policy, told = load_policy(saved, SPEC), load_policy(saved, other)
    assert policy.hash() != told.hash()
    obs, noise = observations(SPEC), normal(5, K, A)
    assert not torch.equal(policy.sample(obs, {}, noise)[0], told.sample(obs, {}, noise)[0])


def test_policy_is_judged_and_steered_in_imagination(saved, tmp_path):
    policy, world = load_policy(saved, SPEC), ScriptedWorld(won_above=0.1)
    judged = evaluate(ImaginedEnv(world, STARTS, 8), policy, None, range(16), "imagined")
    recorded = rollout(ImaginedEnv(world, STARTS, 4), policy, PriorSteerer(), range(4))
    exam = imagined_success(ImaginedEnv(world, STARTS, 8), policy, 8, 0)
    report = steer(
        policy,
        lambda n: ImaginedEnv(world, STARTS, n, doubt_limit=1.0),
        recorded,
        tmp_path / "s",
        STEER_PRESETS["tiny"],
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


def test_camera_that_is_not_called_empty_is_refused(folder):
    inputs = json.loads((folder / "config.json").read_text())["input_features"]
    inputs["observation.images.top"] = {"type": "VISUAL", "shape": [3, 64, 64]}
    with pytest.raises(BadInput, match=r"features.*images\.top"):
        load_policy(change(folder, input_features=inputs), SPEC)


def test_policy_without_any_camera_is_refused(folder):
    inputs = {"observation.state": {"type": "STATE", "shape": [D]}}
    with pytest.raises(BadInput, match=r"empty_cameras.*at least 1"):
        load_policy(change(folder, input_features=inputs, empty_cameras=0), SPEC)


def test_policy_of_a_part_of_the_state_is_refused(folder):
    inputs = json.loads((folder / "config.json").read_text())["input_features"]
    inputs["observation.state"]["shape"] = [SPEC.proprio_dim]
    with pytest.raises(BadInput, match=rf"features.*wanted.*\({D},\).*got.*\({SPEC.proprio_dim},\)"):
        load_policy(change(folder, input_features=inputs), SPEC)


@pytest.mark.parametrize("saved", ["smolvla"], indirect=True)
def test_missing_vision_and_language_model_is_refused(folder, tmp_path):
    with pytest.raises(BadInput, match="can be built here"):
        load_policy(change(folder, vlm_model_name=str(tmp_path)), SPEC)
