"""Small trainings, none of which takes LeRobot; what comes of them is a function of the seed alone."""

from __future__ import annotations

import torch
from steering_toy import ToyEnv, ToyPolicy, recorded
from tiny import WORLD, random_episodes, tiny_spec

from robopolicy.checkpoint import tensor_hash
from robopolicy.config import STEER_PRESETS
from robopolicy.rollout import rollout
from robopolicy.steering.dsrl import Dsrl
from robopolicy.train import fit, seeded_init
from world_models.learners import MemberLearner
from world_models.state import StateWorldModel
from world_models.statistics import fit_statistics
from world_models.windows import windows


def tiny_member() -> MemberLearner:
    """Trains a member of a world model."""
    spec = tiny_spec()
    with seeded_init(0):
        model = StateWorldModel(spec, WORLD)
    data = windows(random_episodes(spec), spec, model.steps)
    fit_statistics(model, data)
    return MemberLearner(model, 1, data, WORLD)


def tiny_steerer() -> Dsrl:
    """Trains a steerer of the toy policy."""
    generator = torch.Generator().manual_seed(0)
    return Dsrl(ToyPolicy(), ToyEnv(4), recorded(8), STEER_PRESETS["tiny"], generator)


def trainings(seed: int) -> list[str]:
    """Hashes of a steerer, of a member and of episodes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over several are rounded otherwise
    steerer, member = tiny_steerer(), tiny_member()
    for learner in (steerer, member):
        fit(learner, 12, seed, "toy", quiet=True)
    episodes = rollout(ToyEnv(3), ToyPolicy(), steerer.steerer, range(seed, seed + 5))
    torch.set_num_threads(threads)
    states = {str(i): torch.from_numpy(e.states) for i, e in enumerate(episodes)}
    return [tensor_hash(x) for x in (steerer.state(), member.state(), states)]
