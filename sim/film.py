"""Pictures of a recorded episode, by replaying its actions: the same seed gives the same episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import gymnasium
import numpy as np

from robopolicy.errors import RoboPolicyError
from robopolicy.types import Episode
from sim.tasks import find_task


def film(task: str, episode: Episode, pictures: int = 8, size: int = 160) -> list[np.ndarray]:
    """Evenly spaced pictures of an episode, the first and last state included.

    Args:
        task: name of the task it was recorded in.
        episode: from the real simulator.
        pictures: how many.
        size: side of each, in pixels.

    Returns:
        (size, size, 3) uint8 arrays.

    Raises:
        RoboPolicyError: if the task has no pictures, nothing can render here, or the replay differs from the
            recording.
    """
    with filming(task, size) as replay:
        return replay(episode, np.linspace(0, episode.length, pictures).round().astype(int).tolist())


@contextmanager
def filming(task: str, size: int) -> Iterator[Callable[[Episode, Iterable[int]], list[np.ndarray]]]:
    """Something that gives the pictures of an episode after the steps that are wanted, 0 being its start.

    Args:
        task: name of the task that episodes were recorded in.
        size: side of each picture, in pixels.

    Raises:
        RoboPolicyError: as of `film`.
    """
    env = find_task(task).make(size)
    try:
        if env.render_mode is None:
            raise RoboPolicyError(f"film: {task} has no pictures")
        yield partial(_replay, env)
    finally:
        env.close()


def _replay(env: gymnasium.Env, episode: Episode, steps: Iterable[int]) -> list[np.ndarray]:
    wanted, (state, _) = set(steps), env.reset(seed=episode.seed)
    frames = [np.asarray(env.render())] if 0 in wanted else []
    for i, action in enumerate(episode.actions, 1):
        state, *_ = env.step(action)
        if i in wanted:
            frames.append(np.asarray(env.render()))
    if not np.array_equal(state, episode.states[-1]):
        raise RoboPolicyError(f"film: the replay of seed {episode.seed} ended in another state")
    return frames
