"""The three denoisers: shape, dependence on every input, independence of rows."""

import pytest
import torch
from tiny import normal

from robopolicy.nets.mlp import MlpDenoiser, ResidualBlock, sinusoid
from robopolicy.nets.transformer import TransformerDenoiser
from robopolicy.nets.unet1d import UnetDenoiser
from robopolicy.train import seeded_init

COND = 5
KINDS = ("mlp", "unet", "transformer")


def denoiser(kind: str, chunk: int = 8, action: int = 3):
    with seeded_init(0):
        if kind == "unet":
            return UnetDenoiser(chunk, action, COND, (8, 16, 24))
        if kind == "transformer":
            return TransformerDenoiser(chunk, action, COND, 16, 1)
        return MlpDenoiser(chunk, action, COND, 16, 1, 100)


def inputs(batch: int = 6, chunk: int = 8, action: int = 3):
    return normal(batch, chunk, action), torch.arange(batch) * 10, normal(batch, COND, seed=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("chunk", "action"), [(1, 1), (5, 3), (8, 4)])
def test_output_has_the_shape_of_the_chunk(kind, chunk, action):
    out = denoiser(kind, chunk, action)(*inputs(6, chunk, action))
    assert out.shape == (6, chunk, action)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", range(3), ids=["noisy", "step", "condition"])
def test_output_depends_on_every_input(kind, changed):
    net, args = denoiser(kind), list(inputs())
    before = net(*args)
    args[changed] = args[changed] + 1
    assert not torch.allclose(before, net(*args))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_batch_do_not_see_each_other(kind):
    net, (x, step, cond) = denoiser(kind), inputs()
    whole = net(x, step, cond)
    alone = [net(x[i : i + 1], step[i : i + 1], cond[i : i + 1]) for i in range(len(x))]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_takes_part(kind):
    net = denoiser(kind)
    for name, p in net.named_parameters():
        if name.endswith("down.weight"):
            torch.nn.init.normal_(p)  # starts at zero and would hide the weights before it
    net(*inputs(10)).square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_residual_block_begins_as_the_identity():
    h = normal(4, 8)
    assert torch.equal(ResidualBlock(8)(h), h)


def test_sinusoid_tells_all_steps_apart():
    table = sinusoid(torch.arange(100), 16)
    gaps = torch.cdist(table, table) + 10 * torch.eye(100)
    assert table.shape == (100, 16)
    assert gaps.min() > 0.01
