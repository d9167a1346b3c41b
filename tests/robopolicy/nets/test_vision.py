"""Pictures: positions come out where things are, crops are parts, rows do not depend on each other."""

import pytest
import torch
from tiny import normal

from robopolicy.nets.vision import PatchTransformer, SpatialSoftmax, Vision, _positions, as_floats

H, W = 20, 24


def pictures(rows=3, views=2):
    return normal(rows, views, 3, H, W).sigmoid()


def test_spatial_softmax_says_where_a_bright_spot_is():
    x = torch.zeros(4, 1, 5, 9)
    for i, (row, column) in enumerate(((0, 0), (4, 8), (2, 4), (0, 8))):
        x[i, 0, row, column] = 50.0
    where = SpatialSoftmax()(x)
    assert torch.allclose(where, torch.tensor([[-1.0, -1], [1, 1], [0, 0], [-1, 1]]), atol=1e-4)


def test_spatial_softmax_of_an_even_picture_is_its_middle():
    assert torch.allclose(SpatialSoftmax()(torch.ones(2, 3, 6, 8)), torch.zeros(2, 6), atol=1e-6)


def test_patches_know_where_they_are_and_of_each_other():
    torch.manual_seed(0)
    vit = PatchTransformer(8, patch=4, layers=1).eval()
    even = vit(torch.zeros(1, 3, H, W))
    assert even.shape == (1, 8, H // 4, W // 4)
    patches = even.flatten(2)[0].T
    assert torch.cdist(patches, patches)[~torch.eye(len(patches), dtype=torch.bool)].min() > 1e-3
    marked = torch.zeros(1, 3, H, W)
    marked[..., -1, -1] = 1.0
    assert (vit(marked) - even).abs().amax(1).min() > 1e-6  # seen from every patch
    # The same grid, read along the other axis.
    turned = _positions(8, (6, 5)).view(6, 5, 8)
    assert torch.allclose(
        _positions(8, (5, 6)).view(5, 6, 2, 4).flip(2).reshape(5, 6, 8), turned.transpose(0, 1)
    )


@pytest.mark.parametrize("kind", ["small", "resnet18", "vit"])
def test_vision_rows_do_not_depend_on_each_other(kind):
    torch.manual_seed(0)
    vision, x = Vision(kind, 8, 1.0).eval(), pictures()
    whole = vision(x)
    assert whole.shape == (3, 2, 8)
    alone = torch.stack([vision(x[i : i + 1, j : j + 1])[0, 0] for i in range(3) for j in range(2)])
    assert torch.allclose(alone, whole.flatten(0, 1), atol=1e-4)


def test_crop_without_generator_is_the_middle():
    x, vision = pictures(), Vision("small", 8, 0.5)
    assert torch.equal(vision.cropped(x), x[..., 5:15, 6:18])
    assert torch.equal(Vision("small", 8, 1.0).cropped(x, torch.Generator()), x)


def test_crop_in_training_is_a_part_and_the_same_for_all_pictures_of_a_row():
    x, vision = pictures(40), Vision("small", 8, 0.5)
    parts = vision.cropped(x, torch.Generator().manual_seed(0))
    assert parts.shape == (40, 2, 3, 10, 12)
    places = set()
    for picture, part in zip(x, parts, strict=True):
        fits = [
            (top, left)
            for top in range(H - 10 + 1)
            for left in range(W - 12 + 1)
            if torch.equal(picture[..., top : top + 10, left : left + 12], part)
        ]
        assert len(fits) == 1
        places.add(fits[0])
    assert len(places) > 25


def test_recorded_pictures_become_channels_from_zero_to_one():
    recorded = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    assert as_floats(recorded).flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert as_floats(recorded).shape == (1, 3, 1, 1)
