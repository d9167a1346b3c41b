"""Real and imagined episodes side by side, as a recording of rerun's viewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Generator

from robopolicy.report.viewer import rerun_file
from robopolicy.types import Episode
from world_models.diagnose import imagine
from world_models.state import StateWorldModel

# Of each outcome; more are not looked at one by one.
_EACH = 5


def rerun_recording(world: StateWorldModel, episodes: Sequence[Episode], seed: int, path: Path) -> None:
    """Writes some successes and failures, each beside what `world` imagines of its recorded actions.

    Each number of the state has both under one name; so has success: its probability, and the step at which
    the episode really succeeded.

    Args:
        world: frozen world model.
        episodes: real ones.
        seed: of the sampler's noise.
        path: a new file; by custom it ends in ".rrd".

    Raises:
        BadInput: if rerun is not there, or the file is.
    """
    chosen = [e for won in (True, False) for e in [x for x in episodes if x.success is won][:_EACH]]
    ended = [e.until_success() for e in chosen]
    generator = Generator().manual_seed(seed)
    states = imagine(world, lambda obs, a, noise: world.predict(obs, a, noise).states, ended, generator)
    chances = world.success_logit(states).sigmoid().numpy()
    with rerun_file(path, f"imagination-{seed}") as recording:
        import rerun as rr

        def draw(entity: str, first: int, values: np.ndarray) -> None:
            at = rr.TimeColumn("step", sequence=np.arange(first, first + len(values)))
            recording.send_columns(entity, [at], rr.Scalars.columns(scalars=values.astype(np.float64)))

        for episode, imagined, chance in zip(ended, states.numpy(), chances, strict=True):
            root = f"seed {episode.seed}, {'success' if episode.success else 'failure'}"
            for i, name in enumerate(world.spec.state_names):
                draw(f"{root}/{name}/real", 0, episode.states[:, i])
                draw(f"{root}/{name}/imagined", 1, imagined[: episode.length, i])
            real = np.zeros(episode.length)
            real[-1] = episode.success
            draw(f"{root}/success/real", 1, real)
            draw(f"{root}/success/imagined", 1, chance[: episode.length])
