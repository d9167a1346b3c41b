"""Pictures where they are asked for, a clear message where there can be none."""

import pytest
from fresh import fresh_python

from robopolicy.errors import RoboPolicyError
from sim import rendering

FILM = """
import numpy as np
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.steering.noise import RandomPolicy
from sim.film import film
from sim.tasks import LIFT
from sim.vector import SimVectorEnv

if __name__ == "__main__":
    env = SimVectorEnv("lift", 1)
    episode = rollout(env, RandomPolicy(LIFT), PriorSteerer(), [5])[0]
    env.close(terminate=True)
    frames = film("lift", episode, pictures=3, size=32)
    assert [f.shape for f in frames] == [(32, 32, 3)] * 3
    assert all(f.std() > 1 for f in frames)
    assert not np.array_equal(frames[0], frames[-1])
"""


def test_modules_of_the_simulator_leave_mujoco_for_later():
    done = fresh_python("-c", "import sim.robosuite_env, sim.film, sys; sys.exit('mujoco' in sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_film_of_an_episode_shows_its_pictures(tmp_path):
    if rendering.gl_backend() is None:
        pytest.skip("neither EGL nor OSMesa works here")
    (tmp_path / "film.py").write_text(FILM)
    done = fresh_python(str(tmp_path / "film.py"))
    assert done.returncode == 0, done.stderr[-2000:]


def test_rendering_without_a_backend_names_the_packages(monkeypatch):
    monkeypatch.setattr(rendering, "gl_backend", lambda: None)
    with pytest.raises(RoboPolicyError, match="libegl1"):
        rendering.require_rendering()


def test_rendering_when_mujoco_is_there_without_it_says_what_to_do():
    if rendering.gl_backend() is None:
        pytest.skip("neither EGL nor OSMesa works here")
    late = "import mujoco; from sim.rendering import require_rendering; require_rendering()"
    done = fresh_python("-c", f"import os; os.environ.pop('MUJOCO_GL', None); {late}")
    assert "set MUJOCO_GL=" in done.stderr
