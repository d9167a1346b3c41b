"""Where jobs are done: in this process, in several of this machine, or by Ray on one machine or many.

What comes out depends on the job alone: each is done by one thread, and whoever does it was prepared in the
same way. So neither how many workers there are, nor where, nor that one of them died changes a result.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, forkserver, get_context
from typing import Any, Literal

from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.processes import die_with_parent

Backend = Literal["local", "ray"]
"""Processes of this machine, or what a Ray cluster has (RAY_ADDRESS; without one, Ray of this machine)."""

# So often the job of a worker that died is given to another.
RETRIES = 3
# Episodes are small; Ray would take a third of the memory.
_OBJECT_STORE = 256 * 2**20

# Takes longest to import and is what nearly every worker needs. Local workers are forked from a process that
# has imported it and done nothing else, so that no thread or lock is forked with them.
_IMPORTED = ["robopolicy.policies.load"]
_LOCAL = get_context("forkserver")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

type Make[J, R] = Callable[[], Callable[[J], R]]
type Run[J, R] = Callable[[Sequence[J]], Iterator[tuple[int, R]]]


@contextmanager
def workers[J, R](make: Make[J, R], backend: Backend, count: int) -> Iterator[Run[J, R]]:
    """Starts workers, and ends them with the block.

    Args:
        make: prepares a worker: loads what it needs and returns what does one job. It and the jobs are sent
            to other processes, so it is a function or class of a module, or `functools.partial` of one.
        backend: where they work.
        count: how many; one local worker is this process.

    Yields:
        A function of jobs that yields (index of the job, its result) as they are done.

    Raises:
        BadInput: if Ray is wanted and is not installed.
        RoboPolicyError: from that function, if workers die again and again. What a job raises, it raises.
    """
    if backend == "ray":
        with _ray(count) as remote:
            yield partial(_scattered, partial(remote, uuid.uuid4().hex, make), count)
    elif count == 1:
        yield partial(_here, make, [])
    else:
        get_ready(backend, count)
        pool = _Pool(count)
        try:
            yield partial(pool.run, make)
        finally:
            pool.end()


def get_ready(backend: Backend, count: int) -> None:
    """Begins to import what workers need while this process does the same; `workers` does not need it."""
    if backend == "local" and count > 1:
        environment = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        try:
            _LOCAL.set_forkserver_preload(_IMPORTED)
            forkserver.ensure_running()
        finally:
            for name, value in environment.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


# --- one worker

_prepared: dict[str, Callable[[Any], Any]] = {}


def _do[J, R](key: str, make: Make[J, R], job: J) -> R:
    """Does one job in a worker, which is prepared at its first; `key` tells one pool from the next."""
    if key not in _prepared:
        _alone()
        _prepared[key] = make()
    return _prepared[key](job)


def _alone() -> None:
    """One thread: more would share cores with other workers, and sum in another order."""
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    logging.getLogger("lerobot").setLevel(logging.ERROR)


# --- in this process


def _here[J, R](make: Make[J, R], made: list[Callable[[J], R]], jobs: Sequence[J]) -> Iterator[tuple[int, R]]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if not made:
            made.append(make())
        for i, job in enumerate(jobs):
            yield i, made[0](job)
    finally:
        torch.set_num_threads(threads)


# --- in processes of this machine


class _Pool:
    """Processes that are replaced if one of them dies."""

    def __init__(self, count: int):
        self._count, self._key, self._others = count, uuid.uuid4().hex, set(active_children())
        self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._count, _LOCAL, _begin)

    def run[J, R](self, make: Make[J, R], jobs: Sequence[J]) -> Iterator[tuple[int, R]]:
        """Does the jobs; those that were lost with a worker once more."""
        left, deaths = dict(enumerate(jobs)), 0
        while left:
            todo = {self._pool.submit(_do, self._key, make, job): i for i, job in left.items()}
            try:
                for future in as_completed(todo):
                    result = future.result()
                    del left[todo[future]]
                    yield todo[future], result
            except BrokenProcessPool as e:
                deaths += 1
                if deaths > RETRIES:
                    raise RoboPolicyError(f"workers died {deaths} times, out of memory perhaps: {e}") from e
                self.end()
                self._pool = self._started()

    def end(self) -> None:
        """Ends the workers at once, whatever they are at."""
        # First the workers: a pool that is broken holds its lock until they are gone, and may have forgotten
        # to end one that was only just starting.
        for child in set(active_children()) - self._others:
            child.kill()
            child.join()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """A worker ends with who started it, and leaves Ctrl-C to them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a library that was imported may have taken it
    die_with_parent()


# --- by Ray


@contextmanager
def _ray(count: int) -> Iterator[Callable[..., Any]]:
    """What gives a job to a cluster: the one there is, or one of this machine for this block."""
    try:
        import ray
    except ImportError:
        wanted = 'local, or "pip install robopolicy[ray]"'
        raise BadInput("backend", wanted, "ray, which is not installed") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if connected := not ray.is_initialized():
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError:
            own = {"num_cpus": count, "object_store_memory": _OBJECT_STORE, "include_dashboard": False}
            ray.init(address="local", **own, **quiet)
    try:
        # Workers find the modules that this process finds, such as those of tasks of the user's own.
        paths = os.pathsep.join(p or os.getcwd() for p in sys.path)
        env = {"PYTHONPATH": paths, **dict.fromkeys(_THREADS, "1")}
        task = ray.remote(num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": env})
        yield task(_do).remote
    finally:
        if connected:
            ray.shutdown()


def _scattered[J](remote: Callable[[J], Any], count: int, jobs: Sequence[J]) -> Iterator[tuple[int, Any]]:
    """At most `count` jobs at a time; a cluster with fewer cores does as many as it can."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    todo, running = deque(enumerate(jobs)), {}
    while todo or running:
        while todo and len(running) < count:
            i, job = todo.popleft()
            running[remote(job)] = i
        done = ray.wait(list(running))[0][0]
        try:
            result = ray.get(done)
        except RayTaskError as e:
            raise e.cause from e
        except RayError as e:
            raise RoboPolicyError(f"Ray gave up a job after {RETRIES} retries: {e}") from e
        yield running.pop(done), result
