"""A saved policy with its saved steerer drives the arm over DDS as it does in evaluation."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

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
from ros_nodes.deploy import deploy
from sim.lift_expert import OPERATORS, LiftExpert
from sim.tasks import LIFT
from sim.vector import SimVectorEnv

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


def test_deployment_of_a_steered_policy_in_lockstep_completes_the_episodes_of_rollout(saved, monkeypatch):
    policy = load_policy(saved[0])
    env = SimVectorEnv("lift", 1)
    try:
        offline = rollout(env, policy, load_steerer(saved[1], policy), SEEDS)
        plain = rollout(env, policy, PriorSteerer(), SEEDS)
    finally:
        env.close(terminate=True)
    assert any(e.success for e in offline)
    assert not np.array_equal(offline[0].noise, plain[0].noise)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(101 + os.getpid() % 100))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    report = deploy(*saved, episodes=len(SEEDS), lockstep=True)
    assert [(e.success, e.steps) for e in report.episodes] == [(e.success, e.length) for e in offline]
