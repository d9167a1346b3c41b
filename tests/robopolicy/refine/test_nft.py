"""DiffusionNFT's loss: when it is silent, where it pulls, and how merit follows from returns."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refine_toy import WALK, walk_env, walker, walks
from tiny import normal

from robopolicy.checkpoint import tensor_hash
from robopolicy.refine.config import REFINE_PRESETS, NftConfig
from robopolicy.refine.nft import Nft, contrast, merits


def slope(new, old, target, merit, beta=1.0):
    new = new.clone().requires_grad_()
    (found,) = torch.autograd.grad(contrast(new, old, target, torch.as_tensor(merit), beta), new)
    return found


@given(st.integers(0, 999), st.floats(0.05, 1.0))
@settings(max_examples=30, deadline=None)
def test_contrast_of_average_chunks_has_no_gradient_while_new_is_old(seed, beta):
    old, target = normal(6, 4, 3, seed=seed), normal(6, 4, 3, seed=seed + 1)
    assert slope(old, old, target, [0.5] * 6, beta).abs().max() == 0


def test_contrast_of_good_chunks_pulls_to_the_target_and_of_bad_ones_away():
    old, target = normal(2, 4, 3), normal(2, 4, 3, seed=1)
    step = -slope(old, old, target, [1.0, 0.0])
    way = target - old
    along = (step * way).sum((1, 2)) / (step.norm(dim=(1, 2)) * way.norm(dim=(1, 2)))
    torch.testing.assert_close(along, torch.tensor([1.0, -1.0]))


def test_contrast_of_average_chunks_pulls_back_to_the_old_policy():
    old, target = normal(1, 4, 3), normal(1, 4, 3, seed=1)
    errors = []
    for away in (0.0, 0.1, 0.2):
        errors.append(contrast(old + away, old, old, torch.tensor([0.5]), 1.0).item())
    assert errors[0] < errors[1] < errors[2]
    assert (slope(old + 0.1, old, old, [0.5]) > 0).all()
    assert torch.isfinite(slope(old, old, old, [0.5])).all()
    assert torch.isfinite(slope(target, old, target, [1.0])).all()


@given(st.integers(0, 999), st.integers(2, 6), st.floats(0.1, 5), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=50, deadline=None)
def test_merits_are_shares_unchanged_by_scale_and_shift_and_mirrored_by_sign(
    seed, group, limit, scale, shift
):
    returns, chunks = normal(3 * group, seed=seed), torch.arange(3 * group) % 4 + 1
    merit = merits(returns, chunks, group, limit)
    assert ((merit >= 0) & (merit <= 1)).all()
    torch.testing.assert_close(
        merits(scale * returns + shift, chunks, group, limit), merit, rtol=0, atol=1e-3
    )
    torch.testing.assert_close(merits(-returns, chunks, group, limit), 1 - merit)


@given(st.integers(0, 999), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_merits_of_all_chunks_of_a_group_are_one_half_on_average(seed, group):
    g = torch.Generator().manual_seed(seed)
    chunks = torch.randint(1, 9, (3 * group,), generator=g)
    # No episode of a group whose largest has 8 times the chunks of another can be further out than this.
    limit = float(8 * group) ** 0.5
    merit = merits(normal(3 * group, seed=seed), chunks, group, limit)
    mean = (merit * chunks).view(3, group).sum(1) / chunks.view(3, group).sum(1)
    torch.testing.assert_close(mean, torch.full((3,), 0.5))


def test_merits_of_a_group_without_differences_are_one_half():
    returns, chunks = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1, 2, 3, 4])
    assert (merits(returns, chunks, 2, 2.0) == 0.5).all()


def test_nft_imagination_without_differences_changes_no_weight():
    """Nobody succeeds, nobody doubts: every return is 0, and adaptive steps must not make up a direction."""
    config = REFINE_PRESETS["tiny"]
    made = Nft(walker(), walk_env(4, threshold=99.0), walks(2), config, torch.Generator())
    for _ in range(2):
        made.adam.param_groups[0]["weight_decay"] = 0.0
        made.step(0, torch.Generator().manual_seed(0))
    assert tensor_hash(made.policy.state_dict()) == tensor_hash(walker().state_dict())


def test_nft_members_of_a_group_begin_alike_and_differ_in_what_they_do():
    config = dataclasses.replace(REFINE_PRESETS["tiny"], nft=NftConfig(envs=8, group=4))
    made = Nft(walker(), walk_env(8), walks(2), config, torch.Generator())
    (condition, chunks, merit), _ = made._imagine(torch.Generator().manual_seed(0))
    first = condition[:8].view(2, 4, -1)
    assert torch.equal(first, first[:, :1].expand_as(first))
    assert not torch.equal(first[0], first[1])
    assert len(chunks[:4].unique(dim=0)) == 4
    assert chunks.shape[1:] == (WALK.chunk, WALK.action_dim)
    assert len(merit) == len(chunks)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_nft_old_policy_follows_by_its_share(keep):
    tiny = REFINE_PRESETS["tiny"]
    config = dataclasses.replace(tiny, nft=dataclasses.replace(tiny.nft, envs=8, group=8, keep_old=keep))
    made, before = Nft(walker(), walk_env(8), walks(2), config, torch.Generator()), walker().state_dict()
    made.step(0, torch.Generator().manual_seed(0))
    new, old = made.policy.state_dict(), made.old.state_dict()
    for name in before:
        torch.testing.assert_close(old[name], keep * before[name] + (1 - keep) * new[name])
