"""Noising and restoring: with the best network there is, the data come back."""

import pytest
import torch
from tiny import normal

from robopolicy.nets.inpainting import Known
from robopolicy.nets.sampling import Beso, Ddim, Flow, make_process

KINDS = ("ddim", "beso", "flow")
B, K, A = 4000, 2, 1
MEAN, SPREAD = 0.2, 0.15


def process(kind, steps, prediction="sample"):
    return make_process(kind, 100, steps, prediction)


def best_network(made, mean, spread):
    """What a perfectly trained network would say if every number of a chunk were N(mean, spread^2).

    The posterior mean of clean data given x = a clean + b noise is in closed form.
    """

    def clean_given(x, a, b):
        return mean + spread**2 * a / ((a * spread) ** 2 + b**2) * (x - a * mean)

    def network(x, level):
        level = level[:, None, None]
        if isinstance(made, Ddim):
            alpha = made.scheduler.alphas_cumprod[level]
            clean = clean_given(x, alpha.sqrt(), (1 - alpha).sqrt())
            if made.prediction == "sample":
                return clean
            return (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        if isinstance(made, Flow):
            t = level / 100
            clean = clean_given(x, 1 - t, t)
            return (x - clean) / t
        assert isinstance(made, Beso)
        sigma = made.sigma(level)
        skip, out, inp = made.factors(sigma)
        return (clean_given(x / inp, 1.0, sigma) - skip * x / inp) / out

    return network


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
@pytest.mark.parametrize("kind", KINDS)
def test_restore_with_the_best_network_gives_the_distribution_of_the_data(kind, prediction):
    # BESO begins at a level of only twice the spread of all data: a little off for a mean that is not 0.
    mean = 0.0 if kind == "beso" else MEAN
    made = process(kind, 50, prediction)
    restored = made.restore(best_network(made, mean, SPREAD), normal(B, K, A))
    assert restored.mean() == pytest.approx(mean, abs=0.02)
    assert restored.std() == pytest.approx(SPREAD, rel=0.15)


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_restore_data_without_spread_come_back_exactly_in_any_number_of_steps(kind, steps):
    made = process(kind, steps)
    restored = made.restore(best_network(made, MEAN, 1e-6), normal(50, K, A))
    assert torch.allclose(restored, torch.full_like(restored, MEAN), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_restore_is_a_function_of_noise_alone_and_row_by_row(kind):
    made = process(kind, 3)
    network, noise = best_network(made, MEAN, SPREAD), normal(6, K, A)
    whole = made.restore(network, noise)
    torch.manual_seed(99)
    assert torch.equal(made.restore(network, noise), whole)
    alone = torch.cat([made.restore(network, noise[i : i + 1]) for i in range(6)])
    assert torch.allclose(alone, whole, atol=1e-6)


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
@pytest.mark.parametrize("kind", KINDS)
def test_corrupt_target_is_on_average_what_the_best_network_says(kind, prediction):
    """The best network is the mean of the target given its input: what is left does not depend on it."""
    made = process(kind, 3, prediction)
    clean = MEAN + SPREAD * normal(B * 10, K, A)
    noisy, level, target = made.corrupt(clean, torch.Generator().manual_seed(0))
    said = best_network(made, MEAN, SPREAD)(noisy, level)
    residual = target - said
    assert residual.mean().abs() < 0.02 * target.std()
    assert abs(float(torch.corrcoef(torch.stack([residual.flatten(), said.flatten()]))[0, 1])) < 0.03
    assert (level >= 0).all()
    assert (level <= 100).all()


def test_beso_levels_of_training_are_those_of_sampling():
    made = Beso(3)
    _, level, _ = made.corrupt(torch.zeros(50_000, 1, 1), torch.Generator().manual_seed(0))
    sigma = made._LOW * (made._HIGH / made._LOW) ** (level / 100)
    assert made._LOW <= sigma.min() < 2 * made._LOW
    assert 0.9 * made._HIGH < sigma.max() <= made._HIGH * 1.001
    # Log-logistic about the spread of the data: below it lies as much as its truncated distribution says.
    low, high = (1 / (1 + made._SPREAD / s) for s in (made._LOW, made._HIGH))
    below = (0.5 - low) / (high - low)
    assert (sigma < made._SPREAD).float().mean() == pytest.approx(below, abs=0.02)
    assert made.sigmas[0] == pytest.approx(made._HIGH)
    assert made.sigmas[1:] == [pytest.approx(0.5, rel=0.05), pytest.approx(0.15)]
    assert Beso(1000).sigmas[-1] == pytest.approx(made._LOW)


def test_beso_in_few_steps_keeps_to_what_was_meant():
    made = process("beso", 3)
    restored = made.restore(best_network(made, MEAN, SPREAD), normal(B, K, A))
    # Each level of noise s leaves 1 / (1 + (s / spread)^2) of what distinguishes one draw from another.
    first, second, third = (1 / (1 + (s / SPREAD) ** 2) for s in made.sigmas)
    drawn = first * made.sigmas[0] + made.sigmas[1] * (1 - first)
    assert restored.mean() == pytest.approx(MEAN, abs=0.02)
    assert restored.std() == pytest.approx(drawn * second * third, rel=0.05)
    assert restored.std() < SPREAD / 2


@pytest.mark.parametrize("steps", [1, 5, 8, 10, 100])
@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
def test_ddim_equals_the_steps_of_diffusers(prediction, steps):
    made, noise = Ddim(100, steps, prediction), normal(20, K, A).double()
    weight = normal(A, A, seed=1).double()

    def network(x, level):
        return torch.tanh(x @ weight) + 0.01 * level[:, None, None]

    x = noise
    for step in made.scheduler.timesteps.tolist():
        out = network(x, torch.full((20,), step))
        x = made.scheduler.step(out, step, x, use_clipped_model_output=True, return_dict=False)[0]
    assert torch.allclose(made.restore(network, noise), x, atol=1e-5)


@pytest.mark.parametrize("prediction", ["sample", "epsilon"])
@pytest.mark.parametrize("kind", KINDS)
def test_restore_keeps_what_is_known_and_nothing_known_changes_nothing(kind, prediction):
    made = process(kind, 4, prediction)
    network, noise = best_network(made, MEAN, SPREAD), normal(6, K, A)
    chunk, weight = torch.full((6, K, A), -0.7), torch.tensor([[1.0], [0.0]]).expand(6, K, 1)
    restored, free = made.restore(network, noise, Known(chunk, weight)), made.restore(network, noise)
    assert torch.allclose(restored[:, 0], chunk[:, 0], atol=1e-6)
    # This network looks at each number alone.
    assert torch.allclose(restored[:, 1], free[:, 1], atol=1e-5)
    assert torch.allclose(made.restore(network, noise, Known(chunk, 0 * weight)), free, atol=1e-6)
