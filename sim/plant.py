"""The simulated arm as a process of its own: no ROS, no torch, its own clock, its own timeout.

    {"kind": "hello"}                        -> spec, fingerprint, realtime
    {"kind": "reset", seed}                  -> status              starts an episode, brakes on
    {"kind": "wait", after, within_s}        -> status              once its serial exceeds `after`
    {"kind": "command", serial, action (A,)} -> accepted            answers the state of that serial
    {"kind": "hold", serial}                 -> accepted            stay where you are
    status = state (D,) float32, serial, step, success, success_at, commanded, held, late

Each published state has a serial number and a command names the serial it answers: a command for an older
state is refused, so none is applied twice or too late. In real time the arm steps at the Spec's rate and
holds (joints braked, grip unchanged) whenever no command for the present state has come. In lockstep it
steps as soon as it is commanded; simulated time waits for the command, but no longer than the timeout.
After a reset the brakes are on: the arm stands still, its state published with new serials, until the first
command.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from robopolicy.errors import BadInput
from robopolicy.processes import stop_on_signals
from robopolicy.spec import Spec
from robopolicy.wire import Array, Handler, Message, Server
from sim.tasks import find_task

_WARM_UP_STEPS = 3
_LONGEST_WAIT_S = 1.0
_LONGEST_NAP_S = 0.1  # how soon `stop` is noticed


@dataclass(frozen=True)
class Timing:
    """How the plant's time runs.

    Attributes:
        period_s: one control step.
        realtime: step at this rate whatever comes; otherwise step when commanded.
        timeout_s: in lockstep, how long simulated time waits for a command before the arm holds.
    """

    period_s: float
    realtime: bool = True
    timeout_s: float = 0.5

    def __post_init__(self) -> None:
        for name in ("period_s", "timeout_s"):
            if not 0 < getattr(self, name) < 60:
                raise BadInput(f"plant {name}", "seconds between 0 and 60", getattr(self, name))


class Arm(Protocol):
    """A step-level environment (action (A,) to state (D,)) that can also brake."""

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]: ...

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]: ...

    def hold(self) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step of standing still, grip unchanged."""
        ...


