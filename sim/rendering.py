"""Pictures of a simulator, only where a picture is asked for: EGL or OSMesa, or a clear message."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import gymnasium
import numpy as np

from robopolicy.errors import BadInput, RoboPolicyError

# The camera that looks at the scene, which every environment with pictures has.
SCENE = "scene"

# Backend -> the Debian packages it needs.
_BACKENDS = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}
_PROBE = "import mujoco; mujoco.GLContext(16, 16).make_current()"
_PROBE_S = 60


@cache
def gl_backend() -> str | None:
    """The first off-screen backend that works here ("egl" or "osmesa"), or none.

    A library that loads may still find no device, so each candidate has to make a context, in a
    process of its own because MuJoCo decides once, when it is imported.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower()
    for name in [asked] if asked in _BACKENDS else _BACKENDS:
        env = {**os.environ, "MUJOCO_GL": name, "PYOPENGL_PLATFORM": name}
        probe = subprocess.run([sys.executable, "-c", _PROBE], env=env, capture_output=True, timeout=_PROBE_S)
        if probe.returncode == 0:
            return name
    return None


def require_rendering() -> None:
    """Selects a backend; to be called before MuJoCo is imported.

    Raises:
        RoboPolicyError: if none works, naming the packages to install, or if MuJoCo is there without it.
    """
    backend = gl_backend()
    if backend is None:
        packages = " or ".join(_BACKENDS.values())
        raise RoboPolicyError(f"rendering needs EGL or OSMesa: install {packages} (Debian's names)")
    if "mujoco" in sys.modules and os.environ.get("MUJOCO_GL") != backend:
        raise RoboPolicyError(f"rendering: MuJoCo was loaded without it; set MUJOCO_GL={backend} before")
    os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = backend


def picture(env: gymnasium.Env, camera: str = SCENE) -> np.ndarray:
    """(H, W, 3) uint8 what a camera of an environment shows; `render` is its camera of the scene.

    Raises:
        BadInput: if it has no such camera.
    """
    views = getattr(env, "views", (SCENE,))
    if camera not in views:
        raise BadInput("camera", f"one of {list(views)}", repr(camera))
    shown = env.render() if camera == SCENE else env.view(camera)  # type: ignore[attr-defined]
    return np.ascontiguousarray(shown)


class Renderer:
    """Renders a MuJoCo scene, for whatever thread asks; `require_rendering` comes first.

    Args:
        model: `mujoco.MjModel`.
        size: side of the square picture, in pixels.
        hidden: groups of shapes that are not drawn, such as those that only collide.
    """

    def __init__(self, model: Any, size: int, hidden: Sequence[int] = ()):
        import mujoco

        # A context of OpenGL belongs to one thread.
        self._thread = ThreadPoolExecutor(1, "render")
        try:
            self._renderer = self._thread.submit(mujoco.Renderer, model, size, size).result()
        except mujoco.FatalError as e:  # type: ignore[attr-defined]
            raise RoboPolicyError(f"rendering: {e}") from e
        self._option = mujoco.MjvOption()  # type: ignore[attr-defined]
        self._option.geomgroup[list(hidden)] = 0
        flags = mujoco.mjtRndFlag  # type: ignore[attr-defined]
        for flag in (flags.mjRND_SHADOW, flags.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0  # twice as fast, nearly the same picture

    def __call__(self, data: Any, camera: str) -> np.ndarray:
        """(size, size, 3) uint8 what a camera of the model shows."""
        return self._thread.submit(self._draw, data, camera).result()

    def _draw(self, data: Any, camera: str) -> np.ndarray:
        self._renderer.update_scene(data, camera, self._option)
        return self._renderer.render()

    def close(self) -> None:
        self._thread.submit(self._renderer.close).result()
        self._thread.shutdown()
