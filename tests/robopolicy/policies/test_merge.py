"""Merging: the ends are the two policies, the way between is straight, what does not fit is refused."""

import dataclasses

import pytest
import torch
from tiny import POLICY, normal, observations, random_episodes, tiny_policy, tiny_spec, write_dataset

from robopolicy.errors import BadInput
from robopolicy.policies.load import load_policy
from robopolicy.policies.merge import merge
from robopolicy.policies.train import train_policy

SPEC = tiny_spec()


def pair(**settings):
    config = dataclasses.replace(POLICY, **settings)
    return tiny_policy(SPEC, config, seed=0), tiny_policy(SPEC, config, seed=1)


def weights(policy):
    return policy.core.state_dict()


def test_merge_ends_are_the_two_policies_to_the_bit():
    base, tuned = pair()
    assert merge(base, tuned, 0.0).hash() == base.hash()
    assert merge(base, tuned, 1.0).hash() == tuned.hash()
    assert base.hash() != tuned.hash()


@pytest.mark.parametrize("memory", ["none", "sega"])
def test_merge_every_parameter_lies_between(memory):
    base, tuned = pair(memory=memory)
    merged = merge(base, tuned, 0.25)
    for name, value in weights(merged).items():
        wanted = 0.75 * weights(base)[name] + 0.25 * weights(tuned)[name]
        assert torch.allclose(value, wanted, atol=1e-6)
    noise = normal(5, SPEC.chunk, SPEC.action_dim)
    chunk, _ = merged.sample(observations(SPEC), merged.initial(range(5)), noise)
    SPEC.check_action(chunk.numpy())


def test_merge_longest_group_counts():
    base, tuned = pair()
    merged = merge(base, tuned, 0.0, {"denoiser": 0.5, "denoiser.cond": 1.0})
    for name, value in weights(merged).items():
        weight = 1.0 if name.startswith("denoiser.cond.") else 0.5
        assert torch.allclose(value, torch.lerp(weights(base)[name], weights(tuned)[name], weight))


@pytest.mark.parametrize(
    ("weight", "groups", "named"),
    [
        (1.5, {}, "weight"),
        (float("nan"), {}, "weight"),
        (0.5, {"denoiser": -1}, "denoiser"),
        (0.5, {"den": 1}, "group"),
    ],
)
def test_merge_bad_weight_or_group_refused(weight, groups, named):
    with pytest.raises(BadInput, match=named):
        merge(*pair(), weight, groups)


def test_merge_of_other_network_or_statistics_refused():
    base, _ = pair()
    for make in ({"width": 16}, {"process": "beso"}, {"inference_steps": 7}):
        with pytest.raises(BadInput, match="same make"):
            merge(base, tiny_policy(SPEC, dataclasses.replace(POLICY, **make)), 0.5)
    # Their weights are of the same shapes, and mean something else.
    beso, flow = (tiny_policy(SPEC, dataclasses.replace(POLICY, process=p)) for p in ("beso", "flow"))
    with pytest.raises(BadInput, match="process"):
        merge(beso, flow, 0.5)
    other = tiny_policy(SPEC, seed=1)
    other.mean += 1
    with pytest.raises(BadInput, match="--init"):
        merge(base, other, 0.5)


def test_trained_on_from_a_policy_keeps_its_statistics_and_can_be_merged(tmp_path):
    first = write_dataset(tmp_path / "first", SPEC, random_episodes(SPEC))
    second = write_dataset(tmp_path / "second", SPEC, random_episodes(SPEC, seed=9))
    train_policy([first], tmp_path / "base", POLICY, 3)
    train_policy([second], tmp_path / "tuned", POLICY, 4, tmp_path / "base")
    train_policy([second], tmp_path / "fresh", POLICY, 4)
    base, tuned, fresh = (load_policy(tmp_path / n) for n in ("base", "tuned", "fresh"))
    distance = {
        n: float((p.core.denoiser.inp.weight - base.core.denoiser.inp.weight).norm())
        for n, p in (("tuned", tuned), ("fresh", fresh))
    }
    assert 0 < distance["tuned"] < distance["fresh"]
    merge(base, tuned, 0.5)
    with pytest.raises(BadInput, match="statistics"):
        merge(base, fresh, 0.5)


def test_training_on_from_a_policy_of_another_make_refused(tmp_path):
    data = write_dataset(tmp_path / "data", SPEC, random_episodes(SPEC))
    train_policy([data], tmp_path / "base", POLICY, 3)
    wider = dataclasses.replace(POLICY, width=16)
    with pytest.raises(BadInput, match="init: wanted width 16, got width 32"):
        train_policy([data], tmp_path / "out", wider, 3, tmp_path / "base")
    assert not (tmp_path / "out").exists()
