"""Faults of the robot loop, each by its number in docs/faults.md; those over DDS are in tests/ros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gate_bench import CENTRE, SECOND, TIMING, Bench
from gate_bench import NAMES as STEPPED
from reach_by_script import ARM, SPEC, ReachByScript
from timed_bench import BOUNDS, DRIVE, NAMES, TimedBench, ramp
from timed_bench import TIMING as TIMED

from robopolicy.errors import BadInput
from robopolicy.rollout import PriorSteerer
from robopolicy.serve import MAX_NOISE, PolicyService
from ros_nodes.cameras import CameraWatch
from ros_nodes.contract import Contract
from ros_nodes.parse import by_name, from_message, from_trajectory, picture
from ros_nodes.safety import Mode, Reason
from ros_nodes.stepped import SteppedGate
from ros_nodes.timed import TimedGate

THERE = np.array([0.3, 0.6, 0.0])


class Counted(ReachByScript):
    """A policy that counts how often it was asked, and remembers the noise it saw."""

    def __init__(self, chunk: torch.Tensor | None = None):
        self.asked, self.noise, self._chunk = 0, torch.zeros(0), chunk

    def sample(self, obs, carry, noise):
        self.asked, self.noise = self.asked + 1, noise
        chunk, carry = super().sample(obs, carry, noise)
        return (chunk if self._chunk is None else self._chunk), carry


def _session(policy, steerer=None):
    service = PolicyService(policy, steerer or PriorSteerer(), 0)
    session = {name: handler.answer for name, handler in service.connect().items()}
    session["reset"](seed=0)
    return service, session


def _obs() -> np.ndarray:
    return np.zeros((SPEC.obs_steps, SPEC.state_dim), np.float32)


@pytest.mark.parametrize("element", range(SPEC.state_dim))
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_fault_01_observation_not_finite_is_refused_before_the_network_and_held(element, poison):
    policy = Counted()
    _, session = _session(policy)
    obs = _obs()
    obs[-1, element] = poison
    with pytest.raises(BadInput, match="obs"):
        session["act"](obs=obs, step=0)
    assert policy.asked == 0
    bench = Bench()
    bench.run()
    for _ in range(20):
        bench.let(0.02)
        bench.state(finite=False)
        bench.beat()
        bench.tick()
    assert (bench.gate.mode, bench.gate.reason) == (Mode.HOLD, Reason.STATE_INVALID)


@pytest.mark.parametrize("factor", [57.3 * 180, 255.0, 1e6])
def test_fault_02_observation_out_of_range_is_refused_and_never_clipped(factor):
    policy = Counted()
    _, session = _session(policy)
    obs = _obs() + 1.0
    session["act"](obs=obs, step=0)
    with pytest.raises(BadInput, match="obs"):
        session["act"](obs=obs * factor, step=0)
    assert policy.asked == 1


def _seeing(frozen: bool, old: bool, seconds: float = 1.5) -> SteppedGate:
    gate = SteppedGate(Bench().gate._limits, TIMING, 16, {"wrist": 0.15})
    bench = Bench()
    bench.gate = gate
    for i in range(round(seconds / 0.05)):
        bench.let(0.05)
        bench.state(point=CENTRE + np.array([0.02 * i, 0.0, 0.0]))
        bench.beat()
        stamp = bench.wall - (int(1.0 * SECOND) if old else 0)
        gate.camera("wrist", bench.now, bench.wall, stamp, 7 if frozen else i)
        gate.engage(bench.now)
        if gate.tick(bench.now).request is not None:
            bench.chunk()
            gate.tick(bench.now)
    return gate


def test_fault_03_camera_with_old_stamps_or_one_picture_for_ever_holds_and_recovers():
    assert _seeing(False, False).mode is Mode.RUNNING
    frozen = _seeing(True, False)
    assert (frozen.mode, frozen.reason) == (Mode.HOLD, Reason.CAMERA_STALE)
    assert frozen.played > 0
    old = _seeing(False, True)
    assert old.mode is Mode.DISARMED
    assert old.refused[Reason.CAMERA_STALE] == 30
    watch, here, there = CameraWatch({"a": 0.1}), np.zeros(3), np.ones(3)
    assert watch.blind(0.0, here) == "a"
    watch.see("a", 0.0, 0, 0, 1, here)
    assert watch.blind(0.05, here) == ""
    assert not watch.see("a", 0.05, 0, 0, 1, here)
    for i in range(1, 12):
        watch.see("a", 0.06 * i, i * 60_000_000, i * 60_000_000, 1, here)
    assert watch.blind(0.66, here) == ""
    assert watch.blind(0.66, there) == "a"
    watch.see("a", 0.7, 700_000_000, 700_000_000, 2, there)
    assert watch.blind(0.7, there) == ""


@pytest.mark.parametrize("step", range(0, 12, 3))
@pytest.mark.parametrize("topic", ["state", "beat"])
def test_fault_04_topic_dropped_at_any_step_holds_then_faults(step, topic):
    bench = Bench()
    bench.run()
    for _ in range(step):
        if bench.step().request is not None:
            bench.chunk()
            bench.tick()
    for _ in range(200):
        bench.let(0.01)
        if topic == "beat":
            bench.state()
        else:
            bench.beat()
        if bench.tick().mode is Mode.FAULT:
            break
    assert bench.gate.reason is (Reason.NO_STATE if topic == "state" else Reason.POLICY_LOST)


class _Joints:
    """A JointState, as far as it is read."""

    def __init__(self, names, values):
        self.name, self.position = names, values


def test_fault_06_joints_in_any_order_are_the_same_state_and_wrong_ones_are_refused():
    (stream,) = ARM.streams
    names, values = [j.name for j in stream.joints], [0.1 * i for i in range(6)]
    state = from_message(stream, _Joints(names, values), ARM.frame)
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(6)
        mixed = _Joints([names[i] for i in order], [values[i] for i in order])
        assert from_message(stream, mixed, ARM.frame) == state
    for wrong in (names[:5], [*names[:5], names[0]], [*names[:5], "tail"]):
        with pytest.raises(BadInput):
            from_message(stream, _Joints(wrong, values[: len(wrong)]), ARM.frame)
    assert by_name(["b", "a"], ["a", "b"], np.array([2.0, 1.0])).tolist() == [1.0, 2.0]


def test_fault_07_command_at_a_limit_just_inside_is_kept_just_outside_stops_before_it():
    for target, reached in ((BOUNDS.high[0] - 1e-3, True), (BOUNDS.high[0] + 0.5, False)):
        bench = TimedBench()
        goal = np.array([target, 0.0, 0.0])
        bench.run(goal, 16)
        for _ in range(16):
            bench.go(0.15)
            bench.chunk(np.tile(goal, (16, 1)))
        path = np.array([c[0] for _, c in bench.commands])
        assert path.max() <= BOUNDS.high[0] + 1e-9
        assert np.isclose(path.max(), target if reached else BOUNDS.high[0], atol=2e-3)


@pytest.mark.parametrize("seed", range(6))
def test_fault_08_seam_between_two_chunks_keeps_speed_and_acceleration(seed):
    rng, bench = np.random.default_rng(seed), TimedBench()
    bench.run(rng.uniform(-1, 1, 3) * [0.5, 0.5, 0.005], 10)
    for _ in range(6):
        bench.go(0.31)
        bench.chunk(rng.uniform(-1, 1, (10, 3)) * [0.9, 0.4, 0.01])
    path = np.array([c[:2] for _, c in bench.commands])
    speed, bend = np.diff(path, axis=0) / 0.01, np.diff(path, n=2, axis=0) / 1e-4
    assert (np.abs(speed) <= BOUNDS.speed[:2] * (1 + 1e-6)).all()
    assert (np.abs(bend) <= BOUNDS.acceleration[:2] * (1 + 1e-3) + 1e-6).all()


@pytest.mark.parametrize("index", [(0, 0), (3, 2), (7, 5)])
def test_fault_09_chunk_not_finite_or_of_wrong_shape_is_refused_whole(index):
    chunk = torch.zeros(1, SPEC.chunk, SPEC.action_dim)
    chunk[0][index] = torch.nan
    for bad in (chunk, torch.zeros(1, SPEC.chunk, 2)):
        _, session = _session(Counted(bad))
        with pytest.raises(BadInput, match="chunk"):
            session["act"](obs=_obs(), step=0)
    bench = TimedBench()
    bench.run(THERE / 5)
    bench.go(0.25)
    rows = ramp(bench.arm, THERE / 5)
    rows[index[0], index[1] % 3] = np.nan
    assert bench.chunk(rows) is Reason.CHUNK_NONFINITE
    assert bench.go(0.05).mode is Mode.RUNNING  # the chunk before goes on while it is fresh
    assert bench.go(0.3).mode is Mode.HOLD


class Stray(PriorSteerer):
    def __init__(self, value: float):
        self._value = value

    def noise(self, obs, prior, carry):
        return torch.full_like(prior, self._value)


@pytest.mark.parametrize("value", [1e6, -9.0, torch.nan, torch.inf])
def test_fault_10_noise_of_a_steerer_far_outside_the_prior_is_not_taken_and_counted(value):
    policy = Counted()
    service, session = _session(policy, Stray(value))
    session["act"](obs=_obs(), step=0)
    assert policy.noise.abs().max() <= MAX_NOISE
    assert session["stats"]()["strayed"] == service.strayed == 1
    fine, session = _session(policy, Stray(2.0))
    session["act"](obs=_obs(), step=0)
    assert fine.strayed == 0
    assert (policy.noise == 2.0).all()


@pytest.mark.parametrize("late", [0.0, 0.2, 0.38, 1.2])
def test_fault_11_inference_overrun_skips_what_is_past_and_refuses_what_is_over(late):
    bench = TimedBench()
    bench.go(0.02)
    bench.gate.engage(bench.now)
    bench.tick()
    stamp, began = bench.stamp, bench.now
    bench.gate._t = replace(TIMED, chunk_max_age_s=5.0, fault_after_s=5.0)
    bench.go(late)
    goal = np.array([0.04, 0.04, 0.0])
    answer = bench.gate.chunk(bench.now, bench.wall, stamp, NAMES, ramp(np.zeros(3), goal))
    # After more than a second its state is no longer remembered.
    assert answer in ((Reason.NONE,) if late < 0.4 else (Reason.CHUNK_EXPIRED, Reason.CHUNK_STAMP))
    bench.go(0.5)
    played = [t for t, c in bench.commands if bench.gate.played and np.any(c)]
    if late < 0.4:
        assert bench.gate.mode is Mode.HOLD
        assert bench.gate.played <= round((0.4 - late) / 0.01) + 2
        assert all(t >= began + late - 1e-6 for t in played)
    else:
        assert played == []


@pytest.mark.parametrize("jump", [0.001, -0.001, 1.0, -1.0, 3600.0, -3600.0])
@pytest.mark.parametrize("clock", ["steady", "wall", "both"])
def test_fault_14_clock_that_jumps_holds_until_there_is_fresh_data_and_moves_nothing_far(jump, clock):
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.2)
    last = bench.commands[-1][1]
    bench.let(jump if clock != "wall" else 0.0, jump if clock != "steady" else 0.0)
    decision = bench.tick()
    if decision.command is not None:
        assert (np.abs(decision.command - last)[:2] <= BOUNDS.speed[:2] * 0.02 + 1e-9).all()
    if clock != "wall" and (jump < 0 or jump > TIMED.tick_gap_s):
        assert (decision.mode, decision.reason) == (Mode.HOLD, Reason.CLOCK)
    bench.go(0.05)
    assert bench.gate.mode in (Mode.RUNNING, Mode.HOLD)


def test_fault_15_stream_shuffled_repeated_or_from_the_future_gives_what_the_sorted_one_gives():
    def play(order, extra) -> list[int]:
        bench, taken = Bench(), []
        for i in order:
            bench.now, bench.wall = 1000.0 + 0.1, 5 * SECOND
            stamp = 5 * SECOND - 100_000_000 + i * 5_000_000
            if bench.gate.state(bench.now, bench.wall, stamp, CENTRE, True) is Reason.NONE:
                taken.append(i)
            if extra:
                assert bench.gate.state(bench.now, bench.wall, stamp, CENTRE, True) is Reason.STATE_STAMP
                far = 5 * SECOND + 3600 * SECOND
                assert bench.gate.state(bench.now, bench.wall, far, CENTRE, True) is Reason.STATE_STAMP
        return taken

    whole = play(range(20), False)
    assert whole == list(range(20))
    assert play(range(20), True) == whole
    mixed = play(np.random.default_rng(0).permutation(20), True)
    assert mixed == sorted(mixed)
    assert mixed[-1] == 19


class _Huge:
    """Says that it has a million names, and would be slow to give them."""

    def __len__(self):
        return 1_000_000

    def __iter__(self):
        raise AssertionError("it was read")


def test_fault_16_message_that_is_too_large_or_lies_about_its_size_is_refused_unread():
    (stream,) = ARM.streams
    with pytest.raises(BadInput, match="at most"):
        from_message(stream, _Joints(_Huge(), _Huge()), ARM.frame)

    class Trajectory:
        joint_names, points = _Huge(), _Huge()

        class header:  # noqa: N801
            frame_id = "base_link"

    with pytest.raises(BadInput, match="at most"):
        from_trajectory(Trajectory(), "base_link")
    for data in (b"", b"\x00\x01\x00\x00", b"\x00\x00" + bytes(40)):
        with pytest.raises(BadInput, match="picture"):
            picture(data)
    stamp, digest = picture(b"\x00\x01\x00\x00" + (3).to_bytes(4, "little") + bytes(4) + b"abcdefgh")
    assert stamp == 3 * SECOND
    assert digest != picture(b"\x00\x01\x00\x00" + bytes(8) + b"abcdefgi")[1]


def test_fault_13_gate_without_a_whole_contract_is_not_made():
    import yaml

    from ros_nodes.contract import _CONFIG

    for name, section in (("so101", "action"), ("panda_sim", "action")):
        data = yaml.safe_load((_CONFIG / f"{name}.yaml").read_text())
        (first, entry), *_ = data[section].items()
        for key in entry:
            broken = {**data, section: {**data[section], first: {k: v for k, v in entry.items() if k != key}}}
            with pytest.raises(BadInput, match=first):
                Contract.from_dict(broken)
    assert isinstance(Contract.load("so101").gate(), TimedGate)
    assert Contract.load("panda_sim").action_names == STEPPED
    assert DRIVE.bounds is BOUNDS
