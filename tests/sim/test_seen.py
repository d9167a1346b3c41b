"""A simulator as an eye sees it, and the whole chain through an eye on a real one."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from fresh import fresh_python
from tiny import tiny_spec

from robopolicy.checkpoint import read_json, save_tensors, seal, write_json
from robopolicy.data.episodes import load_episodes
from robopolicy.errors import BadInput
from robopolicy.nets.eye import EYE_PRESETS, Eye
from robopolicy.spec import Camera
from robopolicy.train import fit, seeded_init
from sim.rendering import gl_backend, picture
from sim.seen import BrakingSeenEnv, SeenEnv, seen
from sim.tasks import find_task
from world_models.pixels.config import PixelConfig
from world_models.pixels.learners import DenoiserLearner
from world_models.pixels.model import PixelWorldModel
from world_models.pixels.quality import psnr
from world_models.pixels.train import fit_statistics
from world_models.pixels.windows import PixelWindows

CAMERA = Camera("scene", 16, 16)
BY_HEART = PixelConfig(members=1, channels=(16, 32), layers=1, steps=300, batch_size=8, temperature=0.0)


class Coloured(gymnasium.Env):
    """Shows a picture of one colour, which changes with every step."""

    def __init__(self, spec):
        self.spec, self.action_space = spec, gymnasium.spaces.Box(*spec.action_range)

    def reset(self, *, seed=None, options=None):
        self.shade = 10 * (seed or 0)
        return self._state(), {}

    def step(self, action):
        self.shade += 1
        return self._state(), 0.0, False, False, {"is_success": False}

    def _state(self):
        return np.full(self.spec.state_dim, self.shade / 100, np.float32)

    def render(self):
        rows = np.arange(16, dtype=np.uint8)[:, None, None]
        return np.broadcast_to(rows * 3 + self.shade, (16, 16, 3)).astype(np.uint8)


def test_seen_env_shows_the_robot_and_what_the_eye_sees_and_nothing_else():
    spec, eye = tiny_spec(), Eye((CAMERA,), EYE_PRESETS["tiny"]).eval()
    shown = replace(spec, objects=eye.fields)
    env, real = SeenEnv(Coloured(spec), eye, shown), Coloured(spec)
    still = np.zeros(3, np.float32)
    for act in (lambda e: e.reset(seed=3), lambda e: e.step(still), lambda e: e.step(still)):
        state, truth = act(env)[0], act(real)[0]
        points = eye.see({"scene": torch.from_numpy(real.render())[None]})[0]
        assert np.array_equal(state, np.r_[truth[: spec.proprio_dim], points.numpy()])


def test_camera_that_an_environment_does_not_have_is_refused_by_name():
    with pytest.raises(BadInput, match=r"one of \['scene'\], got 'wrist'"):
        picture(Coloured(tiny_spec()), "wrist")


def test_seen_arm_that_can_brake_brakes_and_another_cannot():
    class Braking(Coloured):
        def hold(self):
            return self.step(None)

    spec, eye = tiny_spec(), Eye((CAMERA,), EYE_PRESETS["tiny"]).eval()
    shown = replace(spec, objects=eye.fields)
    env, real = BrakingSeenEnv(Braking(spec), eye, shown), SeenEnv(Coloured(spec), eye, shown)
    for one in (env, real):
        one.reset(seed=2)
    assert np.array_equal(env.hold()[0], real.step(None)[0])
    assert not hasattr(real, "hold")


def test_seen_with_pictures_of_two_sizes_is_refused(tmp_path):
    cameras = (CAMERA, Camera("wrist", 8, 8))
    eye = Eye(cameras, EYE_PRESETS["tiny"])
    save_tensors(tmp_path / "eye.safetensors", eye.state_dict())
    write_json(tmp_path / "config.json", {"eye": vars(EYE_PRESETS["tiny"])})
    seal(tmp_path, "eye", replace(tiny_spec(), cameras=cameras), ["config.json", "eye.safetensors"])
    with pytest.raises(BadInput, match="one size"):
        seen(tmp_path, tiny_spec(), lambda size: Coloured(tiny_spec()))


CHAIN = """
from concurrent.futures import ThreadPoolExecutor

from robopolicy.cli import main
from sim.tasks import find_task

