"""What the world model sees: gaps between points, whatever the task."""

from dataclasses import replace

import pytest
import torch
from tiny import normal, tiny_spec

from world_models.features import Geometry

SPEC = tiny_spec()
LOW, HIGH = -torch.ones(SPEC.state_dim), torch.ones(SPEC.state_dim)


def led_spec():
    """The tiny spec whose action is said to displace the hand."""
    return replace(SPEC, action=(replace(SPEC.action[0], moves="hand"),))


@pytest.fixture
def geometry():
    return Geometry(SPEC)


def parts(geometry, obs, actions):
    """Last state, changes, gaps, actions."""
    d, t = SPEC.state_dim, SPEC.obs_steps
    sizes = [d, d * (t - 1), len(geometry.relation_names), SPEC.chunk * SPEC.action_dim]
    return geometry(obs, actions, LOW, HIGH).split(sizes, -1)


def test_features_have_the_size_announced(geometry):
    obs, actions = normal(5, SPEC.obs_steps, SPEC.state_dim), normal(5, SPEC.chunk, SPEC.action_dim)
    for features in (geometry, Geometry(led_spec())):
        assert features(obs, actions, LOW, HIGH).shape == (5, features.dim)


def test_features_of_translated_points_keep_changes_and_gaps(geometry):
    obs, actions = normal(5, SPEC.obs_steps, SPEC.state_dim), normal(5, SPEC.chunk, SPEC.action_dim)
    moved = obs.clone()
    for name in ("hand", "block"):
        moved[..., SPEC.slice_of(name)] += torch.tensor([0.25, -0.5, 1.0])
    before, after = parts(geometry, obs, actions), parts(geometry, moved, actions)
    assert not torch.allclose(before[0], after[0])
    for i in (1, 2, 3):
        assert torch.allclose(before[i], after[i], atol=1e-5)


def test_features_tell_a_gap_from_its_opposite(geometry):
    obs, actions = torch.zeros(2, SPEC.obs_steps, SPEC.state_dim), torch.zeros(2, SPEC.chunk, SPEC.action_dim)
    obs[0, :, 0], obs[1, :, 0] = 0.1, -0.1
    _, _, gaps, _ = parts(geometry, obs, actions)
    assert torch.equal(gaps[0, :3], -gaps[1, :3])
    assert torch.equal(gaps[0, 6:8], gaps[1, 6:8])  # distances


def test_features_without_points_are_states_and_actions():
    spec = tiny_spec(objects=False)
    geometry = Geometry(spec)
    assert not geometry.pairs
    assert geometry.dim == spec.state_dim * spec.obs_steps + spec.chunk * spec.action_dim


@pytest.mark.parametrize(("distance", "near"), [(0.0, True), (0.059, True), (0.061, False), (0.5, False)])
def test_contact_holds_within_six_centimetres(geometry, distance, near):
    obs = torch.zeros(1, SPEC.obs_steps, SPEC.state_dim)
    obs[:, -1, 1] = distance
    assert geometry.contact(obs).tolist() == [near]
    assert geometry.contact(obs + 0.5).tolist() == [near]


def test_path_within_borders_is_the_sum_of_the_actions():
    last, actions = 0.1 * normal(5, SPEC.state_dim), 0.01 * normal(5, SPEC.chunk, SPEC.action_dim)
    path = Geometry(led_spec()).path(last, actions, LOW, HIGH)
    assert torch.allclose(path, last[:, None, :3] + actions.cumsum(1), atol=1e-6)


def test_path_beyond_a_border_stops_there_and_starts_back_from_there():
    actions = torch.zeros(1, SPEC.chunk, SPEC.action_dim)
    actions[0, :, 0] = torch.tensor([5.0, 5.0, -0.5, -5.0])
    path = Geometry(led_spec()).path(torch.zeros(1, SPEC.state_dim), actions, LOW, HIGH)
    assert path[0, :, 0].tolist() == [1.0, 1.0, 0.5, -1.0]


def test_features_of_two_actions_with_one_path_differ_by_the_actions_alone():
    geometry = Geometry(led_spec())
    obs = torch.ones(2, SPEC.obs_steps, SPEC.state_dim)
    actions = torch.zeros(2, SPEC.chunk, SPEC.action_dim)
    actions[1] = 0.7  # from the border outwards
    one, other = geometry(obs, actions, LOW, HIGH)
    size = SPEC.chunk * SPEC.action_dim
    before = SPEC.state_dim * SPEC.obs_steps + len(geometry.relation_names)
    changed = torch.nonzero(one != other)[:, 0].tolist()
    assert changed == list(range(before, before + size))
