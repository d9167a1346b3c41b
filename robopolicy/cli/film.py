"""The last stage of the demo: one episode of base and steered policy to look at, on a seed of its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from robopolicy.cli.common import simulator

if TYPE_CHECKING:
    import numpy as np

    from robopolicy.protocols import ChunkEnv

_CANDIDATES = 6
# Of each picture on the page, at least.
_SIDE, _PICTURES = 160, 8


def film(out: Path, task: str, policy: Path, steerer: Path, world: Path, seed: int) -> None:
    """Writes `out/episodes.json`: base and steered on the same seed, and the steered one imagined.

    Of a few seeds kept for this, the first on which steering made the difference is taken, the very
    first if there is none.
    """
    import numpy as np

    from robopolicy.checkpoint import write_json
    from robopolicy.eye import EYE, drawn, load_eye
    from robopolicy.policies.load import load_policy
    from robopolicy.rollout import PriorSteerer, rollout
    from robopolicy.seeding import episode_seed
    from robopolicy.steering.load import load_steerer
    from sim.film import filming
    from world_models.load import imagination, load_world
    from world_models.pixels.seen import SeenImagination, SeenWorld

    frozen = load_policy(policy)
    steered = load_steerer(steerer, frozen)
    seeds = [episode_seed(seed, "film", i) for i in range(_CANDIDATES)]
    with simulator(task, 2) as env:
        before = rollout(env, frozen, PriorSteerer(), seeds)
        after = rollout(env, frozen, steered, seeds)
    pairs = list(zip(before, after, strict=True))
    base, better = next((p for p in pairs if p[1].success > p[0].success), pairs[0])
    model = load_world(world)
    start = np.repeat(better.states[:1], frozen.spec.obs_steps, 0)
    if isinstance(model, SeenWorld):
        names = [c.name for c in model.cameras]
        with filming(task, model.cameras[0].height, names) as replay:
            first = {name: frames[0] for name, frames in replay(better, (0,)).items()}
        start = model.start(better.states[0], first)
    env, imagined = imagination(model, start[None], 1), []
    if isinstance(env, SeenImagination):
        env.watch = imagined.extend
    dreamt = rollout(cast("ChunkEnv", env), frozen, steered, [better.seed])[0]
    if not imagined and (Path(task) / EYE).is_file():
        imagined = drawn(load_eye(Path(task))[0], dreamt.states[:, frozen.spec.proprio_dim :])
    spec, n = frozen.spec, frozen.spec.numbers_dim
    numbers = replace(spec, objects=tuple(f for f in spec.objects if not f.height))
    shown: dict[str, Any] = {"spec": numbers.to_dict()}
    for name, episode in {"base": base, "steered": better, "imagined": dreamt}.items():
        shown[name] = {
            "seed": episode.seed,
            "success": episode.success,
            "states": episode.states[:, :n].tolist(),
            "doubt": episode.doubt.tolist(),
        }
    for name, episode in {"base": base, "steered": better}.items():
        shown[name] |= _frames(task, episode)
    if imagined:
        evenly = np.linspace(0, len(imagined) - 1, _PICTURES).astype(int)
        shown["imagined"] |= _encoded(imagined[i] for i in evenly)
    write_json(out / "episodes.json", shown)


def _frames(task: str, episode: Any) -> dict[str, list[str]]:
    """Pictures as base64 PNG; none where nothing can render, the report then draws the states."""
    from robopolicy.errors import RoboPolicyError
    from sim.film import film as pictures

    try:
        frames = pictures(task, episode)
    except RoboPolicyError:
        return {}
    return _encoded(frames)


def _encoded(frames: Iterable[np.ndarray]) -> dict[str, list[str]]:
    """Small pictures are enlarged pixel by pixel."""
    from PIL import Image

    encoded = []
    for frame in frames:
        buffer, times = io.BytesIO(), -(-_SIDE // frame.shape[0])
        Image.fromarray(frame.repeat(times, 0).repeat(times, 1)).save(buffer, "PNG", optimize=True)
        encoded.append(base64.b64encode(buffer.getvalue()).decode())
    return {"frames": encoded}
