"""Processes that start together, are watched together and never outlive whoever started them."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from robopolicy.errors import BadInput, RoboPolicyError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_LAST_LINES = 15


class ProcessDied(RoboPolicyError):
    """A process that had to stay alive ended; the message holds the end of its log."""


def leads() -> bool:
    """Whether this process is alone, or the one of those that share a training run which writes and talks."""
    return os.environ.get("RANK", "0") == "0"


def count() -> int:
    """How many processes share a training run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: whom the signal interrupts may be about to wait for the event, and hold its lock.
        signal.signal(number, lambda *_: threading.Thread(target=stop.set).start())
    return stop


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Sees to it that no other process of this machine writes into `folder` meanwhile.

    The lock is a file elsewhere, as nothing may be written into a folder that is refused, and it is gone
    with whoever holds it, killed or not.

    Raises:
        BadInput: naming the process that writes there.
    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"robopolicy-{os.getuid()}-{name}.lock"
    lock = _locked(path, folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path, folder: Path) -> int:
    """The lock file `path` of `folder`, opened, locked and with the number of this process in it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode()
            os.close(lock)
            got = f"{folder} (process {holder} writes there)"
            raise BadInput("out", "a folder that nobody else writes into", got) from None
        if os.fstat(lock).st_nlink:
            os.truncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
            return lock
        os.close(lock)  # whoever held it deleted it after it was opened here


class Processes:
    """Named child processes of this Python.

    Args:
        logs: folder for one log file per process.
        env: environment variables of the children.
    """

    def __init__(self, logs: Path, env: Mapping[str, str]):
        self._logs, self._env = logs, dict(env)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str]) -> None:
        """Starts Python with the arguments `command` as `name`."""
        with open(self.log(name), "wb") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                # Ctrl-C goes to the supervisor alone, which stops the others in order.
                start_new_session=True,
                # Between fork and exec it makes one system call and takes no lock.
                preexec_fn=die_with_parent,
            )

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int:
        return self._children[name].pid

    def require_alive(self) -> None:
        """Raises ProcessDied if any process has ended."""
        for name, child in self._children.items():
            if child.poll() is not None:
                lines = self.log(name).read_text(errors="replace").splitlines()[-_LAST_LINES:]
                text = "\n  ".join(lines)
                raise ProcessDied(f"{name} ended with code {child.returncode}:\n  {text}")

    def stop(self, *groups: Sequence[str], grace_s: float = 3.0) -> dict[str, int]:
        """Ends all processes: SIGTERM, then SIGKILL after `grace_s`.

        Args:
            groups: names that are ended together; each group once the one before has ended, the processes
                in no group last.
            grace_s: how long a group may take to end by itself.

        Returns:
            Exit code by name (negative: killed by that signal).
        """
        named = {name for group in groups for name in group}
        for group in (*groups, [n for n in self._children if n not in named]):
            children = [self._children[n] for n in group if n in self._children]
            for child in children:
                child.terminate()
            grace = threading.Timer(grace_s, lambda stuck=children: [c.kill() for c in stuck])
            grace.start()
            for child in children:
                child.wait()
            grace.cancel()
        return {name: child.returncode for name, child in self._children.items()}


def die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
