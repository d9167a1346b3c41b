"""Processes end in order, end when told, and never outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from robopolicy.processes import ProcessDied, Processes, stop_on_signals

# Says when it is ready and, in a file, when it was asked to end.
_POLITE = """
import signal, sys, threading, time
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())
print("ready", flush=True)
stop.wait(30)
open(sys.argv[1], "w").write(str(time.monotonic()))
"""
_DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(30)
"""


def _until(condition) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _wait_ready(processes: Processes, name: str) -> None:
    _until(lambda: "ready" in processes.log(name).read_text())


@pytest.fixture
def processes(tmp_path):
    processes = Processes(tmp_path, os.environ)
    yield processes
    processes.stop(grace_s=0.1)


def test_stop_groups_end_one_after_the_other(processes, tmp_path):
    for name in "abc":
        processes.start(name, ["-c", _POLITE, str(tmp_path / name)])
    for name in "abc":
        _wait_ready(processes, name)
    assert processes.stop(["c"], ["a"]) == {"a": 0, "b": 0, "c": 0}
    ended = [float((tmp_path / name).read_text()) for name in "cab"]
    assert ended == sorted(ended)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_noticed_when_it_comes_in_between_the_steps_of_waiting(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = stop_on_signals()
        with stop._cond:  # as in the first step of stop.wait()
            signal.raise_signal(number)
        assert stop.wait(10)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_stop_deaf_process_is_killed(processes):
    processes.start("deaf", ["-c", _DEAF])
    _wait_ready(processes, "deaf")
    assert processes.stop(grace_s=0.2) == {"deaf": -signal.SIGKILL}


def test_require_alive_dead_process_named_with_the_end_of_its_log(processes):
    processes.start("brief", ["-c", "print('last words'); raise SystemExit(3)"])
    os.waitid(os.P_PID, processes.pid("brief"), os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessDied, match=r"brief ended with code 3:\n  last words"):
        processes.require_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux only")
def test_parent_killed_children_die_too(tmp_path):
    code = (
        "import os, pathlib, sys, time; from robopolicy.processes import Processes\n"
        "p = Processes(pathlib.Path(sys.argv[1]), os.environ)\n"
        "p.start('child', ['-c', 'import time; time.sleep(60)'])\n"
        "print(p.pid('child'), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    _until(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
