"""Two-hot codes: they sum to one, invert exactly, and are continuous."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from world_models.pixels.two_hot import BINS, action_code, code_size, from_two_hot, two_hot

VALUES = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=6).map(torch.tensor)


@given(VALUES)
def test_two_hot_sums_to_one_with_two_neighbours_at_most(values):
    code = two_hot(values)
    assert torch.allclose(code.sum(-1), torch.ones(len(values)), atol=1e-5)
    for row in code:
        (used,) = torch.nonzero(row, as_tuple=True)
        assert len(used) <= 2
        assert used[-1] - used[0] <= 1


@given(VALUES)
def test_two_hot_inverts(values):
    assert torch.allclose(from_two_hot(two_hot(values)), values, atol=2e-6)


def test_two_hot_of_a_bin_is_one_hot_and_beyond_the_ends_is_the_end():
    bins = torch.linspace(-1, 1, BINS)
    assert torch.allclose(two_hot(bins), torch.eye(BINS), atol=1e-5)
    assert torch.equal(two_hot(torch.tensor([-3.0, 3.0])), two_hot(torch.tensor([-1.0, 1.0])))


def test_two_hot_distinguishes_what_one_hot_does_not():
    near = torch.tensor([[0.01], [0.03]])
    one, two = (action_code(near, kind) for kind in ("one-hot", "two-hot"))
    assert torch.equal(one[0], one[1])
    assert not torch.equal(two[0], two[1])


@pytest.mark.parametrize("kind", ["two-hot", "one-hot", "linear"])
def test_action_code_has_the_size_that_it_says(kind):
    assert action_code(torch.zeros(5, 3, 2), kind).shape == (5, 3, 2 * code_size(kind))
