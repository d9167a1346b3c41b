"""PA-RL's action optimisation: never out of range, never downhill, and where the optimum is."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refine_toy import WALK, walk_env, walker, walks
from tiny import normal

from robopolicy.refine.config import REFINE_PRESETS, PaRlConfig
from robopolicy.refine.pa_rl import PaRl, optimised
from robopolicy.steering.networks import Mlp
from robopolicy.steering.replay import Batch
from robopolicy.steering.transitions import recorded_chunks


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.floats(0, 3), st.floats(0, 3), st.integers(0, 6), st.integers(1, 5))
def test_optimised_stays_in_range_and_near_its_draw_and_is_never_worse_than_any_candidate(
    seed, ascent, radius, ascents, keep
):
    own = PaRlConfig(keep=keep, ascents=ascents, ascent=ascent, radius=radius)
    critic = Mlp([6, 16, 1], 3, torch.Generator().manual_seed(seed))

    def value(chunks):
        return 10 * critic(chunks.flatten(2).flatten(0, 1))[..., 0].mean(0).view(chunks.shape[:2])

    chunks = normal(4, 5, 3, 2, seed=seed).clamp(-1, 1)
    best, best_value = optimised(chunks, value, own)
    assert best.abs().max() <= 1
    assert (best[:, None] - chunks).abs().flatten(2).amax(2).amin(1).max() <= radius + 1e-6
    torch.testing.assert_close(best_value, value(best[:, None])[:, 0].detach())
    assert (best_value >= value(chunks).amax(1).detach() - 1e-5).all()


def test_optimised_climbs_to_a_known_optimum_in_reach():
    goal = torch.tensor([[0.3, -0.2], [0.9, 0.1]])
    chunks = (goal + 0.1 * normal(1, 6, 2, 2)).clamp(-1, 1)
    own = PaRlConfig(keep=2, ascents=200, ascent=0.01, radius=1.0)
    best, _ = optimised(chunks, lambda x: -(x - goal).square().flatten(2).sum(2), own)
    torch.testing.assert_close(best[0], goal, rtol=0, atol=0.01)


def test_optimised_without_ascents_is_the_best_candidate():
    chunks = normal(3, 7, 2, 2).clamp(-1, 1)
    own = PaRlConfig(keep=1, ascents=0)
    best, value = optimised(chunks, lambda x: x[..., 0, 0], own)
    assert torch.equal(value, chunks[:, :, 0, 0].amax(1))
    assert torch.equal(best[:, 0, 0], value)


def test_pa_rl_recorded_transitions_are_in_the_units_of_the_policy():
    policy, episodes = walker(), walks(8)
    made = PaRl(policy, walk_env(4), episodes, REFINE_PRESETS["tiny"], torch.Generator().manual_seed(0))
    b = Batch(*made.recorded.split(made.recorded.state()["rows"]))
    plain = recorded_chunks(episodes, WALK, REFINE_PRESETS["tiny"])
    assert len(b.reward) == made.prefilled == len(plain.reward) > 0
    assert torch.equal(b.reward, plain.reward)
    played, _ = made.slots.policy.sample(torch.empty(0), {}, b.latent.unflatten(1, made.shape))
    torch.testing.assert_close(played.flatten(1), plain.latent)
    for x, y in ((b.features, plain.features), (b.following, plain.following)):
        assert torch.equal(x, policy.condition(y.unflatten(1, (WALK.obs_steps, WALK.state_dim))))