class Plant:
    """An arm that obeys fresh commands and holds otherwise. Thread-safe; driven by `advance`.

    Args:
        env: the arm.
        spec: what its numbers mean.
        timing: how its time runs.
        clock: monotonic seconds.
    """

    def __init__(self, env: Arm, spec: Spec, timing: Timing, clock: Callable[[], float] = time.monotonic):
        self._env, self.spec, self._timing, self._clock = env, spec, timing, clock
        self._changed = threading.Condition()
        self._serial = 0
        with self._changed:
            self._restart(0)

    def _restart(self, seed: int) -> None:
        self._state, _ = self._env.reset(seed=seed)
        self._braked, self._success = True, False
        self._step = self._commanded = self._held = self._late = self._success_at = 0
        self._publish(same_state=False)
        self._due = self._clock() + self._timing.period_s

    def _publish(self, same_state: bool) -> None:
        self._serial += 1
        if not same_state:
            self._oldest = self._serial  # commands that answer anything older are late
            self._command: np.ndarray | None = None
        self._changed.notify_all()

    # --- requests -------------------------------------------------------------------------------

    def reset(self, seed: int) -> Message:
        """Starts the episode of `seed` with brakes on."""
        if seed < 0:
            raise BadInput("reset.seed", "a non-negative integer", seed)
        with self._changed:
            self._restart(seed)
            return self._status()

    def command(self, serial: int, action: np.ndarray) -> Message:
        """Asks for `action` (A,) in answer to the state `serial`; non-finite or huge is refused."""
        action = self.spec.check_action(action)
        with self._changed:
            accepted = self._oldest <= serial <= self._serial and self._command is None
            if accepted:
                self._command = action
                self._changed.notify_all()
            else:
                self._late += 1
            return {"accepted": accepted}

    def hold(self, serial: int) -> Message:
        """Asks the arm to stay where it is; with brakes on there is nothing to do."""
        with self._changed:
            if self._braked:
                return {"accepted": True}
            accepted = self._oldest <= serial <= self._serial and self._command is None
            if accepted and not self._timing.realtime:
                self._due = self._clock()  # nothing to wait for any longer
                self._changed.notify_all()
            return {"accepted": accepted}

    def wait(self, after: int, within_s: float) -> Message:
        """The status, as soon as there is a state newer than serial `after`."""
        with self._changed:
            self._changed.wait_for(lambda: self._serial > after, min(max(within_s, 0.0), _LONGEST_WAIT_S))
            return self._status()

    def _status(self) -> Message:
        return {
            "state": self._state,
            "serial": self._serial,
            "step": self._step,
            "success": self._success,
            "success_at": self._success_at,
            "commanded": self._commanded,
            "held": self._held,
            "late": self._late,
        }

    # --- time -----------------------------------------------------------------------------------

    def advance(self) -> float:
        """Does what is due now; returns the seconds until something is due again."""
        with self._changed:
            now = self._clock()
            ready = self._command is not None and not self._timing.realtime
            if now < self._due and not ready:
                return self._due - now
            if self._braked and self._command is None:
                self._publish(same_state=True)
                self._due = max(self._due + self._timing.period_s, now)
                return 0.0
            self._apply(now)
            return max(self._due - now, 0.0)

    def _apply(self, now: float) -> None:
        command = self._command
        held = command is None
        self._state, _, _, _, info = self._env.hold() if command is None else self._env.step(command)
        self._braked = False
        self._step += 1
        self._held += held
        self._commanded += not held
        if info["is_success"] and not self._success:
            self._success, self._success_at = True, self._commanded
        if self._timing.realtime:
            # Missed ticks are dropped, not caught up: a burst of steps would be faster than real time.
            late = now - self._due > self._timing.period_s
            self._due = now + self._timing.period_s if late else self._due + self._timing.period_s
        else:
            self._due = now + (self._timing.period_s if held else self._timing.timeout_s)
        self._publish(same_state=False)

    def run(self, stop: threading.Event) -> None:
        """Lets time pass until `stop`."""
        while not stop.is_set():
            with self._changed:
                delay = self.advance()
                if delay > 0:
                    self._changed.wait(min(delay, _LONGEST_NAP_S))

    def connect(self) -> Mapping[str, Handler]:
        """Handlers of a connection; all connections see the one arm."""
        hello: Message = {
            "spec": self.spec.to_dict(),
            "fingerprint": self.spec.fingerprint,
            "realtime": self._timing.realtime,
        }
        return {
            "hello": Handler({}, lambda: hello),
            "reset": Handler({"seed": int}, self.reset),
            "wait": Handler({"after": int, "within_s": float}, self.wait),
            "command": Handler(
                {"serial": int, "action": Array("float32", (self.spec.action_dim,))}, self.command
            ),
            "hold": Handler({"serial": int}, self.hold),
        }


def main(args: list[str] | None = None) -> int:
    """`python -m sim.plant --task lift --address SOCKET`: simulates until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser("sim.plant", description=main.__doc__)
    parser.add_argument("--task", required=True, help="name of a task")
    parser.add_argument("--address", required=True, help="socket path or 127.0.0.1:PORT")
    parser.add_argument("--lockstep", action="store_true", help="simulated time waits for commands")
    parser.add_argument("--timeout", type=float, default=Timing.timeout_s, help="that long, in seconds")
    options = parser.parse_args(args)
    stop = stop_on_signals()
    try:
        task = find_task(options.task)
        timing = Timing(1 / task.spec.fps, not options.lockstep, options.timeout)
        env = task.make()
        env.reset(seed=0)
        for _ in range(_WARM_UP_STEPS):  # compiles robosuite's numba code
            env.step(np.zeros(task.spec.action_dim, np.float32))
        if not hasattr(env, "hold"):
            raise BadInput("task", "one whose arm can brake", options.task)
        plant = Plant(cast("Arm", env), task.spec, timing)
        with Server(options.address, plant.connect):
            print("ready", flush=True)
            plant.run(stop)
        env.close()
    except BadInput as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
