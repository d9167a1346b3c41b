"""Pictures of a recorded episode, by replaying its actions: the same seed gives the same episode."""

from __future__ import annotations

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
    env = find_task(task).make(size)
    if env.render_mode is None:
        env.close()
        raise RoboPolicyError(f"film: {task} has no pictures")
    try:
        state, _ = env.reset(seed=episode.seed)
        wanted = set(np.linspace(0, episode.length, pictures).round().astype(int).tolist())
        frames = [np.asarray(env.render())]
        for i, action in enumerate(episode.actions, 1):
            state, *_ = env.step(action)
            if i in wanted:
                frames.append(np.asarray(env.render()))
    finally:
        env.close()
    if not np.array_equal(state, episode.states[-1]):
        raise RoboPolicyError(f"film: the replay of seed {episode.seed} ended in another state")
    return frames
