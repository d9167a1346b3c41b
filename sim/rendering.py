"""Pictures of a simulator, only where a picture is asked for: EGL or OSMesa, or a clear message."""

from __future__ import annotations

import ctypes.util
import os
from typing import Any

import numpy as np

from robopolicy.errors import RoboPolicyError

# Backend -> the libraries it loads and the Debian packages that hold them.
_BACKENDS = {"egl": ("EGL", "libegl1 libgl1-mesa-dri"), "osmesa": ("OSMesa", "libosmesa6")}


def gl_backend() -> str | None:
    """The first usable off-screen backend ("egl" or "osmesa"), or none."""
    asked = os.environ.get("MUJOCO_GL", "").lower()
    names = [asked] if asked in _BACKENDS else list(_BACKENDS)
    return next((n for n in names if ctypes.util.find_library(_BACKENDS[n][0])), None)


class Renderer:
    """Renders a MuJoCo scene from its front camera.

    Args:
        model: `mujoco.MjModel`.
        size: side of the square picture, in pixels.
        camera: name of a camera of the model.

    Raises:
        RoboPolicyError: if no off-screen backend is installed, naming the packages to install.
    """

    def __init__(self, model: Any, size: int, camera: str = "frontview"):
        backend = gl_backend()
        if backend is None:
            packages = " or ".join(p for _, p in _BACKENDS.values())
            raise RoboPolicyError(f"rendering needs EGL or OSMesa: install {packages} (Debian names)")
        os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = backend
        import mujoco

        self._camera = camera
        self._renderer = mujoco.Renderer(model, size, size)
        option = mujoco.MjvOption()
        option.geomgroup[0] = 0  # collision shapes
        self._option = option
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0  # twice as fast, nearly the same picture

    def __call__(self, data: Any) -> np.ndarray:
        """(size, size, 3) uint8."""
        self._renderer.update_scene(data, self._camera, self._option)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()
