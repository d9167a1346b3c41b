"""The real Lift: exact seeds, whatever ran before and however many run at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from robopolicy.errors import BadInput
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import stream
from sim.experts import ExpertSettings, Operator
from sim.lift_expert import OPERATORS, LiftExpert
from sim.robosuite_env import LiftEnv
from sim.tasks import LIFT, find_task
from sim.vector import SimVectorEnv, steps_taken

ABOVE = (0.0, 0.0, 0.13)


@pytest.fixture(scope="module")
def env() -> Iterator[LiftEnv]:
    env = find_task("lift").make()
    yield env
    env.close()


def play(env: LiftEnv, seed: int, steps: int = 12) -> np.ndarray:
    rng = stream(seed, "test-actions")
    states = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        states.append(env.step(rng.uniform(*LIFT.action_range).astype(np.float32))[0])
    return np.array(states)


def test_lift_same_seed_after_other_episodes_same_states(env: LiftEnv) -> None:
    first = play(env, 5)
    play(env, 6)
    assert np.array_equal(first, play(env, 5))


def test_lift_other_seed_other_start(env: LiftEnv) -> None:
    assert not np.array_equal(env.reset(seed=1)[0], env.reset(seed=2)[0])


def test_lift_building_leaves_global_stream_untouched() -> None:
    before = np.random.get_state()[1].copy()
    LiftEnv(LIFT).close()
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("bad", [np.nan, 0.2])
def test_lift_bad_action_refused(env: LiftEnv, bad: float) -> None:
    env.reset(seed=0)
    with pytest.raises(BadInput, match="dx"):
        env.step(np.array([bad, 0, 0, 0], np.float32))


def test_find_task_typo_names_nearest() -> None:
    with pytest.raises(BadInput, match="'lift'"):
        find_task("lft")


def test_experts_same_seed_same_operator_whatever_the_batch() -> None:
    expert = LiftExpert(LIFT, OPERATORS["mixed"])
    alone, among = expert.initial([7]), expert.initial([3, 7, 9])
    assert all(np.array_equal(alone[k][0], among[k][1]) for k in alone)


def test_operator_negative_share_refused() -> None:
    with pytest.raises(BadInput, match="share"):
        Operator("from above", ABOVE, share=-1.0)


def test_experts_careful_lifts_and_blind_one_fails_whatever_the_batch() -> None:
    """One rollout of each: the careful operator succeeds, one that looks 4.5 cm aside does not."""
    one, two = SimVectorEnv("lift", 1, chunk=1), SimVectorEnv("lift", 2, chunk=1, linger=3)
    try:
        careful = LiftExpert(LIFT, ExpertSettings((Operator("from above", ABOVE, sigma_m=0.0),), p_retry=0.0))
        blind = LiftExpert(LIFT, ExpertSettings((Operator("from above", ABOVE, 1, (0.045, 0)),), p_retry=0.0))
        alone = rollout(one, careful, PriorSteerer(), [11])[0]
        steps = steps_taken()
        both = rollout(two, careful, PriorSteerer(), [12, 11])
        assert steps_taken() - steps == sum(e.length for e in both)
        failed = rollout(two, blind, PriorSteerer(), [11])[0]
    finally:
        one.close(terminate=True)
        two.close(terminate=True)

    assert alone.success
    assert alone.terminated
    assert not alone.truncated
    # Lingering goes on for three steps and changes nothing before.
    assert np.array_equal(both[1].until_success().states, alone.states)
    assert both[1].length == alone.length + 3
    assert not failed.success
    assert failed.truncated
    assert failed.reason == "horizon"
    assert failed.length == LIFT.horizon


def test_lift_hold_brings_a_fast_arm_to_rest_where_it_was_and_lets_it_go_on() -> None:
    env = LiftEnv(LIFT)
    state, _ = env.reset(seed=3)
    fast = np.array([-0.05, 0.03, -0.05, 0.0], np.float32)
    for _ in range(8):
        before, state = state, env.step(fast)[0]
    grip = LIFT.slice_of("gripper_command")
    trace = [state] + [env.hold()[0] for _ in range(8)]
    steps = np.linalg.norm(np.diff([s[:3] for s in trace], axis=0), axis=1)
    assert np.linalg.norm(state[:3] - before[:3]) > 0.006
    assert (steps[5:] < 0.0005).all()
    assert np.linalg.norm(trace[-1][:3] - state[:3]) < 0.002
    assert trace[-1][grip] == state[grip]
    assert np.linalg.norm(env.step(fast)[0][:3] - trace[-1][:3]) > 0.001
    env.close()
