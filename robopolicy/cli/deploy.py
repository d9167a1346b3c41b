"""`robopolicy serve` and `deploy`: the policy behind a socket, and the arm over ROS 2."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from robopolicy.cli.candidates import foreseeing
from robopolicy.cli.common import Result, need, plain, say
from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from rich.table import Table

    from robopolicy.protocols import Policy, Steerer

_STYLES = {"RUNNING": "bold green", "ARMED": "cyan", "HOLD": "bold yellow", "FAULT": "bold red"}
# Of the gate's diagnostics.
_ROWS = {
    "states": {"per s": "state_per_s", "age, ms": "state_age_ms"},
    "chunks": {"per s": "chunk_per_s", "age, ms": "chunk_age_ms"},
    "commands": {"played": "played", "held": "held", "limited": "limited"},
    "state to command, ms": {"p50": "answer_ms.p50", "p99": "answer_ms.p99"},
    "late ticks, ms": {"p50": "period_error_ms.p50", "p99": "period_error_ms.p99"},
}


@dataclass(frozen=True)
class Serve:
    """Answer a robot's requests for actions at a local socket, until Ctrl-C; or say what an eye sees.

    This process knows torch and no ROS; the robot's nodes know ROS and no torch. If ROBOPOLICY_KEY is set,
    only who shows the same key is answered.

    Example: robopolicy serve --policy runs/policy --steerer runs/steerer --address /tmp/policy.sock
    Example: robopolicy serve --eye runs/eye --address /tmp/eye.sock

    Attributes:
        address: path of a socket, or 127.0.0.1:PORT.
        policy: saved policy.
        steerer: saved steerer of that policy.
        foresight: saved world model: plans begin where it says that the robot will be when they are there.
            For policies without memory and steerer.
        eye: saved eye instead, for ros_nodes.eye_node.
        threads: of torch.
    """

    address: str
    policy: Path | None = None
    steerer: Path | None = None
    foresight: Path | None = None
    eye: Path | None = None
    threads: int = 1


@dataclass(frozen=True)
class Deploy:
    """Drive an arm over ROS 2: starts policy server and nodes, runs episodes, stops in order.

    The arm is simulated, if its contract says how; a mock of it (--mock), to rehearse with; or real, its
    drivers running already: then each episode waits for Enter, and ends when someone calls recorder/success,
    at its horizon, or with Ctrl-C. Needs the extra "ros" (or a sourced ROS 2 Jazzy).

    Example: robopolicy deploy --policy runs/policy --steerer runs/steerer --robot panda_sim

    Attributes:
        policy: saved policy.
        steerer: saved steerer of that policy.
        foresight: saved world model: plans begin where it says that the robot will be when they are there.
            For policies without memory and steerer.
        robot: name or path of a robot contract.
        episodes: how many.
        seed: master seed.
        lockstep: simulated time waits for the policy.
        unproven: take a steerer that no real evaluation has promoted ("robopolicy promote").
        logs: folder for the logs of the processes.
        mock: rehearse with a mock of the arm, which goes where it is told.
        shadow: someone else drives the arm; what the policy would do is published under shadow/ and compared
            with what was done, if there is a record.
        record: new folder for a log of all messages (MCAP): "robopolicy replay" plays it again,
            "robopolicy convert" makes it episodes to learn from.
        out: folder of the result.
    """

    policy: Path
    steerer: Path | None = None
    foresight: Path | None = None
    robot: str = "panda_sim"
    episodes: int = 1
    seed: int = 0
    lockstep: bool = False
    unproven: bool = False
    logs: Path | None = None
    mock: bool = False
    shadow: bool = False
    record: Path | None = None
    out: Path = Path("runs/deploy")


@dataclass(frozen=True)
class Replay:
    """Play a deployment's log again, and say whether gate and policy would do the same, bit for bit.

    Needs no ROS. What differs first is named: a limit that was changed, a policy that is another.

    Example: robopolicy replay --log runs/log --policy runs/policy

    Attributes:
        log: what "robopolicy deploy --record" wrote.
        policy: the policy that was served; without it only the gate is asked.
        steerer: and its steerer.
        foresight: and the world model by which it planned ahead.
        page: HTML page to write: commands against their limits, what the gate did, how late chunks were.
        rerun: recording to write, the same and the states for rerun's viewer ("rerun FILE.rrd").
    """

    log: Path
    policy: Path | None = None
    steerer: Path | None = None
    foresight: Path | None = None
    page: Path | None = None
    rerun: Path | None = None


@dataclass(frozen=True)
class DraftContract:
    """Draft the contract of a robot from demonstrations on it, or from its URDF: topics, limits, deadlines.

    It is a beginning: the file says what has to be corrected before an arm is engaged. Or, of a contract that
    is there, who may say what on its topics, as a policy file for SROS2: only the gate may command the arm;
    or a layout for Foxglove.
    Next: robopolicy deploy --robot FILE.

    Example: robopolicy contract --dataset runs/demos --out my_arm.yaml
    Example: robopolicy contract --urdf my_arm.urdf --out my_arm.yaml

    Attributes:
        out: a new file.
        dataset: folders that "robopolicy collect" or "robopolicy convert" wrote.
        urdf: description of an arm behind ros2_control (macros resolved: xacro), instead of demonstrations.
        fps: with urdf, the rate of the policy in Hz.
        frame: of all points, with dataset.
        security: name or path of the contract that a policy file is wanted for, instead of a draft.
        foxglove: name or path of the contract that a layout to import in Foxglove is wanted for.
        namespace: of the nodes in them.
    """

    out: Path
    dataset: tuple[Path, ...] = ()
    urdf: Path | None = None
    fps: float = 20.0
    frame: str = "world"
    security: str = ""
    foxglove: str = ""
    namespace: str = "robopolicy"


def draft_contract(args: DraftContract) -> int:
    """Drafts a contract; see `DraftContract`."""
    if args.out.exists():
        raise BadInput("out", "a new file", f"{args.out} (exists)")
    kinds = ("dataset", "urdf", "security", "foxglove")
    wanted = [n for n in kinds if getattr(args, n)]
    if len(wanted) != 1:
        raise BadInput("contract", f"one of {kinds}", wanted or "none of them")
    if args.security:
        from ros_nodes.contract import Contract
        from ros_nodes.security import policy_xml

        text = policy_xml(Contract.load(args.security), args.namespace)
    elif args.foxglove:
        from ros_nodes.contract import Contract
        from ros_nodes.layouts import foxglove_layout

        text = json.dumps(foxglove_layout(Contract.load(args.foxglove), args.namespace), indent=1)
    elif args.dataset:
        text = _drafted(need("dataset", args.dataset), args.frame)
    else:
        assert args.urdf is not None
        text = _described(args.urdf, args.fps)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    say(f"{args.out}: read it before an arm is engaged")
    return 0


def _drafted(folders: list[Path], frame: str) -> str:
    from robopolicy.data.episodes import dataset_info, load_episodes
    from ros_nodes.draft import draft

    spec, _ = dataset_info(folders[0])
    for folder in folders[1:]:
        spec.require(dataset_info(folder)[0], str(folder))
    return draft(spec, load_episodes(folders), frame)


def _described(urdf: Path, fps: float) -> str:
    from ros_nodes.draft import draft_from_urdf

    try:
        return draft_from_urdf(urdf.read_text(), fps)
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput("urdf", "a readable URDF", e) from e


def replay(args: Replay) -> int:
    """Plays a log again; see `Replay`."""
    from ros_nodes.logs import read_log, replay_gate, replay_policy

    need("log", [args.log])
    log = read_log(args.log)
    if args.page is not None:
        say(f"{_drawn(args.log, args.page)}: open it in a browser")
    if args.rerun is not None:
        from ros_nodes.layouts import rerun_recording

        rerun_recording(log, args.rerun)
        say(f"{args.rerun}: open it with rerun")
    say(f"gate: {replay_gate(log)} calls answered as before")
    if args.policy is not None:
        from robopolicy.rollout import PriorSteerer
        from robopolicy.serve import PolicyService

        policy, steerer = _served(args.policy, args.steerer, args.foresight)
        service = PolicyService(policy, steerer or PriorSteerer(), 0)
        session = {n: h.answer for n, h in service.connect().items()}
        say(f"policy: {replay_policy(log, session)} chunks as before")
    return 0


def _drawn(folder: Path, page: Path) -> Path:
    from robopolicy.report.deployment import Deployed, deployment_page
    from ros_nodes.gate_log import timeline
    from ros_nodes.logs import commanded, read_log
    from ros_nodes.parse import stamp_to_ns

    log = read_log(folder)
    contract, began = log.contract, log.messages[0][1]
    times, commands = commanded(log)
    changes, counts = timeline(bytes(m.data) for m in log.of("gate/events"))
    late = [(at - stamp_to_ns(m.header.stamp)) * 1e-6 for t, at, m in log.messages if t == "policy/chunk"]
    low, high = contract.command_range
    first = changes[0][0] if changes else 0.0
    return deployment_page(
        Deployed(
            contract.robot,
            (times - began) * 1e-9,
            commands,
            contract.action_names,
            low,
            high,
            late,
            [(at - first, mode, reason) for at, mode, reason in changes],
            counts,
        ),
        page,
    )


def serve(args: Serve) -> int:
    """Serves until told to stop; see `Serve`."""
    import torch

    from robopolicy import serve as server
    from robopolicy.policies.proof import check_proof
    from robopolicy.processes import stop_on_signals

    told = args.address, stop_on_signals(), partial(print, "ready", flush=True)
    torch.set_num_threads(args.threads)
    if args.policy is not None and args.eye is None:
        policy, steerer = _served(args.policy, args.steerer, args.foresight)
        check_proof(policy, args.policy)
        server.serve(policy, steerer, *told)
    elif args.eye is not None and args.policy is None:
        from robopolicy.eye import load_eye

        server.serve_eye(load_eye(args.eye)[0], *told)
    else:
        raise BadInput("serve", "either --policy or --eye", f"{args.policy}, {args.eye}")
    return 0


def _served(policy: Path, steerer: Path | None, foresight: Path | None) -> tuple[Policy, Steerer | None]:
    from robopolicy.policies.load import load_policy
    from robopolicy.steering.load import load_steerer

    made = load_policy(policy)
    steers = load_steerer(steerer, made) if steerer else None
    return foreseeing(made, foresight, steers) if foresight else made, steers


def deploy(args: Deploy) -> Result:
    """Runs episodes over ROS 2; see `Deploy`. Runs again if asked again: it is about the arm."""
    from robopolicy.processes import stop_on_signals
    from robopolicy.progress import live
    from robopolicy.results import write_result
    from robopolicy.stats import wilson
    from robopolicy.steering.promotion import require_promotion
    from ros_nodes import deploy as ros

    need("policy", [args.policy])
    if args.steerer:
        need("steerer", [args.steerer])
        if not args.unproven:
            require_promotion(args.steerer)
    if args.foresight:
        need("foresight", [args.foresight])
        if args.steerer:
            raise BadInput("foresight", "none, with a steerer", args.foresight)
    own = ("out", "unproven")
    options = {f.name: getattr(args, f.name) for f in dataclasses.fields(args) if f.name not in own}
    with live() as show:
        options["on_look"] = lambda state, values: show(gate_table(state, values))
        report = ros.deploy(**options, stop=stop_on_signals(), on_episode=_say)
    success = wilson(report.successes, len(report.episodes)).to_dict()
    found = {"success": success, **report.to_dict()}
    if args.shadow and args.record:
        from ros_nodes.logs import read_log, shadow_errors

        found["shadow_errors"] = {n: e.tolist() for n, e in shadow_errors(read_log(args.record)).items()}
    config = {"args": plain(args), "settings": {}}
    return write_result(args.out, "deploy", {"config": config, **found})


def _say(episode) -> None:
    say(f"episode {episode.seed}: {episode.ended} after {episode.steps} steps")


def gate_table(state: str, values: Mapping[str, str]) -> Table:
    """What an operator watches while an arm is driven.

    Args:
        state: mode and reason of the gate, such as "HOLD:NO_CHUNK"; "" before it has said so.
        values: its diagnostics.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    style = _STYLES.get(state.partition(":")[0], "dim")
    table.add_row("gate", Text(state or "silent", style))
    for label, row in _ROWS.items():
        shown = [f"{name} {values[key]}" for name, key in row.items() if key in values]
        if shown:
            table.add_row(label, ", ".join(shown))
    refused = [f"{k.partition('.')[2]} {v}" for k, v in values.items() if k.startswith("refused.")]
    if refused:
        table.add_row("refused", ", ".join(refused))
    return table
