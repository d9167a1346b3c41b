"""LeRobot's own diffusion policy goes through the verbs of the chain as ours does."""

import pytest
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

from robopolicy.checkpoint import folder_hash, read_json
from robopolicy.cli import main
from robopolicy.train import seeded_init
from sim.tasks import LIFT


@pytest.fixture
def lerobot(here, tmp_path):
    """An untrained policy for Lift, saved by LeRobot's classes."""
    config = DiffusionConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (LIFT.proprio_dim,)),
            "observation.environment_state": PolicyFeature(
                FeatureType.ENV, (LIFT.state_dim - LIFT.proprio_dim,)
            ),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (LIFT.action_dim,))},
        device="cpu",
        push_to_hub=False,
        horizon=16,
        n_action_steps=LIFT.chunk,
        noise_scheduler_type="DDIM",
        num_inference_steps=2,
        down_dims=(16, 32),
        n_groups=4,
    )
    with seeded_init(0):
        policy = DiffusionPolicy(config)
    stats = LeRobotDatasetMetadata("robopolicy/lift", root=here / "data").stats
    for part in (policy, *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(tmp_path / "lerobot")
    return tmp_path / "lerobot"


def test_lerobot_diffusion_is_steered_and_judged_in_a_world_model_by_the_verbs(lerobot, tmp_path):
    before, steerer = folder_hash(lerobot), tmp_path / "steerer"
    given = f"--world world --policy {lerobot}"
    assert main(f"steer {given} --dataset data --preset tiny --out {steerer}".split()) == 0
    assert main(f"imagine {given} --steerer {steerer} --episodes 8 --out {tmp_path}/out".split()) == 0
    rows = read_json(tmp_path / "out/result.json")["policies"]
    plain, hashes = {"policy": before}, [row["hashes"] for row in rows]
    assert hashes == [plain, {**plain, "steerer": folder_hash(steerer)}]
    assert [row["episodes"] for row in rows] == [8, 8]
    assert folder_hash(lerobot) == before
    frozen = read_json(steerer / "result.json")["hashes"]
    assert all(h["before"] == h["after"] for h in frozen.values())
