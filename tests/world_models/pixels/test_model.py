"""A pixel world model: round trips, rounding, noise and batches; what it refuses."""

from dataclasses import replace

import pytest
import torch
from dots import CAMERA, CONFIG, SIDE, dot_windows
from tiny import normal, tiny_spec

from robopolicy.errors import BadInput
from robopolicy.protocols import WorldModel
from robopolicy.spec import Camera
from robopolicy.train import seeded_init
from world_models.pixels.config import PixelConfig
from world_models.pixels.denoiser import PixelDenoiser
from world_models.pixels.model import PixelWorldModel, pixel_spec
from world_models.pixels.train import fit_statistics


@pytest.fixture
def model():
    with seeded_init(0):
        made = PixelWorldModel(tiny_spec(), (CAMERA,), CONFIG)
    fit_statistics(made, dot_windows(made.steps), 0)
    for member in made.members:  # as if it had learned something
        torch.nn.init.normal_(member.net.conv_out.weight, std=0.3)
    return made.eval()


def batch(model, count=6):
    rows = dot_windows(model.spec.chunk)[torch.arange(count)]
    return rows.obs, rows.actions, normal(count, model.spec.chunk, model.spec.state_dim)


def test_pixel_world_model_is_a_world_model_of_the_robot_and_its_pictures(model):
    assert isinstance(model, WorldModel)
    assert model.spec.proprio == tiny_spec().proprio
    assert [f.size for f in model.spec.objects] == [3 * SIDE * SIDE]
    assert model.seen_as == tiny_spec()


def test_split_and_join_are_inverse(model):
    states = batch(model)[0]
    assert torch.equal(model.join(*model.split(states)), states)


def test_encode_and_decode_are_inverse_up_to_rounding(model):
    rows = dot_windows(model.steps)[torch.arange(5)]
    last = rows.obs[:, -1]
    again = model.decode(last, model.encode(last, rows.future))
    assert (again - rows.future).abs().max() < 1e-5  # recorded pictures have 256 levels already


def test_predict_gives_states_in_range_with_the_levels_of_a_camera(model):
    prediction = model.predict(*batch(model))
    low, high = torch.from_numpy(model.spec.state_range)
    assert ((prediction.states >= low) & (prediction.states <= high)).all()
    pixels = 255 * model.split(prediction.states)[0]
    assert (pixels - pixels.round()).abs().max() < 1e-3
    assert prediction.success.shape == (6, model.spec.chunk)
    assert (prediction.doubt > 0).all()


def test_predict_of_one_is_that_of_a_batch(model):
    whole, given = model.predict(*batch(model)), batch(model)
    for i in range(3):
        one = model.predict(*(x[i : i + 1] for x in given))
        # A last bit may turn a pixel to the next level.
        assert (one.states[0] - whole.states[i]).abs().max() < 1.5 / 255
        assert torch.allclose(one.doubt[0], whole.doubt[i], rtol=1e-3)


def test_predict_with_other_noise_differs_and_at_no_temperature_does_not(model):
    obs, actions, noise = batch(model)
    draws = noise, normal(*noise.shape, seed=1)
    one, other = (model.predict(obs, actions, x).states for x in draws)
    assert not torch.equal(one, other)
    model.config = replace(CONFIG, temperature=0.0)
    one, other = (model.predict(obs, actions, x).states for x in draws)
    assert torch.equal(one, other)


def test_doubt_of_equal_members_is_none(model):
    model.members[1].load_state_dict(model.members[0].state_dict())
    assert model.predict(*batch(model)).doubt.abs().max() < 1e-6


def test_denoiser_that_says_nothing_returns_c_skip_x():
    net = PixelDenoiser((3, 8, 8), 2, 1, 1, 5, replace(CONFIG, channels=(8, 8)))
    x, sigma = normal(4, net.dim), torch.tensor([[0.02], [0.5], [1.0], [5.0]])
    assert torch.allclose(net(x, sigma, normal(4, 5, 8, 8), normal(4, 5)), x / (1 + sigma**2))


def test_planes_of_the_robots_numbers_have_one_colour():
    net = PixelDenoiser((3, 8, 8), 2, 1, 1, 5, replace(CONFIG, channels=(8, 8)))
    pictures, own = normal(4, 3 * 64), normal(4, 2, seed=1)
    planes = net.planes(torch.cat([pictures, own], 1), 1)
    assert torch.equal(planes[:, :3].flatten(1), pictures)
    assert torch.equal(planes[:, 3:], own[..., None, None].expand(4, 2, 8, 8))


def test_predict_in_half_precision_is_almost_the_same(model):
    half = PixelWorldModel(tiny_spec(), (CAMERA,), replace(CONFIG, precision="bf16")).eval()
    half.load_state_dict(model.state_dict())
    kernel = half.members[0].net.conv_in.weight
    assert kernel.dtype is torch.float32
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    given = batch(model)
    whole, rough = model.predict(*given), half.predict(*given)
    assert rough.states.dtype is torch.float32
    distance = (rough.states - whole.states).abs().mean()
    assert 0 < distance < 0.05 * (whole.states - given[0][:, -1:]).abs().mean()


def test_predict_with_a_compiler_is_the_same(model):
    given = batch(model)
    plain = model.predict(*given)
    model.compile_denoisers("")
    assert not any(m.net._compiled_call_impl for m in model.members)
    model.compile_denoisers("eager")
    assert all(m.net._compiled_call_impl for m in model.members)
    compiled = model.predict(*given)
    assert (compiled.states - plain.states).abs().max() < 1.5 / 255
    assert torch.allclose(compiled.doubt, plain.doubt, rtol=1e-3)
    assert set(model.state_dict()) == set(PixelWorldModel(tiny_spec(), (CAMERA,), CONFIG).state_dict())


def test_compiler_that_does_not_exist_is_refused(model):
    with pytest.raises(BadInput, match="compiler"):
        model.compile_denoisers("gcc")


def test_two_cameras_are_imagined_together():
    two = (CAMERA, Camera("wrist", SIDE, SIDE))
    model = PixelWorldModel(tiny_spec(), two, CONFIG).eval()
    obs = torch.rand(2, 2, model.spec.state_dim) * 0.1
    done = model.predict(obs, torch.zeros(2, 4, 3), torch.zeros(2, 4, model.spec.state_dim))
    assert model.split(done.states)[0].shape == (2, 4, 6, SIDE, SIDE)


@pytest.mark.parametrize(
    ("cameras", "named"),
    [
        ((), "one size"),
        ((CAMERA, Camera("wrist", 8, 8)), "wrist"),
        ((Camera("scene", 18, 18),), "multiples of 4"),
    ],
)
def test_cameras_that_do_not_fit_are_refused(cameras, named):
    with pytest.raises(BadInput, match=named):
        PixelWorldModel(tiny_spec(), cameras, PixelConfig(channels=(8, 8, 8)))


@pytest.mark.parametrize(
    "settings",
    [{"members": 0}, {"channels": (12,)}, {"channels": ()}, {"action_code": "hot"}, {"temperature": 2.0}],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(BadInput, match=next(iter(settings))):
        PixelConfig(**settings)


def test_pixel_spec_fits_no_other_size():
    small, large = (pixel_spec(tiny_spec(), (Camera("scene", n, n),)) for n in (8, 16))
    with pytest.raises(BadInput, match="objects"):
        small.require(large, "policy")
