"""A small robot and task for tests that need data: a hand that is pushed about near a block.

State (hand, reach, block): the hand moves by its action, the block not at all unless the hand comes
close. The task is achieved when the hand has risen.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from robopolicy.config import PolicyConfig, WorldConfig
from robopolicy.data.writer import EpisodeWriter
from robopolicy.spec import Field, Spec
from robopolicy.types import Episode

if TYPE_CHECKING:
    from robopolicy.policies.load import ChunkPolicy
    from world_models.state import StateWorldModel

POLICY = PolicyConfig(width=32, blocks=1, channels=(16, 32), steps=12, batch_size=16, inference_steps=5)
WORLD = WorldConfig(
    members=2,
    stride=2,
    width=16,
    blocks=1,
    steps=12,
    batch_size=32,
    error_steps=12,
    sample_steps=2,
    success_steps=20,
    held_out=0.2,
)
GOAL = 0.3


def tiny_spec(objects: bool = True) -> Spec:
    """Points, a joint and, if asked for, an object."""
    return Spec(
        robot="toy",
        task="push",
        fps=10,
        chunk=4,
        obs_steps=2,
        horizon=10,
        proprio=(Field("hand", 3, "m", -1.0, 1.0, "point"), Field("reach", 1, "1", -1.0, 1.0, "joint")),
        objects=(Field("block", 3, "m", -1.0, 1.0, "point"),) if objects else (),
        action=(Field("move", 3, "m", -0.2, 0.2, "command"),),
    )


def random_episodes(spec: Spec, count: int = 12, length: int = 10, seed: int = 0) -> list[Episode]:
    """Episodes whose hand follows its actions; every other one is a success."""
    return [episode(spec, 100 + i, length, bool(i % 2), seed) for i in range(count)]


def episode(spec: Spec, number: int, length: int, success: bool, seed: int = 0) -> Episode:
    rng = np.random.default_rng([seed, number])
    actions = rng.uniform(-0.05, 0.05, (length, spec.action_dim)).astype(np.float32)
    actions[:, 2] = 0.06 if success else -0.02
    states = np.zeros((length + 1, spec.state_dim), np.float32)
    states[0] = rng.uniform(-0.3, 0.0, spec.state_dim)
    for i, action in enumerate(actions):
        states[i + 1] = states[i]
        states[i + 1, :3] = np.clip(states[i, :3] + action, -1, 1)
        states[i + 1, 3] = np.clip(states[i, 3] + 0.5 * action[0], -1, 1)
    starts = np.arange(0, length, spec.chunk)
    return Episode(
        seed=number,
        states=states,
        actions=actions,
        success=success,
        terminated=success,
        truncated=not success,
        noise=rng.standard_normal((len(starts), spec.chunk, spec.action_dim)).astype(np.float32),
        chunk_starts=starts,
        doubt=rng.uniform(0, 1, len(starts)).astype(np.float32),
        source="expert" if success else "random",
        strategy="direct",
        reason="" if success else "horizon",
    )


def write_dataset(root: Path, spec: Spec, episodes: list[Episode], **settings: Any) -> Path:
    """A finished dataset of `episodes`, and how they are said to have come about."""
    with EpisodeWriter(root, spec, "push the block", settings or {"made": "up"}) as writer:
        for e in episodes:
            writer.add(e)
    return root


def tiny_policy(spec: Spec, config: PolicyConfig = POLICY, seed: int = 0) -> ChunkPolicy:
    """An untrained policy."""
    # Only here: these pull in most of LeRobot, which the other tests can do without.
    from robopolicy.data.windows import PolicyWindows
    from robopolicy.policies.train import new_policy

    return new_policy(spec, config, PolicyWindows(random_episodes(spec), spec), seed).eval()


def tiny_world(spec: Spec, **changes: Any) -> StateWorldModel:
    """A frozen world model: statistics fitted, networks random."""
    from robopolicy.train import seeded_init
    from world_models.load import freeze
    from world_models.state import StateWorldModel
    from world_models.statistics import fit_errors, fit_statistics
    from world_models.windows import windows

    with seeded_init(0):
        model = StateWorldModel(spec, replace(WORLD, **changes))
        for net in (*model.members, model.denoiser):
            torch.nn.init.normal_(net.out.weight, std=0.1)
    data = windows(random_episodes(spec), spec, model.steps)
    fit_statistics(model, data)
    fit_errors(model, data)
    return freeze(model)


def same_episode(a: Episode, b: Episode) -> bool:
    """Whether every array and flag is equal, to the bit."""
    mine, theirs = vars(a), vars(b)
    return all(
        np.array_equal(x, theirs[n]) if isinstance(x, np.ndarray) else x == theirs[n] for n, x in mine.items()
    )


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def observations(spec: Spec, count: int = 5) -> torch.Tensor:
    """(count, T, D) what a policy sees in as many random episodes."""
    starts = [e.states[3 : 3 + spec.obs_steps] for e in random_episodes(spec, count)]
    return torch.from_numpy(np.stack(starts))


def change(folder: Path, **settings: Any) -> Path:
    """Overwrites settings in the config.json of `folder`."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder
