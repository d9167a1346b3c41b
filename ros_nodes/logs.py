"""Logs of deployments: read without ROS, played again through gate and policy, made into episodes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.typesys import Stores, get_typestore

from robopolicy.errors import BadInput
from robopolicy.spec import Spec
from robopolicy.types import Episode
from robopolicy.wire import decode
from ros_nodes.contract import Contract
from ros_nodes.gate_log import engaged, replay
from ros_nodes.parse import by_name, from_message, from_outlet, from_trajectory, stamp_to_ns

_CONTRACT = "/gate/contract"
# Of a served policy: the handlers of one session, by name.
Session = Mapping[str, Callable[..., Mapping[str, Any]]]


@dataclass(frozen=True)
class Log:
    """A recorded deployment.

    Attributes:
        contract: of the robot.
        spec: of the policy; None if it never said so.
        shadow: whether someone else drove the arm.
        messages: topic without namespace, nanoseconds at which it was recorded, message.
    """

    contract: Contract
    spec: Spec | None
    shadow: bool
    messages: list[tuple[str, int, Any]]

    def of(self, topic: str) -> list[Any]:
        """All messages of a topic."""
        return [m for t, _, m in self.messages if t == topic]


def read_log(folder: Path) -> Log:
    """Reads what `ros_nodes.recorder_node` wrote.

    Raises:
        BadInput: if it is no whole log, or one without a contract.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    try:
        with Reader(folder) as reader:
            ends = [c.topic for c in reader.connections if c.topic.endswith(_CONTRACT)]
            if len(ends) != 1:
                raise BadInput(str(folder), f"one topic {_CONTRACT[1:]}", ends)
            space = ends[0].removesuffix(_CONTRACT) + "/"
            messages: list[tuple[str, int, Any]] = [
                (c.topic.removeprefix(space), at, store.deserialize_cdr(data, c.msgtype))
                for c, at, data in reader.messages()
            ]
    except (ReaderError, OSError) as e:
        raise BadInput(str(folder), "a log of ros_nodes.recorder_node that was ended in order", e) from e
    told = [m.data for t, _, m in messages if t == _CONTRACT[1:]]
    if not told:
        raise BadInput(str(folder), "what the gate said its contract was", "nothing")
    said = json.loads(told[0])
    contract = Contract.parse(said["contract"], f"{folder}, contract")
    specs = [m.data for t, _, m in messages if t == "policy/spec"]
    spec = Spec.from_dict(json.loads(specs[-1])) if specs else None
    return Log(contract.lockstep() if said["lockstep"] else contract, spec, bool(said["shadow"]), messages)


def replay_gate(log: Log) -> int:
    """Plays the log through a new gate; how many calls were answered as before.

    Raises:
        BadInput: naming the first that was not.
    """
    return replay(log.contract.gate(log.shadow), [bytes(m.data) for m in log.of("gate/events")])


def replay_policy(log: Log, session: Session) -> int:
    """Asks a policy everything again; how many chunks were the same, bit for bit.

    Args:
        log: what it was asked.
        session: handlers of `robopolicy.serve.PolicyService.connect`, by name.

    Raises:
        BadInput: naming the first chunk that was another.
    """
    asked = [_question(m) for m in log.of("policy/asked")]
    begun: int | None = None
    for number, question in enumerate(asked):
        if question["step"] == 0 or begun != question["seed"]:
            begun = question["seed"]
            session["reset"](seed=begun)
        told = {k: v for k, v in question.items() if k not in ("kind", "stamp", "seed", "chunk")}
        answer = session["join" if "since" in told else "act"](**told)["chunk"]
        if not np.array_equal(np.asarray(answer, np.float64), question["chunk"]):
            wanted = "the chunk in the log"
            raise BadInput(f"policy, question {number}", wanted, np.asarray(answer).tolist())
    return len(asked)


def _question(message: Any) -> Mapping[str, Any]:
    """What the policy was asked and said: a frame of `robopolicy.wire`, after its four bytes of length."""
    return decode(bytes(message.data)[4:])


def _seen(contract: Contract, elements: Sequence[str]) -> Callable[[str, Any], tuple[int, np.ndarray] | None]:
    """Takes message after message; each time a state is whole, its stamp and (D,) numbers."""
    observer, streams = contract.observer(elements), {s.topic: s for s in contract.streams}

    def see(topic: str, message: Any) -> tuple[int, np.ndarray] | None:
        if topic not in streams:
            return None
        stamp = stamp_to_ns(message.header.stamp)
        state = observer.add(stamp, from_message(streams[topic], message, contract.frame))
        return None if state is None else (stamp, state)

    return see


