import dataclasses

import numpy as np
import pytest
import torch
from steering_toy import SPEC, Chain, FlippingPolicy, ToyEnv, ToyPolicy, Walker, recorded

from robopolicy.config import DsrlConfig, SteerConfig
from robopolicy.errors import BadInput
from robopolicy.rollout import rollout
from robopolicy.steering.actors import ActorConfig
from robopolicy.steering.noise import UniformNoise
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.steering.transitions import everywhere, recorded_chunks, recorded_transitions


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


def test_everywhere_is_what_was_seen_before_each_action_up_to_success():
    done = recorded(20, UniformNoise(1.5, repeat=True))
    seen, t = everywhere(done, SPEC.obs_steps), SPEC.obs_steps
    assert len(seen) == sum(e.until_success().length for e in done)
    assert np.array_equal(seen[0], np.repeat(done[0].states[:1], t, 0))
    last = done[-1].until_success()
    assert np.array_equal(seen[-1], last.states[-t - 1 : -1])


def test_toy_environment_itself_never_acts_after_the_end():
    env = ToyEnv(4)
    env.reset(seed=[0, 1, 2, 3])
    for _ in range(9):
        env.step(torch.full((4, 2, 2), 0.4).numpy())
    assert env.applied.max() <= SPEC.horizon


def chunks_of(episodes):
    return recorded_chunks(episodes, SPEC, SteerConfig())


def test_recorded_chunks_any_policy_counts_and_every_step_begins_one():
    """Recorded closed loop (chunk 1) or by a policy with another gain: the same decision process."""
    episodes = recorded(20, UniformNoise(9.0), ToyPolicy(gain=1.0))
    taken, k = chunks_of(episodes), SPEC.chunk
    assert len(taken.reward) == sum(e.length if e.success else e.length - k + 1 for e in episodes)
    closed = [
        dataclasses.replace(e, noise=np.zeros((e.length, 1, 2), np.float32), chunk_starts=np.arange(e.length))
        for e in episodes
    ]
    for x, y in zip(chunks_of(closed), taken, strict=True):
        assert torch.equal(x, y)


def test_recorded_chunks_lead_from_where_they_began_to_where_they_end():
    taken, k = chunks_of(recorded(20)), SPEC.chunk
    x, then = (o.unflatten(1, (2, 2))[:, -1, 0] for o in (taken.features, taken.following))
    moved = taken.latent.unflatten(1, (k, 2))[..., 0]
    whole = taken.discount > 0
    torch.testing.assert_close((x + moved.sum(1))[whole], then[whole])


def test_recorded_chunks_only_success_is_rewarded_and_without_a_future():
    episodes = recorded(40, UniformNoise(1.5, repeat=True))
    taken = chunks_of(episodes)
    assert taken.reward.sum() == sum(min(SPEC.chunk, e.length) for e in episodes if e.success) > 0
    assert torch.equal(taken.discount == 0, taken.reward == 1)


def test_recorded_chunks_what_was_recorded_beyond_success_fills_the_last_chunk():
    won = next(e for e in recorded(40, UniformNoise(1.5, repeat=True)) if e.success)
    longer = dataclasses.replace(
        won,
        states=np.concatenate([won.states, won.states[-1:]]),
        actions=np.concatenate([won.actions, [[7.0, 7.0]]]).astype(np.float32),
        achieved=np.concatenate([won.achieved, [True]]),
    )
    a, b = chunks_of([won]), chunks_of([longer])
    assert (a.latent[-1, -2:] == a.latent[-1, :2]).all()
    assert (b.latent[-1, -2:] == 7).all()
    for name in ("features", "reward", "following", "discount"):
        assert torch.equal(getattr(a, name), getattr(b, name))


def test_recorded_chunks_of_too_short_episodes_refused():
    e = next(e for e in recorded(20) if not e.success)
    short = dataclasses.replace(e, states=e.states[:2], actions=e.actions[:1], achieved=e.achieved[:1])
    with pytest.raises(BadInput, match="episodes"):
        chunks_of([short])


def test_prefill_holds_the_memory_of_each_chunk():
    config = SteerConfig(dsrl=DsrlConfig(noise="repeat"))
    policy = FlippingPolicy()
    episodes = recorded(20, UniformNoise(1.5, repeat=True), policy)
    steerer = NoiseSteerer(ActorConfig.of(config), SPEC, torch.Generator(), policy)
    taken = recorded_transitions(episodes, policy, steerer, config)
    signs = [(-1.0) ** (e.seed + c) for e in episodes for c in range(len(e.chunk_starts))]
    assert taken.features[:, -1].tolist() == signs
    assert taken.following[:, -1].tolist() == [-s for s in signs]
    assert (
        steerer.features.size
        == 1 + NoiseSteerer(ActorConfig.of(config), SPEC, torch.Generator(), ToyPolicy()).features.size
    )