ONE, BOTH = "--processes 1", "--pictures 32 --cameras scene wrist"
# Translated by torch.compile, but run as it was: no compiler is needed.
EAGER = "--compiler eager"
LINES = [
    f"collect --task lift --episodes 3 --expert careful {BOTH} {ONE} --out filmed",
    "train-eye --dataset filmed --preset tiny --out eye",
    "convert --source filmed --eye eye --out demos",
    "train --dataset demos --preset tiny --steps 5 --out policy",
    f"collect --task eye --policy policy --noise repeat --episodes 2 {BOTH} {ONE} --out rollouts",
    f"train-world --dataset demos rollouts --preset tiny --steps 5 {ONE} --out world",
    "steer --world world --policy policy --dataset rollouts --preset tiny --out steerer",
    f"evaluate --task eye --policy policy --steerer steerer --episodes 1 {ONE} --out real",
    f"imagine --world world --policy policy --episodes 4 {ONE} --out imagined",
    f"train-world --dataset filmed rollouts --eye eye --preset tiny --steps 5 {EAGER} --out pixels",
    f"steer --world pixels --policy policy --dataset rollouts --preset tiny {EAGER} --out better",
    f"imagine --world pixels --policy policy --steerer better --episodes 2 {ONE} {EAGER} --out drawn",
    "diagnose --world pixels --dataset filmed --out diagnosis",
    # Once more with pixels as they are, which a policy that remembers reads itself.
    f"demo --world pixel --eye pixels --policy sega --preset tiny {ONE} --out demo",
]
if __name__ == "__main__":
    for line in LINES:
        assert main(line.split()) == 0, line
    # Pictures are imagined with an eye, and not as numbers of a state.
    assert main("train-world --dataset demo/demos --preset tiny --out none".split()) == 2
    # Whole pictures are no points that a latent world model could imagine.
    assert main("demo --world latent --eye pixels --preset tiny --out none".split()) == 2
    # No expert sees through an eye, and practice does not begin where no picture was kept.
    assert main("collect --task eye --episodes 1 --out given".split()) == 2
    line = "steer --world pixels --policy policy --dataset rollouts --preset tiny --horizon 8 --out short"
    assert main(line.split()) == 2
    # The plant of a simulated robot brakes it, in whatever thread it is asked.
    arm = find_task("eye").make()
    first, _ = arm.reset(seed=1)
    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(arm.hold).result()[0]
    assert held.shape == first.shape
    assert abs(held - first)[:3].max() < 0.02  # the hand
    arm.close()
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    if gl_backend() is None:
        pytest.skip("neither EGL nor OSMesa works here")
    root = tmp_path_factory.mktemp("chain")
    (root / "chain.py").write_text(CHAIN)
    done = fresh_python("chain.py", cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.slow
def test_chain_through_an_eye_runs_on_pictures_of_a_real_simulator(chain, monkeypatch):
    for real in ("real", "demo/real"):
        assert read_json(chain / real / "result.json")["verb"] == "evaluate"
    assert all(read_json(chain / "demo/episodes.json")[one]["frames"] for one in ("base", "imagined"))
    assert read_json(chain / "diagnosis/result.json")["chunk"].keys() == {"model", "no_change"}
    monkeypatch.chdir(chain)
    assert [f.name for f in find_task("eye").spec.objects] == ["scene_points", "wrist_points"]


@pytest.mark.slow
def test_pixel_world_model_learns_an_episode_of_a_real_simulator_by_heart(chain):
    spec = find_task("lift").spec
    cameras, (episode, *_) = (Camera("scene", 32, 32),), load_episodes([chain / "filmed"])
    with seeded_init(0):
        model = PixelWorldModel(spec, cameras, BY_HEART)
    data = PixelWindows([episode], spec, cameras, model.steps)
    fit_statistics(model, data, 0)
    learner = DenoiserLearner(model, 0, data)
    fit(learner, BY_HEART.steps, 0, "denoiser", quiet=True)
    model.members[0].load_state_dict(learner.ema.average)
    model.eval()
    rows = data[torch.arange(0, len(data), 3)]
    noise = torch.zeros(len(rows.obs), model.steps, model.spec.state_dim)
    ends = [model.predict(rows.obs, a, noise).states[:, -1] for a in (rows.actions, -rows.actions)]
    shown, otherwise, real, before = (model.split(x)[0] for x in (*ends, rows.future[:, -1], rows.obs[:, -1]))
    # Half a minute is not enough for more.
    assert psnr(shown, real) > 20
    assert psnr(shown, real) > psnr(before, real) + 2
    # It has learned what actions do, and not only what comes next.
    assert psnr(shown, real) > psnr(otherwise, real)
