"""A log of a gate, played again, gives the same answers; anything else is noticed."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import numpy as np
import pytest
from gate_bench import CENTRE, LIMITS, NAMES, SECOND
from gate_bench import MAX_CHUNK as STEPPED_MAX
from gate_bench import TIMING as STEPPED_TIMING
from timed_bench import DRIVE, MAX_CHUNK, TIMING, ramp
from timed_bench import NAMES as TIMED_NAMES

from robopolicy.errors import BadInput
from ros_nodes.gate_log import GateLog, replay
from ros_nodes.safety import Reason
from ros_nodes.stepped import SteppedGate
from ros_nodes.timed import TimedGate


def _stepped() -> SteppedGate:
    return SteppedGate(LIMITS, STEPPED_TIMING, STEPPED_MAX)


def _timed() -> TimedGate:
    return TimedGate(DRIVE, TIMING, MAX_CHUNK)


def _life(log: GateLog, names, actions, point, measured, seed: int) -> list[bytes]:
    """Some seconds of good and bad input."""
    rng, now, wall, batches = np.random.default_rng(seed), 10.0, SECOND, []
    for i in range(300):
        passed = rng.choice([0.005, 0.01, 0.02, 0.3], p=[0.3, 0.5, 0.19, 0.01])
        now, wall = now + passed, wall + int(passed * SECOND)
        noisy = measured + rng.normal(0, 1e-4, len(measured))
        if rng.random() < 0.02:
            noisy = np.full(len(measured), np.nan)
        log.call("state", now, wall, wall, point, bool(rng.random() < 0.99), noisy)
        if rng.random() < 0.95:
            log.call("heartbeat", now, 1)
        if i % 40 == 1:
            log.call("engage", now)
        if i % 15 == 2:
            log.call("chunk", now, wall, wall, list(names), actions)
        for call, args, share in (
            ("stop", (Reason.STOPPED,), 0.01),
            ("reset", (), 0.05),
            ("disengage", (), 0.01),
            ("policy_lost", (), 0.01),
            ("alone", (bool(rng.random() < 0.9),), 0.05),
            ("refuse", (Reason.CHUNK_SIZE,), 0.01),
        ):
            if rng.random() < share:
                log.call(call, *args)
        log.call("tick", now)
        if i % 3 == 0:
            batches.append(log.take())
    return [*batches, log.take()]


@pytest.mark.parametrize("kind", ["stepped", "timed"])
@pytest.mark.parametrize("seed", range(4))
def test_replay_of_a_life_gives_the_same_answers(kind, seed):
    make = _stepped if kind == "stepped" else _timed
    log = GateLog(make())
    if kind == "stepped":
        batches = _life(log, NAMES, np.full((8, 4), 0.01), CENTRE, np.zeros(0), seed)
    else:
        row = ramp(np.zeros(3), np.full(3, 0.05), 12)
        batches = _life(log, TIMED_NAMES, row, np.zeros(0), np.zeros(3), seed)
    assert log.gate.played > 0
    assert replay(make(), batches) > 900


def test_replay_with_other_limits_names_the_first_difference():
    log = GateLog(_stepped())
    batches = _life(log, NAMES, np.full((8, 4), 0.04), CENTRE, np.zeros(0), 1)
    wider = replace(LIMITS, max_change=np.array([0.05, 0.05, 0.05, 2.0]))
    with pytest.raises(BadInput, match="tick"):
        replay(SteppedGate(wider, STEPPED_TIMING, STEPPED_MAX), batches)


def test_replay_of_a_log_with_a_gap_is_refused():
    log = GateLog(_stepped())
    batches = _life(log, NAMES, np.full((8, 4), 0.01), CENTRE, np.zeros(0), 0)
    with pytest.raises(BadInput, match="whole log"):
        replay(_stepped(), batches[1:])


@pytest.mark.parametrize(
    "batch", [b"\xc1", msgpack.packb(3), msgpack.packb([[0, "__init__", [], None]]), msgpack.packb([[0]])]
)
def test_replay_of_something_else_is_refused(batch):
    with pytest.raises(BadInput, match="gate log"):
        replay(_stepped(), [batch])


def test_log_nobody_takes_stays_small():
    log = GateLog(_stepped())
    for i in range(30_000):
        log.call("heartbeat", float(i), 1)
    assert len(log._calls) <= 20_000
