"""The peer that DSRL's speed is compared with does the same work."""

import pytest
import torch
from torch import Generator

pytest.importorskip("stable_baselines3", reason="of the extra `bench`")

from benchmarks.updates import our_side, their_side, transitions


def test_both_sides_train_networks_of_the_same_shapes_and_change_them():
    generator = Generator().manual_seed(0)
    ours = our_side(generator)
    data = transitions(300, ours.steerer.features.size, ours.actor.size, generator)
    ours.replay.add(data)
    theirs = their_side(data)
    pairs = [(ours.critics.net, theirs.critic), (ours.actor, theirs.actor)]
    for a, b in pairs:
        assert sum(p.numel() for p in a.parameters()) == sum(p.numel() for p in b.parameters())
    before = [[p.detach().clone() for p in net.parameters()] for pair in pairs for net in pair]
    ours.learn(generator)
    theirs.train(2, 256)
    for old, net in zip(before, (net for pair in pairs for net in pair), strict=True):
        assert any(not torch.equal(x, p) for x, p in zip(old, net.parameters(), strict=True))
