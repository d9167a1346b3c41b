"""An hour of deployment: does memory stay flat, is a hold ever missed?

    python -m benchmarks.deploy.soak [--minutes 60] [--hours 24]

The whole graph over DDS with a mock arm, for `minutes` of wall clock: episodes one after the other, and every
tenth time the policy server is killed in the middle of one. Beside it, in another process, a gate with an arm
on clocks that are only counted: `hours` of control in which sensors, heartbeats and chunks fail at random,
and each time the arm has to rest in time.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import psutil

from benchmarks.deploy.common import ROOT, Heard, mocked, save
from benchmarks.deploy.kill import WITHIN_S

SEED = 53
_NODES = ("gate", "policy", "mock_arm", "server")
_TICK_S = 0.01


def main() -> None:
    """Runs both and writes the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--hours", type=float, default=24.0)
    args = parser.parse_args()
    with ProcessPoolExecutor(1, get_context("spawn"), os.nice, (10,)) as beside:
        hours = beside.submit(counted, args.hours)
        found = {"wall": wall(args.minutes), "counted": hours.result()}
    save("soak", {"seed": SEED, **found})
    print(found)


def counted(hours: float) -> dict[str, float]:
    """Hours of the gate alone, as fast as it goes."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from timed_bench import BOUNDS, TimedBench, ramp

    from ros_nodes.safety import Mode

    rng, bench, process = np.random.default_rng(SEED), TimedBench(), psutil.Process()
    faults = late = 0
    silent_until = {"state": 0.0, "beat": 0.0, "chunk": 0.0}
    resting_by, memory, last = np.inf, [], None
    for tick in range(round(hours * 3600 / _TICK_S)):
        bench.let(_TICK_S)
        if rng.random() < 0.0005:
            which = ("state", "beat", "chunk")[rng.integers(3)]
            silent_until[which] = bench.now + rng.uniform(0.1, 3.0)
        if bench.now >= silent_until["state"]:
            bench.state()
        if bench.now >= silent_until["beat"]:
            bench.beat()
        decision = bench.tick()
        if decision.request is not None and bench.now >= silent_until["chunk"]:
            goal = rng.uniform(BOUNDS.low, BOUNDS.high) * [0.5, 0.5, 1e-5]
            bench.chunk(ramp(bench.arm, goal, 16))
        if bench.gate.mode is Mode.FAULT:
            faults += 1
            bench.gate.reset()
        elif bench.gate.mode is Mode.DISARMED:
            bench.gate.engage(bench.now)
        if decision.command is not None and last is not None:
            late += bool((np.abs(decision.command - last) > BOUNDS.speed * 2 * _TICK_S + 1e-9)[:2].any())
        last = decision.command if decision.command is not None else last
        # From the moment it is told to hold, the quickest stop and a tick.
        if bench.gate.mode is not Mode.HOLD:
            resting_by = np.inf
        elif resting_by == np.inf:
            resting_by = bench.now + bench.gate.seconds_to_rest() + 2 * _TICK_S
        elif bench.now > resting_by:
            late += not bench.gate.resting
        bench.commands.clear()
        if tick % 360_000 == 0:
            memory.append(process.memory_info().rss / 1e6)
            print(f"{tick * _TICK_S / 3600:.0f} h: {faults} faults, {memory[-1]:.0f} MB", flush=True)
    return {
        "hours": hours,
        "faults": faults,
        "missed_holds": late,
        "memory_grown_mb": memory[-1] - memory[min(1, len(memory) - 1)],
    }


def wall(minutes: float) -> dict[str, float]:
    """Minutes of the whole graph."""
    ends, memory, episodes, kills, missed = time.monotonic() + 60 * minutes, [], 0, 0, 0
    with mocked() as deployment:
        heard = Heard(deployment)
        watch = deployment.console._watch
        while time.monotonic() < ends:
            if episodes % 10 == 9:
                heard.begin(deployment, episodes)
                os.kill(deployment.processes.pid("server"), signal.SIGKILL)
                killed = time.monotonic()
                deployment.console._watch = lambda: None
                heard.spin(1.0)
                missed += heard.moved_until(killed) > WITHIN_S
                kills += 1
                deployment.restart_server()
                deployment.console._watch = watch
            else:
                deployment.episode(episodes)
            episodes += 1
            heard.commands.clear()
            sizes = {n: psutil.Process(deployment.processes.pid(n)).memory_info().rss / 1e6 for n in _NODES}
            memory.append(sizes)
            if episodes % 10 == 0:
                print(f"{episodes} episodes, {missed} missed, {sizes}", flush=True)
    # The server is a new one after each kill; what starts up has not grown until some episodes are over.
    settled = memory[min(len(memory) // 10, len(memory) - 1)]
    grown = {n: memory[-1][n] - settled[n] for n in _NODES if n != "server"}
    return {
        "minutes": minutes,
        "episodes": episodes,
        "kills": kills,
        "missed_holds": missed,
        **{f"{n}_grown_mb": g for n, g in grown.items()},
    }


if __name__ == "__main__":
    main()
