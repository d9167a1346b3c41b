"""A saved policy drives the arm over DDS as it does in evaluation: with its steerer, and with foresight."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WORLD

pytest.importorskip("rclpy")
pytest.importorskip("robosuite")

from robopolicy.config import PolicyConfig, SteerConfig
from robopolicy.data.writer import EpisodeWriter
from robopolicy.policies.load import load_policy
from robopolicy.policies.train import train_policy
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import episode_seed
from robopolicy.steering.actors import ActorConfig
from robopolicy.steering.load import load_steerer
from robopolicy.steering.steerer import NoiseSteerer, policy_hash, save_steerer
from robopolicy.types import Episode
from ros_nodes.deploy import deploy
from sim.lift_expert import OPERATORS, LiftExpert
from sim.tasks import LIFT
from sim.vector import SimVectorEnv
from world_models.train import train_world

pytestmark = [pytest.mark.ros, pytest.mark.slow]

SEEDS = [episode_seed(0, "deploy", i) for i in range(2)]
DEMOS = 16


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, Path]:
    """A policy trained on a few careful demonstrations, and a steerer of it."""
    root = tmp_path_factory.mktemp("saved")
    env = SimVectorEnv("lift", 2, chunk=1)
    try:
        expert = LiftExpert(LIFT, OPERATORS["careful"])
        episodes = rollout(env, expert, PriorSteerer(), [*SEEDS, *range(DEMOS)])
    finally:
        env.close(terminate=True)
    with EpisodeWriter(root / "demos", LIFT, "lift", {}) as writer:
        for episode in episodes:
            writer.add(episode)
    train_policy([root / "demos"], root / "policy", PolicyConfig(steps=1500), 0)
    policy = load_policy(root / "policy")
    steerer = NoiseSteerer(ActorConfig.of(SteerConfig()), LIFT, torch.Generator().manual_seed(0))
    steerer.features.fit(episodes, LIFT)
    save_steerer(root / "steerer", steerer, policy_hash(policy), "")
    return root / "policy", root / "steerer"


@pytest.fixture(scope="module")
def offline(saved) -> tuple[list[Episode], list[Episode]]:
    """Episodes of the policy in evaluation: by itself, and steered."""
    policy = load_policy(saved[0])
    env = SimVectorEnv("lift", 1)
    try:
        plain, steered = (
            rollout(env, policy, s, SEEDS) for s in (PriorSteerer(), load_steerer(saved[1], policy))
        )
    finally:
        env.close(terminate=True)
    assert not np.array_equal(plain[0].noise, steered[0].noise)
    return plain, steered


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """From other tests' nodes."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(101 + os.getpid() % 100))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)


def assert_completed(report, wanted):
    """The deployed episodes are the evaluated ones, some of which succeed."""
    assert any(e.success for e in wanted)
    assert [(e.success, e.steps) for e in report.episodes] == [(e.success, e.length) for e in wanted]


def test_deployment_of_a_steered_policy_in_lockstep_completes_the_episodes_of_rollout(saved, offline):
    assert_completed(deploy(*saved, episodes=len(SEEDS), lockstep=True), offline[1])


def test_deployment_with_foresight_in_lockstep_where_nothing_is_late_is_the_policy_itself(saved, offline):
    root = saved[0].parent
    train_world([root / "demos"], root / "world", WORLD, 0, processes=1)
    report = deploy(saved[0], foresight=root / "world", episodes=len(SEEDS), lockstep=True)
    assert_completed(report, offline[0])