def commanded(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """What the arm was told, in its own units.

    Returns:
        (N,) nanoseconds of the commands, and (N, A) what each said, actions in the order of the contract; NaN
        where an action has not been commanded yet, or where the arm was told to hold step by step.
    """
    contract = log.contract
    beside = "shadow/" if log.shadow else ""
    outlets = {beside + o.topic: o for o in contract.driven.outlets} if contract.driven else {}
    row, times, rows = np.full(len(contract.action_names), np.nan), [], []
    for topic, at, message in log.messages:
        if topic in outlets:
            row[list(outlets[topic].actions)] = from_outlet(outlets[topic], message)
        elif topic == "command":
            points = from_trajectory(message, contract.frame)
            row[:] = np.nan
            if len(points):
                row[:] = by_name(list(message.joint_names), contract.action_names, points[0])
        else:
            continue
        times.append(at)
        rows.append(row.copy())
    return np.array(times), np.array(rows).reshape(len(rows), len(row))


def observed(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """What was seen: (N,) stamps in nanoseconds, (N, D) states, elements in the order of the contract."""
    see = _seen(log.contract, log.contract.elements)
    found = [s for topic, _, message in log.messages if (s := see(topic, message)) is not None]
    states = np.array([s for _, s in found]).reshape(len(found), len(log.contract.elements))
    return np.array([at for at, _ in found], np.int64), states


def shadow_errors(log: Log) -> dict[str, np.ndarray]:
    """How far what a policy would have done is from what was done, by steps ahead.

    Returns:
        Of each position that is commanded, in units of the action: (K,) the mean distance between action k of
        a chunk and where the arm then was. Chunks whose time was not recorded are left out.

    Raises:
        BadInput: if nothing can be compared.
    """
    contract, spec = log.contract, log.spec
    driven = contract.driven
    if driven is None or spec is None:
        raise BadInput("log", "of an arm that is driven by time, with a policy", contract.robot)
    at, states = observed(log)
    period, misses = 1e9 / spec.fps, []
    measured = [(i, contract.elements.index(e)) for i, e in enumerate(driven.measured) if e]
    for message in log.of("policy/chunk"):
        rows = from_trajectory(message, contract.frame)
        when = stamp_to_ns(message.header.stamp) + period * np.arange(1, len(rows) + 1)
        if not len(rows) or not len(at) or when[-1] > at[-1]:
            continue
        order = [list(message.joint_names).index(n) for n in contract.action_names]
        near = [int(np.abs(at - t).argmin()) for t in when]
        si = states[near][:, [e for _, e in measured]]
        actions = [i for i, _ in measured]
        there = si / driven.per_si[actions] / driven.drive.scale[actions]
        misses.append(np.abs(rows[:, order][:, actions] - there))
    if not misses:
        raise BadInput("log", "a chunk whose whole time was recorded", "none")
    mean = np.mean(misses, 0)
    return {contract.action_names[i]: mean[:, k] for k, (i, _) in enumerate(measured)}


@dataclass
class _Run:
    """One engagement of the gate, as it is gathered.

    Messages of different topics are recorded in any order, so all runs share the states; their stamps say
    which are whose.
    """

    states: list[tuple[int, np.ndarray]]
    commands: list[tuple[int, np.ndarray]] = field(default_factory=list)
    achieved_at: int | None = None
    seed: int = 0


def to_episodes(log: Log) -> list[Episode]:
    """Each engagement as an episode: what the arm did, and what it was told to do.

    States and commands are those of the control steps, whatever the rates of topics and gate.

    Raises:
        BadInput: if the policy never said what its numbers mean, or a message is malformed.
    """
    spec, contract = log.spec, log.contract
    if spec is None:
        raise BadInput("log", "what the policy said its Spec was", "nothing")
    found = (_stepped if contract.driven is None else _timed)(contract, spec, _runs(log, spec))
    episodes = []
    for run, states, actions, stamps in found:
        achieved = np.array([run.achieved_at is not None and run.achieved_at <= s for s in stamps[1:]], bool)
        within = np.clip(actions, *spec.action_range).astype(np.float32)
        episodes.append(
            Episode.recorded(run.seed, states.astype(np.float32), within, achieved, spec.chunk, "robot")
        )
    return episodes


def _runs(log: Log, spec: Spec) -> list[_Run]:
    """What happened between engaging and disengaging, or a fault."""
    contract = log.contract
    outlets = {o.topic: o for o in contract.driven.outlets} if contract.driven else {}
    see = _seen(contract, spec.state_names)
    runs: list[_Run] = []
    states: list[tuple[int, np.ndarray]] = []
    asked: list[tuple[int, int]] = []
    achieved: list[int] = []
    run: _Run | None = None
    command = np.full(spec.action_dim, np.nan)
    for topic, at, message in log.messages:
        if topic == "gate/events":
            for said in engaged(bytes(message.data)):
                if isinstance(said, bool):
                    run = _Run(states) if said else None
                    runs += [run] if run is not None else []
                elif run is not None and contract.driven is None:
                    run.commands.append((said[0], _told(contract, spec, said[1])))
        elif topic == "policy/asked":
            question = _question(message)
            if "stamp" not in question:
                raise BadInput("log", "questions with the stamp of their state", "one of an earlier version")
            asked.append((question["stamp"], question["seed"]))
        elif topic == "success":
            achieved.append(stamp_to_ns(message.stamp))
        elif (state := see(topic, message)) is not None:
            states.append(state)
        elif run is not None and topic in outlets:
            outlet = outlets[topic]
            for index, value in zip(outlet.actions, from_outlet(outlet, message), strict=True):
                command[spec.action_names.index(contract.action_names[index])] = value
            run.commands.append((at, command.copy()))
    runs = [run for run in runs if run.commands]
    for run, end in zip(runs, [*(r.commands[0][0] for r in runs[1:]), math.inf], strict=True):
        begin = run.commands[0][0]
        run.seed = max(((stamp, seed) for stamp, seed in asked if stamp <= begin), default=(0, 0))[1]
        run.achieved_at = min((stamp for stamp in achieved if begin < stamp < end), default=None)
    return runs


def _told(contract: Contract, spec: Spec, command: Sequence[float] | None) -> np.ndarray:
    """(A,) what the gate told an arm that is driven step by step; None is hold."""
    assert contract.limits is not None
    values = contract.limits.hold if command is None else np.array(command)
    return by_name(contract.limits.names, spec.action_names, values)


_Found = tuple[_Run, np.ndarray, np.ndarray, Sequence[int]]


def _stepped(contract: Contract, spec: Spec, runs: Sequence[_Run]) -> list[_Found]:
    """Each state with the command that answered it, and the state after the last."""
    found = []
    for run in runs:
        # A state is answered once: should it last, it is held, and the arm has already moved.
        answers, at = dict(reversed(run.commands)), [s for s, _ in run.states]
        rows = [i for i, s in enumerate(at[:-1]) if s in answers]
        if rows:
            first, *others = range(rows[0], rows[-1] + 1)
            # An arm at rest repeats its state until the first command has reached it.
            moved = next(
                (i for i in others if at[i] in answers or any(run.states[i][1] != run.states[first][1])),
                first,
            )
            rows = [first, *(i for i in others if i >= moved)]
            actions = [answers.get(at[i], _told(contract, spec, None)) for i in rows]
            states = [run.states[i][1] for i in [*rows, rows[-1] + 1]]
            stamps = [at[i] for i in [*rows, rows[-1] + 1]]
            found.append((run, np.stack(states), np.stack(actions), stamps))
    return found


def _timed(contract: Contract, spec: Spec, runs: Sequence[_Run]) -> list[_Found]:
    """States one control step apart, each with what was commanded until the next."""
    assert contract.driven is not None
    order = [contract.action_names.index(n) for n in spec.action_names]
    scale, paced = contract.driven.drive.scale[order], contract.driven.drive.bounds.paced[order]
    period, found = round(1e9 / spec.fps), []
    for run in runs:
        whole = [(t, c) for t, c in run.commands if np.isfinite(c).all()]
        if not whole or not run.states:
            continue
        told, at = np.array([t for t, _ in whole]), np.array([s for s, _ in run.states])
        ticks = np.arange(max(told[0], at[0]), min(told[-1], at[-1]) + 1, period)
        rows, actions, stamps = [], [], []
        for tick in ticks:
            i = int(np.abs(at - tick).argmin())
            rows.append(run.states[i][1])
            stamps.append(int(at[i]))
            during = [c for t, c in whole if tick < t <= tick + period]
            last = during[-1] if during else whole[max(int(np.searchsorted(told, tick, "right")) - 1, 0)][1]
            mean = np.mean(during, 0) if during else last
            actions.append(np.where(paced, mean, last) / scale)
        if len(rows) > 1:
            found.append((run, np.stack(rows), np.stack(actions[:-1]), stamps))
    return found
