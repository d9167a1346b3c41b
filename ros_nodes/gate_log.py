"""Every call of a gate and what it answered, so that the same calls can be made again. Pure.

A gate is a function of its inputs, clocks included, so a log of the calls is a recording of all it ever
knew: played again, each answer has to be the same, bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgpack
import numpy as np

from robopolicy.errors import BadInput
from ros_nodes.safety import Decision, Gate, Mode, Reason

# What an argument was before it was made plain.
_ARRAYS = {"state": (3, 5), "chunk": (4,)}
_REASONS = {"stop": (0,), "refuse": (0,)}
_OPERATORS = {"engage", "disengage", "stop", "reset"}
_CALLS = _OPERATORS | {"state", "camera", "chunk", "heartbeat", "policy_lost", "alone", "refuse", "tick"}
# While nobody listens, about a minute is kept.
_KEPT = 20_000


class GateLog:
    """Calls a gate and writes it down.

    Args:
        gate: the gate.
    """

    def __init__(self, gate: Gate):
        self.gate = gate
        self._calls: list[list[Any]] = []
        self._number = 0

    def call(self, name: str, *args: Any) -> Any:
        """Calls a method of the gate; its answer."""
        answer = getattr(self.gate, name)(*args)
        self._calls.append([self._number, name, [_plain(a) for a in args], _plain(answer)])
        self._number += 1
        if len(self._calls) > _KEPT:
            del self._calls[: _KEPT // 2]
        return answer

    def take(self) -> bytes:
        """What was called since the last time, as msgpack."""
        calls, self._calls = self._calls, []
        return msgpack.packb(calls)  # type: ignore[return-value]


def replay(gate: Gate, batches: Iterable[bytes]) -> int:
    """Makes the calls of a log again; how many there were.

    Args:
        gate: a new one, of the contract in the log.
        batches: what `GateLog.take` returned, all of it in order.

    Raises:
        BadInput: naming the first call that is missing, malformed or answered differently.
    """
    number = 0
    for batch in batches:
        for entry in _calls(batch):
            where = f"gate log, call {number}"
            if entry[0] != number:
                raise BadInput(where, "a whole log from the start of the gate", f"call {entry[0]}")
            _, name, plain, answer = entry
            args = [
                np.array(a, np.float64)
                if i in _ARRAYS.get(name, ())
                else Reason(a)
                if i in _REASONS.get(name, ())
                else a
                for i, a in enumerate(plain)
            ]
            now = _plain(getattr(gate, name)(*args))
            # As bytes, so that numbers which are no numbers are equal to themselves.
            if msgpack.packb(now) != msgpack.packb(answer):
                raise BadInput(f"{where}, {name}", answer, now)
            number += 1
    return number


def engaged(batch: bytes) -> list[bool | tuple[int, list[float] | None]]:
    """What a batch says of the arm, in order.

    Returns:
        True when it becomes the policy's and False while it is not; in between the stamp of each state that
        was answered, with the command or, for hold, None.
    """
    said: list[bool | tuple[int, list[float] | None]] = []
    for _, name, _, answer in _calls(batch):
        if name == "engage" and answer == Reason.NONE:
            said.append(True)
        elif name in _OPERATORS or (name == "tick" and answer[0] in (Mode.DISARMED, Mode.FAULT)):
            said.append(False)
        elif name == "tick" and (answer[2] is not None or answer[3]):
            said.append((answer[4], answer[2]))
    return said


def timeline(batches: Iterable[bytes]) -> tuple[list[tuple[float, str, str]], dict[str, int]]:
    """When mode or reason changed (steady seconds, mode, reason); how often what was decided or refused."""
    changes: list[tuple[float, str, str]] = []
    counts: Counter[str] = Counter()
    for batch in batches:
        for _, name, args, answer in _calls(batch):
            if name == "tick":
                mode, reason, command, hold, *_ = answer
                reason = "" if reason in (Reason.NONE, Reason.LIMITED) else reason
                if not changes or changes[-1][1:] != (mode, reason):
                    changes.append((args[0], mode, reason))
                counts["commands"] += command is not None
                counts["holds"] += bool(hold)
                counts["commands that a limit changed"] += bool(answer[6])
            elif name in ("state", "chunk", "camera") and answer != Reason.NONE:
                counts[f"{name} refused: {answer}"] += 1
    return changes, dict(counts)


def _calls(batch: bytes) -> list[Any]:
    try:
        entries = msgpack.unpackb(batch)
    except (ValueError, msgpack.UnpackException) as e:
        raise BadInput("gate log", "msgpack", e) from e
    for entry in entries if isinstance(entries, list) else [entries]:
        whole = isinstance(entry, list) and len(entry) == 4 and isinstance(entry[2], list)
        if not whole or entry[1] not in _CALLS:
            raise BadInput("gate log", "number, call, arguments and answer", entry)
    return entries


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Decision):
        fields = (value.mode, value.reason, value.command, value.hold)
        return [_plain(x) for x in (*fields, value.answers, value.request, value.limited)]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return value
