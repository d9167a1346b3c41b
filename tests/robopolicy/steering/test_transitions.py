import dataclasses

import pytest
import torch
from steering_toy import SPEC, Chain, ToyEnv, ToyPolicy, Walker, recorded

from robopolicy.config import DsrlConfig, SteerConfig
from robopolicy.rollout import rollout
from robopolicy.steering.actors import ActorConfig
from robopolicy.steering.noise import UniformNoise
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.steering.transitions import recorded_transitions


def prefill(episodes, noise="repeat", policy=None):
    config = SteerConfig(hidden=8, dsrl=DsrlConfig(noise=noise))
    policy = policy or ToyPolicy()
    steerer = NoiseSteerer(ActorConfig.of(config), policy.spec, torch.Generator())
    return recorded_transitions(episodes, policy, steerer, config)


@pytest.mark.parametrize(
    ("collected", "noise", "all_of_them"),
    [
        (UniformNoise(1.5, repeat=True), "repeat", True),
        (UniformNoise(1.5, repeat=True), "chunk", True),
        (UniformNoise(1.5, repeat=False), "chunk", True),
        (UniformNoise(1.5, repeat=False), "repeat", False),
        (UniformNoise(9.0, repeat=True), "repeat", False),
    ],
)
def test_prefill_takes_exactly_the_noise_the_steerer_could_choose(collected, noise, all_of_them):
    episodes = recorded(20, collected)
    chunks = [c for e in episodes for c in e.noise]
    constant = [noise == "chunk" or (c == c[0]).all() for c in chunks]
    fits = [abs(c).max() <= 1.5 and same for c, same in zip(chunks, constant, strict=True)]
    taken = prefill(episodes, noise)
    assert len(taken.reward) == sum(fits)
    assert (sum(fits) == len(chunks)) == all_of_them
    assert len(taken.latent) == 0 or taken.latent.abs().max() <= 1


def test_prefill_chunk_that_another_policy_made_left_out():
    episodes = recorded(20, UniformNoise(1.5, repeat=True), ToyPolicy(gain=5.0))
    assert len(prefill(episodes, policy=ToyPolicy(gain=5.0)).reward) > 0
    few = prefill(episodes, policy=ToyPolicy(gain=-5.0))
    assert len(few.reward) < 0.5 * sum(len(e.noise) for e in episodes)


def test_prefill_noise_of_other_chunk_length_left_out():
    episodes = [dataclasses.replace(e, noise=e.noise[:, :1]) for e in recorded(3)]
    assert len(prefill(episodes).reward) == 0


def test_prefill_ends_are_credited_like_imagined_ones():
    episodes = recorded(40, UniformNoise(1.5, repeat=True))
    taken = prefill(episodes)
    assert taken.reward.sum() == sum(e.success for e in episodes) > 0
    # Success has no future; a time limit has.
    assert (taken.discount == 0).sum() == sum(e.success for e in episodes)


@pytest.mark.parametrize("end", [1, 2, 3, 4])
def test_prefill_success_inside_a_chunk_ends_there(end):
    spec = dataclasses.replace(SPEC, chunk=4, horizon=8)
    done = rollout(Chain(1, spec, end - 0.5, starts=1), Walker(spec), UniformNoise(1.0), [0])
    taken = prefill(done, "chunk", Walker(spec))
    assert taken.following[0, -2] == min(end, 5.0)
    assert (taken.reward.tolist(), taken.discount.tolist()) == ([1.0], [0.0])


def test_prefill_recorded_beyond_success_counts_only_to_it():
    done = recorded(20, UniformNoise(1.5, repeat=True))
    won = next(e for e in done if e.success)
    longer = dataclasses.replace(
        won,
        states=torch.cat([torch.from_numpy(won.states), torch.zeros(2, 2)]).numpy(),
        actions=torch.cat([torch.from_numpy(won.actions), torch.zeros(2, 2)]).numpy(),
        achieved=torch.cat([torch.from_numpy(won.achieved), torch.zeros(2, dtype=torch.bool)]).numpy(),
    )
    for x, y in zip(prefill([won]), prefill([longer]), strict=True):
        assert torch.equal(x, y)


def test_toy_environment_itself_never_acts_after_the_end():
    env = ToyEnv(4)
    env.reset(seed=[0, 1, 2, 3])
    for _ in range(9):
        env.step(torch.full((4, 2, 2), 0.4).numpy())
    assert env.applied.max() <= SPEC.horizon
