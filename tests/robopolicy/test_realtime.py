"""Real-time chunking: plans continue what is executed while they are computed."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import POLICY, normal, random_episodes, tiny_spec

from robopolicy.data.windows import PolicyWindows
from robopolicy.errors import BadInput
from robopolicy.nets.inpainting import Known, overlap_weights
from robopolicy.policies.train import new_policy
from robopolicy.protocols import Prediction
from robopolicy.realtime import Foresight, RealtimePolicy, SynchronousPolicy
from robopolicy.rollout import PriorSteerer
from robopolicy.seeding import stream
from robopolicy.serve import PolicyService

B = 5


@pytest.fixture(scope="module")
def policy():
    spec = tiny_spec()
    return new_policy(spec, POLICY, PolicyWindows(random_episodes(spec), spec), 0).eval()


def observations(policy, delay, seed=0):
    return 0.2 * normal(B, policy.spec.obs_steps + delay, policy.spec.state_dim, seed=seed)


def noise(made, seed=0):
    return normal(B, made.spec.chunk, made.spec.action_dim, seed=seed)


@pytest.mark.parametrize(("execute", "delay"), [(4, 0), (8, 8), (8, 3), (5, 2), (16, 0)])
def test_overlap_weights_are_one_while_the_plan_is_computed_then_fall_to_none(execute, delay):
    weights = overlap_weights(16, execute, delay)[:, 0]
    assert (weights[:delay] == 1).all()
    assert (weights[16 - execute :] == 0).all()
    between = weights[delay : 16 - execute]
    assert (between.diff() < 0).all()
    assert ((between > 0) & (between < 1)).all()


@pytest.mark.parametrize("delay", [1, 2])
def test_realtime_what_is_executed_meanwhile_is_what_the_next_plan_begins_with(policy, delay):
    made = RealtimePolicy(policy, 2, delay)
    first, carry = made.sample(observations(policy, delay), made.initial(range(B)), noise(made))
    _, after = made.sample(observations(policy, delay, 1), carry, noise(made, 1))
    assert torch.allclose(after["plan"][:, :delay], first[:, 2 - delay :], atol=1e-6)
    apart = RealtimePolicy(policy, 2, delay, joined=False)
    _, other = apart.sample(observations(policy, delay, 1), carry, noise(made, 1))
    assert not torch.allclose(other["plan"][:, :delay], after["plan"][:, :delay], atol=1e-3)


def test_realtime_first_plan_is_waited_for_and_executed_from_its_start(policy):
    for delay in (0, 2):
        made = RealtimePolicy(policy, 2, delay)
        obs, drawn = observations(policy, 0), noise(made)
        late = torch.cat([obs, obs[:, -1:].expand(-1, delay, -1)], 1)
        whole = (drawn.flatten(1) @ made._spread).view(B, 4, -1)
        actions, _ = made.sample(late, made.initial(range(B)), drawn)
        assert torch.equal(actions, policy.sample(obs, {}, whole)[0][:, :2])


def test_realtime_without_delay_and_overlap_is_the_policy_itself(policy):
    made = RealtimePolicy(policy, 4, 0)
    carry = made.initial(range(B))
    for i in range(3):
        obs, drawn = observations(policy, 0, i), noise(made, i)
        actions, carry = made.sample(obs, carry, drawn)
        assert torch.allclose(actions, policy.sample(obs, {}, drawn)[0], atol=1e-6)


@pytest.mark.parametrize("joined", [True, False])
def test_realtime_observations_that_come_too_late_change_nothing(policy, joined):
    made = RealtimePolicy(policy, 2, 2, joined)
    _, carry = made.sample(observations(policy, 2), made.initial(range(B)), noise(made))
    obs = observations(policy, 2, 1)
    early = made.sample(obs, carry, noise(made, 1))[0]
    obs[:, -2:] += 1
    assert torch.equal(made.sample(obs, carry, noise(made, 1))[0], early)
    obs[:, 0] += 1
    assert not torch.equal(made.sample(obs, carry, noise(made, 1))[0], early)


def test_realtime_rows_do_not_depend_on_each_other(policy):
    made = RealtimePolicy(policy, 2, 1)
    carry = made.initial(range(B))
    carry["fresh"][::2] = False
    obs, drawn = observations(policy, 1), noise(made)
    whole, _ = made.sample(obs, carry, drawn)
    for i in range(B):
        row = {k: v[i : i + 1] for k, v in carry.items()}
        assert torch.allclose(
            made.sample(obs[i : i + 1], row, drawn[i : i + 1])[0], whole[i : i + 1], atol=1e-6
        )


def test_synchronous_executes_then_holds_still():
    spec = tiny_spec()
    move, grip = (
        dataclasses.replace(spec.action[0], moves="hand"),
        dataclasses.replace(spec.action[0], name="grip"),
    )
    spec = dataclasses.replace(spec, action=(move, grip))
    episodes = [
        dataclasses.replace(e, actions=torch.from_numpy(e.actions).repeat(1, 2).numpy()[:, :6])
        for e in random_episodes(tiny_spec())
    ]
    policy = new_policy(spec, POLICY, PolicyWindows(episodes, spec), 0)
    made = SynchronousPolicy(policy, 2, 2)
    obs, drawn = observations(policy, 2), noise(made)
    actions, _ = made.sample(obs, made.initial(range(B)), drawn)
    assert torch.equal(actions[:, :2], policy.sample(obs[:, :2], {}, drawn)[0][:, :2])
    assert (actions[:, 2:, :3] == 0).all()
    assert torch.equal(actions[:, 2:, 3:], actions[:, 1:2, 3:].expand(-1, 2, -1))


@pytest.mark.parametrize("make", [RealtimePolicy, SynchronousPolicy])
@pytest.mark.parametrize(
    ("execute", "delay", "field"), [(0, 0, "execute"), (5, 0, "execute"), (2, 3, "delay"), (3, 2, "delay")]
)
def test_what_cannot_be_executed_so_is_refused(policy, make, execute, delay, field):
    with pytest.raises(BadInput, match=field):
        make(policy, execute, delay)


def test_realtime_of_a_policy_with_memory_is_refused():
    spec = tiny_spec()
    config = dataclasses.replace(POLICY, memory="sega", memory_width=16)
    remembering = new_policy(spec, config, PolicyWindows(random_episodes(spec), spec), 0)
    with pytest.raises(BadInput, match="memory"):
        RealtimePolicy(remembering, 2, 1)


class Exact:
    """The world of `tiny`: the hand moves by its action, all else stays."""

    def __init__(self, spec):
        self.spec = spec

    def predict(self, obs, actions, noise):
        states = obs[:, -1:].expand(-1, actions.shape[1], -1).clone()
        states[..., :3] += actions.cumsum(1)
        return Prediction(states, states[..., 0], states[:, 0, 0])


def executed(made, seen, chunks=4):
    """What a policy does in the world of `tiny`, and where it leads."""
    world, carry, done = Exact(made.spec), made.initial(range(B)), []
    seen = seen[:, -1:].expand(-1, made.spec.obs_steps, -1)
    for i in range(chunks):
        actions, carry = made.sample(seen[:, -made.spec.obs_steps :], carry, noise(made, i))
        done.append(actions)
        seen = torch.cat([seen, world.predict(seen, actions, actions).states], 1)
    return torch.cat(done, 1)


@pytest.mark.parametrize("delay", [1, 2])
def test_foresight_in_a_world_that_is_known_exactly_makes_delay_free(policy, delay):
    start = observations(policy, 0)
    late = RealtimePolicy(Foresight(policy, Exact(policy.spec)), 2, delay)
    wanted = executed(RealtimePolicy(policy, 2, 0, joined=False), start)
    assert torch.allclose(executed(late, start), wanted, atol=1e-5)
    assert not torch.allclose(executed(RealtimePolicy(policy, 2, delay), start), wanted, atol=1e-2)


def test_foresight_behind_the_server_plans_from_where_the_last_chunk_leads(policy):
    world, obs = Exact(policy.spec), observations(policy, 0)[:1]
    service = PolicyService(Foresight(policy, world), PriorSteerer(), 0)
    session = {n: h.answer for n, h in service.connect().items()}
    session["reset"](seed=3)
    asked = {"obs": obs[0].numpy(), "step": 0}
    first = torch.from_numpy(session["act"](**asked)["chunk"])[None]
    second = torch.from_numpy(session["join"](**asked, since=1, late=2)["chunk"])[None]
    assert torch.equal(second[:, :2], first[:, 1:3])
    rng = stream(3, "policy-noise")
    drawn = [torch.from_numpy(rng.standard_normal((1, 4, 3)).astype(np.float32)) for _ in range(2)][1]
    there = torch.cat([obs, world.predict(obs, first[:, 1:3], obs).states], 1)[:, -2:]
    assert torch.allclose(second[:, 2:], policy.sample(there, {}, drawn)[0][:, :2], atol=1e-5)


def test_foresight_of_which_nothing_is_known_is_the_policy_itself(policy):
    made, obs = Foresight(policy, Exact(policy.spec)), observations(policy, 0)
    drawn = noise(made)
    wanted = policy.sample(obs, {}, drawn)[0]
    assert torch.equal(made.sample(obs, {}, drawn)[0], wanted)
    known = Known(torch.ones(B, 4, 3), torch.tensor([0.9, 1, 1, 0])[:, None].expand(B, -1, -1))
    assert torch.equal(made.sample(obs, {}, drawn, known)[0], wanted)


def test_foresight_rows_do_not_depend_on_each_other(policy):
    made, obs = Foresight(policy, Exact(policy.spec)), observations(policy, 0)
    drawn, weight = noise(made), torch.zeros(B, 4, 1)
    for row in range(B):
        weight[row, :row] = 1
    known = Known(0.1 * normal(B, 4, 3, seed=3), weight)
    together = made.sample(obs, {}, drawn, known)[0]
    for row in range(B):
        one = slice(row, row + 1)
        alone = made.sample(obs[one], {}, drawn[one], Known(known.chunk[one], weight[one]))[0]
        assert torch.allclose(alone, together[one], atol=1e-5)
        assert torch.equal(alone[:, :row], known.chunk[one, :row])


def test_foresight_by_a_world_of_another_robot_is_refused(policy):
    with pytest.raises(BadInput, match="robot"):
        Foresight(policy, Exact(dataclasses.replace(policy.spec, robot="other")))
