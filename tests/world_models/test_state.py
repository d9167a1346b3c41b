"""The state world model: exact in its units, bounded, and the same whatever the batch."""

import pytest
import torch
from tiny import WORLD, normal, random_episodes, tiny_spec

from robopolicy.protocols import WorldModel
from robopolicy.train import seeded_init
from world_models.load import freeze, world_hash
from world_models.state import StateWorldModel
from world_models.train import fit_statistics, windows

SPEC = tiny_spec()


@pytest.fixture
def model():
    """Statistics fitted, networks random."""
    with seeded_init(0):
        model = StateWorldModel(SPEC, WORLD)
        for member in model.members:
            torch.nn.init.normal_(member.out.weight, std=0.1)
    fit_statistics(model, windows(random_episodes(SPEC), SPEC))
    return freeze(model)


def inputs(count: int):
    data = windows(random_episodes(SPEC), SPEC)
    return data.obs[:count], data.actions[:count], normal(count, SPEC.chunk, SPEC.state_dim)


def test_state_world_model_is_a_world_model(model):
    assert isinstance(model, WorldModel)


def test_decode_inverts_encode(model):
    obs, actions, _ = inputs(16)
    change = 0.1 * normal(16, SPEC.chunk * SPEC.state_dim)
    cond = model.condition(obs, actions)
    assert torch.allclose(model.decode(model.encode(change, cond), cond), change, atol=1e-4)


def test_decode_of_zero_leaves_an_untouched_object_where_it_is(model):
    obs, actions, _ = inputs(16)
    cond = model.condition(obs, actions)
    change = model.decode(torch.zeros(16, SPEC.chunk * SPEC.state_dim), cond)
    assert change[:, model.is_object].abs().max() == 0
    small = model.decode(torch.full_like(change, 0.1), cond)[:, model.is_object]
    assert small.abs().max() < 5e-6


def test_prediction_of_one_equals_its_row_in_a_batch(model):
    obs, actions, noise = inputs(16)
    whole = model.predict(obs, actions, noise)
    alone = [model.predict(obs[i : i + 1], actions[i : i + 1], noise[i : i + 1]) for i in range(16)]
    for part, rows in zip(whole, zip(*alone, strict=True), strict=True):
        assert torch.allclose(part, torch.cat(rows), atol=1e-5)


def test_prediction_is_a_function_of_its_arguments(model):
    first, second = (model.predict(*inputs(16)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_prediction_far_outside_the_data_is_clamped_to_it(model):
    obs, actions, noise = inputs(16)
    states, success, doubt = model.predict(obs, 1e3 * actions, 10 * noise)
    assert (states >= model.state_low).all()
    assert (states <= model.state_high).all()
    low, high = torch.from_numpy(SPEC.state_range)
    assert (model.state_low >= low).all()
    assert (model.state_high <= high).all()
    assert ((success >= 0) & (success <= 1)).all()
    assert torch.isfinite(doubt).all()


def test_doubt_of_members_that_differ_is_positive_and_grows_outside_the_data(model):
    obs, actions, noise = inputs(16)
    inside = model.predict(obs, actions, noise).doubt
    outside = model.predict(obs, 100 * actions, noise).doubt
    assert (inside > 0).all()
    assert outside.mean() > inside.mean()


def test_freeze_leaves_nothing_to_train(model):
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_world_hash_changes_with_any_weight_or_statistic(model):
    before = world_hash(model)
    assert world_hash(model) == before
    model.doubt_scale += 1
    assert world_hash(model) != before
