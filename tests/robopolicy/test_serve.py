"""A served episode is the episode that evaluation would have run."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from robopolicy.errors import BadInput
from robopolicy.rollout import PriorSteerer
from robopolicy.seeding import stream
from robopolicy.serve import PolicyService, serve
from robopolicy.spec import Field, Spec
from robopolicy.wire import Client, dial

SPEC = Spec(
    robot="toy",
    task="walk",
    fps=10,
    chunk=3,
    obs_steps=2,
    horizon=9,
    proprio=(Field("x", 1, "m", -10.0, 10.0),),
    objects=(),
    action=(Field("dx", 2, "m", -100.0, 100.0),),
)
OBS = np.zeros((2, 1), np.float32)


class Counting:
    """Action = noise + how often it was asked in this episode; the count is its carry."""

    spec = SPEC

    def __init__(self):
        self.poisoned = False

    def initial(self, seeds):
        return {"count": torch.zeros(len(seeds))}

    def sample(self, obs, carry, noise):
        count = carry["count"] + 1
        chunk = noise + count.view(-1, 1, 1)
        return chunk * (np.nan if self.poisoned else 1.0), {"count": count}


class Joining(Counting):
    """What is known of the chunk is what it answers, where anything is."""

    joins = True

    def sample(self, obs, carry, noise, known=None):
        chunk, carry = super().sample(obs, carry, noise)
        return chunk if known is None else torch.lerp(chunk, known.chunk, known.weight), carry


def handlers(policy):
    made = PolicyService(policy, PriorSteerer(), 0).connect()
    return {name: handler.answer for name, handler in made.items()}


class Doubler:
    def noise(self, obs, prior, carry=None):
        return 2 * prior


@pytest.fixture
def service(tmp_path):
    policy, stop, ready = Counting(), threading.Event(), threading.Event()
    address = str(tmp_path / "s")
    thread = threading.Thread(target=serve, args=(policy, None, address, stop, ready.set))
    thread.start()
    ready.wait(10.0)
    yield policy, address
    stop.set()
    thread.join(5.0)


def test_act_noise_and_carry_are_those_of_rollout(service):
    _, address = service
    rng = stream(7, "policy-noise")
    with Client(address) as client, Client(address) as other:
        client.request("reset", seed=7)
        other.request("reset", seed=8)
        for i in range(3):
            want = rng.standard_normal((3, 2)).astype(np.float32) + (i + 1)
            other.request("act", obs=OBS, step=0)  # another session's draws are its own
            reply = client.request("act", obs=OBS, step=3 * i)
            assert np.array_equal(reply["chunk"], want)
            assert reply["step"] == 3 * i


def test_reset_same_seed_gives_the_same_chunks(service):
    _, address = service
    with Client(address) as client:
        chunks = []
        for _ in range(2):
            client.request("reset", seed=3)
            chunks.append(client.request("act", obs=OBS, step=0)["chunk"])
    assert np.array_equal(*chunks)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_act_bad_observation_refused_and_draws_no_noise(service, bad):
    _, address = service
    with Client(address) as client:
        client.request("reset", seed=3)
        with pytest.raises(BadInput, match=r"obs\.x\.0"):
            client.request("act", obs=np.full((2, 1), bad, np.float32), step=0)
        after = client.request("act", obs=OBS, step=0)["chunk"]
        client.request("reset", seed=3)
        assert np.array_equal(client.request("act", obs=OBS, step=0)["chunk"], after)


def test_act_before_reset_or_of_other_shape_refused(service):
    _, address = service
    with Client(address) as client:
        with pytest.raises(BadInput, match="reset"):
            client.request("act", obs=OBS, step=0)
        client.request("reset", seed=3)
        with pytest.raises(BadInput, match=r"act\.obs"):
            client.request("act", obs=np.zeros((3, 1), np.float32), step=0)
        with pytest.raises(BadInput, match=r"reset\.seed"):
            client.request("reset", seed=-1)


def test_act_policy_answers_nan_refused(service):
    policy, address = service
    with Client(address) as client:
        client.request("reset", seed=3)
        policy.poisoned = True
        with pytest.raises(BadInput, match="chunk"):
            client.request("act", obs=OBS, step=0)


def test_hello_names_spec_and_epoch(service):
    _, address = service
    with Client(address) as client:
        hello = client.request("hello")
        assert Spec.from_dict(hello["spec"]) == SPEC
        assert hello["fingerprint"] == SPEC.fingerprint
        assert hello["epoch"] == client.request("ping")["epoch"]


def test_stats_are_percentiles_of_the_inference_time():
    times = iter(np.cumsum([0.0, 0.001, 0.0, 0.003]).tolist())
    service = PolicyService(Counting(), Doubler(), epoch=1, clock=lambda: next(times))
    for _ in range(2):
        service.infer(OBS, np.zeros((3, 2)), service.policy.initial([0]))
    stats = service.stats()
    assert stats["count"] == 2
    assert stats["p50_ms"] == pytest.approx(2.0)
    assert stats["p99_ms"] == pytest.approx(2.98)


def test_infer_steerer_chooses_the_noise():
    prior = np.full((3, 2), 0.5)
    plain, steered = (
        PolicyService(Counting(), s, epoch=1).infer(OBS, prior, Counting().initial([0]))[0]
        for s in (PriorSteerer(), Doubler())
    )
    assert np.array_equal(plain, np.full((3, 2), 1.5, np.float32))
    assert np.array_equal(steered, np.full((3, 2), 2.0, np.float32))


def test_dial_no_server_gives_up_when_stopped(tmp_path):
    from robopolicy.wire import PeerGone

    stop = threading.Event()
    stop.set()
    with pytest.raises(PeerGone):
        dial(str(tmp_path / "s"), stop)


def test_join_what_is_executed_meanwhile_begins_the_new_chunk():
    session = handlers(Joining())
    session["reset"](seed=3)
    first = session["act"](obs=OBS, step=0)["chunk"]
    second = session["join"](obs=OBS, step=1, since=1, late=2)["chunk"]
    assert np.array_equal(second[:2], first[1:])
    session["reset"](seed=3)
    session["act"](obs=OBS, step=0)
    free = session["act"](obs=OBS, step=1)["chunk"]
    assert np.array_equal(second[2:], free[2:])  # nothing is known of it, and the noise is the same
    assert not np.array_equal(second[:2], free[:2])


@pytest.mark.parametrize(("since", "late"), [(0, 1), (3, 1), (9, 0)])
def test_join_without_a_chunk_to_go_on_from_is_act(since, late):
    chunks = []
    for kind, told in (("act", {}), ("join", {"since": since, "late": late})):
        session = handlers(Joining())
        session["reset"](seed=3)
        session["act"](obs=OBS, step=0)
        chunks.append(session[kind](obs=OBS, step=1, **told)["chunk"])
    assert np.array_equal(*chunks)


def test_join_after_reset_or_by_a_policy_that_cannot_is_act():
    for policy, asked in ((Joining(), 0), (Counting(), 1)):
        chunks = []
        for kind, told in (("act", {}), ("join", {"since": 1, "late": 1})):
            session = handlers(policy)
            session["reset"](seed=1)
            session["act"](obs=OBS, step=0)
            for _ in range(1 - asked):
                session["reset"](seed=1)
            chunks.append(session[kind](obs=OBS, step=0, **told)["chunk"])
        assert np.array_equal(*chunks)


@pytest.mark.parametrize("told", [{"since": -1, "late": 0}, {"since": 1, "late": -1}])
def test_join_negative_steps_are_refused(told):
    session = handlers(Joining())
    session["reset"](seed=3)
    with pytest.raises(BadInput, match=r"join\."):
        session["join"](obs=OBS, step=0, **told)


def test_hello_says_whether_chunks_can_be_joined():
    assert handlers(Joining())["hello"]()["joins"] is True
    assert handlers(Counting())["hello"]()["joins"] is False
