"""A real arm is engaged when someone at the terminal says so, and not otherwise."""

from __future__ import annotations

import os
import threading

import pytest
from rich.console import Console

from robopolicy.cli.deploy import gate_table
from robopolicy.errors import BadInput, Interrupted
from ros_nodes.deploy import _wait_for_enter


@pytest.fixture
def keyboard(monkeypatch):
    reads, writes = os.pipe()
    with os.fdopen(reads) as terminal, os.fdopen(writes, "w") as hand:
        monkeypatch.setattr("sys.stdin", terminal)
        yield hand


def test_operator_presses_enter_and_is_told_what_begins(keyboard, capsys):
    print(file=keyboard, flush=True)
    _wait_for_enter(False, threading.Event(), 0)
    assert "emergency stop" in capsys.readouterr().err


def test_operator_interrupts_nothing_is_engaged(keyboard):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        _wait_for_enter(False, stop, 0)


def test_operator_is_not_there_nothing_is_engaged(keyboard):
    keyboard.close()
    with pytest.raises(BadInput, match="Enter"):
        _wait_for_enter(True, threading.Event(), 0)


def test_operator_sees_state_reason_ages_and_what_was_refused():
    console = Console(width=100)
    values = {
        "mode": "HOLD",
        "state_per_s": "20",
        "state_age_ms": "31",
        "played": "7",
        "refused.CHUNK_FAR": "3",
    }
    with console.capture() as shown:
        console.print(gate_table("HOLD:NO_CHUNK", values))
    for part in ("HOLD:NO_CHUNK", "per s 20", "age, ms 31", "played 7", "CHUNK_FAR 3"):
        assert part in shown.get()
    assert "chunks" not in shown.get()
    with console.capture() as shown:
        console.print(gate_table("", {}))
    assert shown.get().split() == ["gate", "silent"]
