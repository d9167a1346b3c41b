"""The plant obeys fresh commands once, holds otherwise, and never runs faster than its clock."""

from __future__ import annotations

import gymnasium
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from robopolicy.errors import BadInput
from robopolicy.spec import Field, Spec
from sim.plant import Plant, Timing, main

SPEC = Spec(
    robot="toy",
    task="walk",
    fps=10,
    chunk=2,
    obs_steps=1,
    horizon=100,
    proprio=(Field("x", 1, "m", -1e3, 1e3),),
    objects=(),
    action=(Field("dx", 1, "m", -1.0, 1.0),),
)
GO = np.array([0.5], np.float32)
TIMEOUT = 0.3


class Line(gymnasium.Env):
    """x moves by dx; success beyond 2."""

    def __init__(self):
        self.x = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        self.x = np.array([seed or 0], np.float32) * 0.001
        return self.x, {}

    def step(self, action):
        self.x = self.x + action
        done = bool(self.x[0] >= 2)
        return self.x, float(done), done, False, {"is_success": done}

    def hold(self):
        return self.step(np.zeros(1, np.float32))


class Bench:
    def __init__(self, realtime: bool):
        self.now = 50.0
        self.plant = Plant(Line(), SPEC, Timing(0.1, realtime, TIMEOUT), lambda: self.now)

    def let(self, seconds: float) -> None:
        """Time passes; the plant does what is due when it is due."""
        end = self.now + seconds
        while True:
            delay = self.plant.advance()
            if self.now + delay > end:
                self.now = end
                return
            self.now += delay

    @property
    def status(self):
        return self.plant.wait(0, 0.0)

    def command(self, action=GO, late: int = 0) -> bool:
        return self.plant.command(self.status["serial"] - late, action)["accepted"]


@pytest.mark.parametrize("realtime", [True, False])
def test_plant_after_reset_stands_still_with_new_serials(realtime):
    bench = Bench(realtime)
    before = bench.status["serial"]
    bench.let(1.001)
    status = bench.status
    assert status["step"] == status["held"] == 0
    assert status["serial"] == before + 10


def test_plant_realtime_steps_at_its_rate_and_holds_without_commands():
    bench = Bench(True)
    bench.command()
    bench.let(0.1001)
    assert bench.status["state"][0] == 0.5
    bench.let(1.0)
    status = bench.status
    assert (status["step"], status["commanded"], status["held"]) == (11, 1, 10)
    assert status["state"][0] == 0.5


def test_plant_lockstep_steps_as_soon_as_commanded_and_time_waits():
    bench = Bench(False)
    for _ in range(5):
        assert bench.command()
        bench.let(0.001)
    assert bench.status["step"] == 5
    bench.let(TIMEOUT - 0.002)
    assert bench.status["held"] == 0
    bench.let(0.01)
    assert bench.status["held"] == 1
    bench.let(1.0)
    assert bench.status["held"] == 11


def test_plant_lockstep_told_to_hold_holds_at_once():
    bench = Bench(False)
    bench.command()
    bench.let(0.001)
    assert bench.plant.hold(bench.status["serial"])["accepted"]
    bench.let(0.001)
    assert bench.status["held"] == 1


def test_plant_command_for_an_older_state_is_late():
    bench = Bench(True)
    bench.command()
    bench.let(0.1001)
    assert not bench.command(late=1)
    assert not bench.command(late=-1)
    bench.let(0.1)
    assert (bench.status["late"], bench.status["commanded"]) == (2, 1)


def test_plant_two_commands_for_one_state_the_first_counts():
    bench = Bench(True)
    assert bench.command()
    assert not bench.command(-GO)
    bench.let(0.1001)
    assert bench.status["state"][0] == 0.5


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [5.0], [0.1, 0.1]])
def test_plant_bad_command_refused(bad):
    bench = Bench(True)
    with pytest.raises(BadInput):
        bench.command(np.array(bad, np.float32))
    bench.let(0.2)
    assert bench.status["commanded"] == 0


def test_plant_reset_forgets_commands_and_counts():
    bench = Bench(True)
    bench.command()
    bench.let(0.1001)
    serial = bench.status["serial"]
    bench.plant.reset(7)
    assert not bench.plant.command(serial, GO)["accepted"]
    bench.let(0.3)
    assert bench.status["state"][0] == np.float32(0.007)
    assert bench.status["step"] == 0
    with pytest.raises(BadInput, match="seed"):
        bench.plant.reset(-1)


def test_plant_success_is_latched_with_its_step():
    bench = Bench(False)
    for i in range(8):
        bench.command(GO if i < 5 else -GO)
        bench.let(0.001)
    assert bench.status["success"]
    assert bench.status["success_at"] == 4


def test_plant_suspended_does_not_catch_up():
    bench = Bench(True)
    bench.command()
    bench.let(0.1001)
    bench.now += 5.0
    bench.let(0.1)
    assert bench.status["step"] <= 3


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    realtime=st.booleans(),
    events=st.lists(st.tuples(st.sampled_from(["go", "late", "hold", "wait", "reset"]), st.floats(0, 0.5))),
)
def test_plant_anything_goes_moves_only_as_commanded(realtime, events):
    bench = Bench(realtime)
    bench.plant.reset(0)
    moved = 0
    for kind, seconds in events:
        if kind == "reset":
            bench.plant.reset(0)
            moved = 0
        elif kind == "hold":
            bench.plant.hold(bench.status["serial"])
        elif kind != "wait":
            moved += bench.command(late=3 if kind == "late" else 0)
        bench.let(seconds)
        status = bench.status
        pending = moved - status["commanded"]
        assert pending in (0, 1)
        assert status["state"][0] == pytest.approx(0.5 * status["commanded"])
        assert status["step"] == status["commanded"] + status["held"]


def test_timing_nonsense_refused():
    with pytest.raises(BadInput, match="timeout_s"):
        Timing(0.05, True, float("nan"))


def test_main_unknown_task_exits_two(capsys):
    assert main(["--task", "lfit", "--address", "x"]) == 2
    assert "did you mean 'lift'" in capsys.readouterr().err
