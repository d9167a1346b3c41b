"""What success is, learned from states in which other things go along with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import WORLD, normal, random_episodes, tiny_spec

from robopolicy.errors import BadInput
from robopolicy.train import fit, seeded_init
from world_models.state import StateWorldModel
from world_models.statistics import fit_statistics
from world_models.success import (
    SuccessLearner,
    about_objects,
    first_layer,
    fit_success,
    inputs_used,
    judged_wrongly,
    shrink_inputs,
)
from world_models.windows import windows

SPEC = tiny_spec()
BLOCK = SPEC.slice_of("block")
RISEN, RAISED = 2, 6  # the height that decides, and one that goes along with it
GOAL = 0.5


def learner(states: torch.Tensor, success: torch.Tensor, sparsity: float = 1.0) -> SuccessLearner:
    with seeded_init(0):
        model = StateWorldModel(SPEC, WORLD)
    inputs = torch.cat([states, model.geometry.relations(states)], -1).flatten(0, 1)
    model.success_mean.copy_(inputs.mean(0))
    model.success_std.copy_(inputs.std(0).clamp_min(1e-4))
    return SuccessLearner(model, states, torch.ones(success.shape), success, sparsity)


def confounded() -> tuple[torch.Tensor, torch.Tensor]:
    """(M, K, D) rising states, one number of which decides and another nearly always agrees."""
    states = 0.3 * normal(400, SPEC.chunk, SPEC.state_dim)
    states[..., RISEN] = torch.linspace(0, 1, SPEC.chunk) + 0.4 * normal(400, 1, seed=1)
    states[..., RAISED] = states[..., RISEN] + 0.15 * normal(400, SPEC.chunk, seed=2)
    return states, (states[..., RISEN] > GOAL).float()


def test_success_head_looks_at_what_decides_and_at_nothing_that_goes_along():
    states, success = confounded()
    taught = learner(states, success)
    fit(taught, 3000, 0, "success", quiet=True)
    assert inputs_used(taught.model) == [SPEC.state_names[RISEN]]
    # As when imagination lets an object slip while the hand goes on rising.
    slipped = 0.3 * normal(200, SPEC.state_dim, seed=3)
    slipped[:, RISEN], slipped[:, RAISED] = GOAL - 0.2, 1.0
    assert (taught.model.success_logit(slipped) < 0).all()
    slipped[:, RISEN], slipped[:, RAISED] = GOAL + 0.2, 0.0
    assert (taught.model.success_logit(slipped) > 0).all()


def test_success_head_finds_that_two_points_have_to_meet():
    """As where an object has to be brought to a goal that is elsewhere in each episode."""
    states = 0.3 * normal(600, SPEC.chunk, SPEC.state_dim)
    meeting = normal(600, SPEC.chunk, seed=1) > 0
    near = 0.15 * normal(600, SPEC.chunk, 3, seed=2)
    hand, block = SPEC.slice_of("hand"), SPEC.slice_of("block")
    states[..., block] = torch.where(meeting[..., None], states[..., hand] + near, states[..., block])
    success = ((states[..., hand] - states[..., block]).norm(dim=-1) < 0.25).float()
    taught = learner(states, success)
    fit(taught, 3000, 0, "success", quiet=True)
    assert inputs_used(taught.model) == ["hand - block: distance"]


def decided_by(number: int):
    """A model and windows of episodes that succeed where one number of the state is large."""
    episodes = random_episodes(SPEC)
    limit = np.median(np.concatenate([e.states[1:, number] for e in episodes]))
    for e in episodes:
        e.achieved = e.states[1:, number] > limit
    with seeded_init(0):
        model = StateWorldModel(SPEC, replace(WORLD, success_steps=1500))
    data = windows(episodes, SPEC, model.steps)
    fit_statistics(model, data)
    return model, data


def test_fit_success_that_is_said_of_objects_never_looks_at_the_robot():
    model, data = decided_by(BLOCK.start + 1)
    found = fit_success(model, data, 0, quiet=True)
    assert found["wrong"] <= 0.1
    looked_at = first_layer(model).norm(dim=0) > 0
    assert not (looked_at & (about_objects(model) == 0)).any()


def test_fit_success_that_only_the_robot_tells_admits_its_numbers():
    model, data = decided_by(0)
    found = fit_success(model, data, 0, quiet=True)
    assert found["used"][0].startswith("hand")
    assert found["wrong"] == judged_wrongly(model, data)


def test_about_objects_holds_no_name_of_the_robot():
    model, _ = decided_by(0)
    names = [*SPEC.state_names, *model.geometry.relation_names]
    kept = [n for n, a in zip(names, about_objects(model), strict=True) if a]
    assert kept == list(SPEC.state_names[SPEC.proprio_dim :])  # its only relations are with the hand


def test_success_learner_draws_half_of_each_batch_from_around_the_change():
    states = torch.arange(3.0 * SPEC.chunk).view(3, -1, 1).expand(-1, -1, SPEC.state_dim)
    success = torch.zeros(3, SPEC.chunk)
    success[1, 2:], success[2] = 1, 1
    won, lost, near_won, near_lost = learner(states, success).pools
    assert [len(x) for x in (won, lost)] == [6, 6]
    assert near_won.tolist() == [6, 7]
    assert near_lost.tolist() == [4, 5]


def test_success_learner_without_any_change_draws_from_everywhere():
    success = torch.zeros(2, SPEC.chunk)
    success[1] = 1
    pools = learner(normal(2, SPEC.chunk, SPEC.state_dim), success).pools
    assert torch.equal(pools[0], pools[2])
    assert torch.equal(pools[1], pools[3])


@pytest.mark.parametrize("all_won", [0.0, 1.0])
def test_success_learner_one_sided_data_is_refused(all_won):
    with pytest.raises(BadInput, match="successes and failures"):
        learner(normal(2, SPEC.chunk, SPEC.state_dim), torch.full((2, SPEC.chunk), all_won))


def test_shrink_inputs_shortens_columns_and_keeps_their_direction():
    before = normal(5, 4)
    before[:, 3] *= 0.01
    after = before.clone()
    shrink_inputs(after, 0.5)
    norms, shorter = before.norm(dim=0), after.norm(dim=0)
    assert torch.allclose(shorter[:3], norms[:3] - 0.5, atol=1e-6)
    assert torch.allclose(after[:, :3] / shorter[:3], before[:, :3] / norms[:3], atol=1e-6)
    assert (after[:, 3] == 0).all()
