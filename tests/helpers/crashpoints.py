"""Every point at which a save can be cut off: a child dies at its n-th change of a file, for every n."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import count

import torch

from robopolicy import checkpoint

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR
_KILLED = 9


def crash_points(save: Callable[[], object]) -> Iterator[int]:
    """Runs `save` again and again, each time one change further, and once to its end.

    Yields:
        How many changes were made, after each death, and last after the run that nothing cut off.
    """
    for changes in count():
        code = outcome(lambda n=changes: (_arm(n), save()))
        assert code in (0, _KILLED), f"the save failed by itself at change {changes}"
        yield changes
        if code == 0:
            return


def outcome(work: Callable[[], object]) -> int:
    """The exit code of a child that does `work`: 0, 1 if it raised, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(forked(work), 0)[1])


def forked(work: Callable[[], object]) -> int:
    """The number of a child that does `work` and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which do not work here
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)  # threads do not survive a fork
        work()
        code = 0
    finally:
        os._exit(code)


def _arm(left: int) -> None:
    """From now on this process dies before its change number `left`."""

    def change() -> None:
        nonlocal left
        if left == 0:
            os._exit(_KILLED)
        left -= 1

    def watch(event: str, args: tuple) -> None:
        if event in _CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & _WRITING):
            change()

    def sync(fd: int) -> None:
        change()
        fsync(fd)

    def torn(tensors: dict, path: os.PathLike, metadata: dict) -> None:
        """safetensors writes without telling Python: before it, in the middle of it, after it."""
        change()
        save_file(tensors, path, metadata=metadata)
        if left == 0:
            os.truncate(path, os.path.getsize(path) // 2)
        change()

    fsync, save_file = os.fsync, checkpoint.save_file
    os.fsync, checkpoint.save_file = sync, torn
    sys.addaudithook(watch)
