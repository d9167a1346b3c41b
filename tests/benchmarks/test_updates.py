"""The peer that DSRL's speed is compared with does the same work."""

import pytest
import torch
from torch import Generator

pytest.importorskip("stable_baselines3", reason="of the extra `bench`")

from benchmarks.updates import our_side, their_aliased_side, their_side, transitions
from robopolicy.steering.dsrl import Dsrl
from robopolicy.steering.dsrl_na import DsrlNa


def parameters(net):
    return [p.detach().clone() for p in net.parameters()]


def check(ours, theirs, learn, train):
    """Pairs of networks have equally many parameters, and each of them is changed."""
    nets = [*ours, *theirs]
    before = [parameters(net) for net in nets]
    for a, b in zip(ours, theirs, strict=True):
        assert sum(p.numel() for p in a.parameters()) == sum(p.numel() for p in b.parameters())
    learn()
    train()
    for old, net in zip(before, nets, strict=True):
        assert any(not torch.equal(x, p) for x, p in zip(old, net.parameters(), strict=True))


def test_both_sides_train_networks_of_the_same_shapes_and_change_them():
    generator = Generator().manual_seed(0)
    ours = our_side(Dsrl, generator)
    data = transitions(300, ours.steerer.features.size, ours.actor.size, generator)
    ours.replay.add(data)
    theirs = their_side(data)
    check(
        [ours.critics.net, ours.actor],
        [theirs.critic, theirs.actor],
        lambda: ours.learn(generator),
        lambda: theirs.train(2, 256),
    )


def test_both_aliased_sides_train_networks_of_the_same_shapes_and_change_them():
    generator = Generator().manual_seed(0)
    ours = our_side(DsrlNa, generator)
    sizes = ours.steerer.features.size, ours.actor.size, ours.actions.size
    data, chunks = (transitions(300, sizes[0], n, generator) for n in sizes[1:])
    ours.replay.add(chunks)
    theirs = their_aliased_side(ours, data, chunks)
    check(
        [ours.critics.net, ours.critics.slow, ours.aliased, ours.actor],
        [theirs.actions.critic, theirs.actions.critic_target, theirs.noise.critic, theirs.noise.actor],
        lambda: ours.learn(generator),
        lambda: theirs.train(2, 256),
    )
