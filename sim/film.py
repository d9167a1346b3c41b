"""Pictures of a recorded episode, by replaying its actions: the same seed gives the same episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import gymnasium
import numpy as np

from robopolicy.errors import RoboPolicyError
from robopolicy.types import Episode
from sim.rendering import SCENE, picture
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
    steps = np.linspace(0, episode.length, pictures).round().astype(int).tolist()
    with filming(task, size) as replay:
        return replay(episode, steps)[SCENE]


@contextmanager
def filming(
    task: str, size: int, cameras: Sequence[str] = (SCENE,)
) -> Iterator[Callable[[Episode, Iterable[int]], dict[str, list[np.ndarray]]]]:
    """Something that gives the pictures of an episode after the steps that are wanted, 0 being its start.

    Args:
        task: name of the task that episodes were recorded in.
        size: side of each picture, in pixels.
        cameras: of the task's environment; the pictures are by camera.

    Raises:
        RoboPolicyError: as of `film`.
    """
    env = find_task(task).make(size)
    try:
        if env.render_mode is None:
            raise RoboPolicyError(f"film: {task} has no pictures")
        yield partial(_replay, env, cameras)
    finally:
        env.close()


def _replay(
    env: gymnasium.Env, cameras: Sequence[str], episode: Episode, steps: Iterable[int]
) -> dict[str, list[np.ndarray]]:
    wanted, frames = set(steps), {camera: [] for camera in cameras}

    def look(step: int) -> None:
        if step in wanted:
            for camera, seen in frames.items():
                seen.append(picture(env, camera))

    state, _ = env.reset(seed=episode.seed)
    look(0)
    for i, action in enumerate(episode.actions, 1):
        state, *_ = env.step(action)
        look(i)
    if not np.array_equal(state, episode.states[-1]):
        raise RoboPolicyError(f"film: the replay of seed {episode.seed} ended in another state")
    return frames
