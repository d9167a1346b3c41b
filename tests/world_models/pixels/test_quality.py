"""Measures of pictures: their values where they are known."""

import numpy as np
import pytest
import torch

from world_models.pixels.quality import frechet, psnr, ssim

PICTURES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_psnr_is_minus_ten_log_ten_of_the_squared_error():
    assert psnr(PICTURES, PICTURES + 0.1) == pytest.approx(20, abs=1e-3)


def test_ssim_of_equal_pictures_is_one_and_of_noise_nearly_none():
    other = torch.rand(PICTURES.shape, generator=torch.Generator().manual_seed(1))
    assert ssim(PICTURES, PICTURES) == pytest.approx(1)
    assert abs(ssim(PICTURES, other)) < 0.1


def test_ssim_of_flat_pictures_is_that_of_their_brightness():
    a, b = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.25)
    assert ssim(a, b) == pytest.approx((2 * 0.125 + 1e-4) / (0.25 + 0.0625 + 1e-4), rel=1e-3)


def test_frechet_of_shifted_numbers_is_the_square_of_the_shift():
    rows = np.random.default_rng(0).normal(size=(500, 3))
    assert frechet(rows, rows) == pytest.approx(0, abs=1e-6)
    assert frechet(rows, rows + np.array([0.3, 0.0, 0.4])) == pytest.approx(0.25, abs=1e-6)


def test_frechet_of_wider_numbers_is_the_squared_difference_of_spread():
    rows = np.random.default_rng(0).normal(size=(500, 1))
    wide = 3 * (rows - rows.mean()) + rows.mean()
    assert frechet(rows, wide) == pytest.approx((2 * rows.std(ddof=1)) ** 2, rel=1e-6)
