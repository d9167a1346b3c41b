"""The state world model: exact in its units, bounded, and the same whatever the batch."""

from dataclasses import replace

import pytest
import torch
from tiny import normal, random_episodes, tiny_spec, tiny_world

from robopolicy.protocols import WorldModel
from world_models.load import world_hash
from world_models.windows import windows

SPEC = tiny_spec()


@pytest.fixture
def model():
    return random_model()


def random_model(**changes):
    return tiny_world(SPEC, **changes)


def inputs(count: int):
    data = windows(random_episodes(SPEC), SPEC)
    return data.obs[:count], data.actions[:count], normal(count, SPEC.chunk, SPEC.state_dim)


def test_state_world_model_is_a_world_model(model):
    assert isinstance(model, WorldModel)


def some_steps(model, count: int):
    """Observations, k actions and the features of both."""
    data = windows(random_episodes(SPEC), SPEC, model.steps)[torch.arange(count)]
    return data, model.condition(data.obs, data.actions)


def test_decode_inverts_encode(model):
    _, cond = some_steps(model, 16)
    change = 0.1 * normal(16, model.steps, SPEC.state_dim)
    target, known = model.encode(change, cond)
    assert known.all()
    assert torch.allclose(model.decode(target, cond), change, atol=1e-5)


def test_decode_leaves_an_object_that_does_not_move_exactly_where_it_is(model):
    _, cond = some_steps(model, 16)
    block = SPEC.slice_of("block")
    change = 0.1 * normal(16, model.steps, SPEC.state_dim)
    change[:8, :, block] = 0
    target, known = model.encode(change, cond)
    n = model.steps * SPEC.state_dim
    hidden = known[:8, :n].view(8, model.steps, -1)
    assert hidden[..., : block.start].all()
    assert not hidden[..., block].any()
    moves, *how = known[:, n:].view(16, model.steps, -1).unbind(-1)
    assert moves.all()
    for asked in how:  # if it moves
        assert torch.equal(asked, (change[..., block].norm(dim=-1) > model.still[0]).float())
    target[:8, :n] = torch.where(known[:8, :n] > 0, target[:8, :n], 1e3)  # nobody looks at it
    again = model.decode(target, cond)
    assert (again[:8, :, block] == 0).all()
    assert torch.allclose(again, change, atol=1e-4)


@pytest.mark.parametrize("way", ["coasts", "carried"])
def test_decode_of_a_point_that_coasts_or_is_carried_is_exact(model, way):
    data, _ = some_steps(model, 16)
    block, hand, n = SPEC.slice_of("block"), SPEC.slice_of("hand"), model.steps * SPEC.state_dim
    data.obs[:, -1, block] += 0.1 * normal(16, 3, seed=1)
    cond = model.condition(data.obs, data.actions)
    change = 0.1 * normal(16, model.steps, SPEC.state_dim)
    change[:8, :, block] = (model.drift(cond)[..., block] if way == "coasts" else change[..., hand])[:8]
    velocity = data.obs[:, -1, block] - data.obs[:, -2, block]
    assert torch.allclose(model.drift(cond)[:, -1, block], model.steps * velocity, atol=1e-5)
    target, known = model.encode(change, cond)
    hidden = torch.zeros(16, model.steps, SPEC.state_dim, dtype=torch.bool)
    hidden[:8, :, block] = True
    assert not known[:, :n].view(hidden.shape)[hidden].any()
    target[:, :n] = torch.where(hidden.flatten(1), 1e3, target[:, :n])  # nobody looks at it
    assert torch.allclose(model.decode(target, cond)[:8, :, block], change[:8, :, block], atol=1e-5)


@pytest.mark.parametrize(("stride", "steps"), [(1, 1), (2, 2), (3, 2), (4, 4), (9, 4)])
def test_stride_is_the_largest_divisor_of_the_chunk(stride, steps):
    model = random_model(stride=stride)
    assert model.steps == steps
    assert model.predict(*inputs(5)).states.shape == (5, SPEC.chunk, SPEC.state_dim)


def test_prediction_in_strides_continues_where_the_last_one_ended():
    model, obs = random_model(stride=2), inputs(5)[0]
    _, actions, noise = inputs(5)
    whole = model.predict(obs, actions, noise).states
    steps = random_model(stride=2)
    steps.spec = replace(SPEC, chunk=2)
    first = steps.predict(obs, actions[:, :2], noise[:, :2]).states
    second = steps.predict(first[:, -2:], actions[:, 2:], noise[:, 2:]).states
    assert torch.allclose(whole, torch.cat([first, second], 1), atol=1e-6)


def test_residual_none_ignores_the_noise_and_the_others_do_not():
    obs, actions, noise = inputs(5)
    for residual in ("diffusion", "gaussian", "none"):
        model = random_model(residual=residual)
        states = [model.predict(obs, actions, x).states for x in (noise, -noise)]
        assert torch.equal(*states) == (residual == "none"), residual


def test_linear_prediction_moves_no_object_and_follows_a_linear_robot(model):
    obs, actions, _ = inputs(16)
    states = model.predict_linear(obs, actions)
    block, hand = SPEC.slice_of("block"), SPEC.slice_of("hand")
    assert (states[..., block] == obs[:, -1:, block]).all()
    assert torch.allclose(states[..., hand], obs[:, -1:, hand] + actions.cumsum(1), atol=5e-3)


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
