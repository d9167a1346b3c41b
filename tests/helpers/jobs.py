"""Jobs that workers do in the tests: here, so that other processes can import them."""

import os
import signal
from pathlib import Path

from robopolicy.errors import BadInput


class Powers:
    """The job n is n x n; the worker is told that it was prepared by what it leaves in `folder`."""

    def __init__(self, folder: Path, dies: frozenset[int] = frozenset(), always: bool = False):
        self.folder, self.dies, self.always = folder, dies, always
        (folder / f"prepared-{os.getpid()}").touch()

    def __call__(self, n: int) -> int:
        mark = self.folder / f"died-{n}"
        if n in self.dies and (self.always or not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if n < 0:
            raise BadInput("n", "a number that is not negative", n)
        (self.folder / f"worked-{os.getpid()}").touch()
        return n * n


def threads(_: int) -> int:
    import torch

    return torch.get_num_threads()


def asked_for_threads():
    return threads
