import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robopolicy.checkpoint import tensor_hash
from robopolicy.errors import BadInput
from robopolicy.steering.replay import Batch, Replay

WIDTHS = (3, 1, 0, 3, 0)


def batch(first: int, count: int) -> Batch:
    """Transitions that carry their number in every entry."""
    x = torch.arange(first, first + count, dtype=torch.float32)
    wide = x[:, None].expand(-1, 3)
    return Batch(wide, x[:, None], x, wide, x)


@given(st.integers(1, 9), st.lists(st.integers(0, 12), max_size=6))
def test_replay_after_any_additions_holds_the_newest(capacity, sizes):
    replay, total = Replay(capacity, WIDTHS), 0
    for size in sizes:
        replay.add(batch(total, size))
        total += size
    held = Batch(*replay.split(replay.state()["rows"])).reward.sort().values
    assert held.tolist() == list(range(max(0, total - capacity), total))


def test_replay_split_of_sampled_rows_keeps_transitions_together():
    replay = Replay(50, WIDTHS)
    replay.add(batch(0, 50))
    f, u, r, n, d = replay.split(replay.sample(200, torch.Generator().manual_seed(0)))
    for x in (f, u, n):
        assert (x == r[:, None]).all()
    assert (d == r).all()


def test_replay_restored_goes_on_like_the_original():
    replay, copy = Replay(10, WIDTHS), Replay(10, WIDTHS)
    replay.add(batch(0, 14))
    copy.load_state(replay.state())
    for r in (replay, copy):
        r.add(batch(14, 5))
    assert tensor_hash(copy.state()) == tensor_hash(replay.state())


def test_replay_non_finite_transition_refused_and_not_stored():
    replay, bad = Replay(10, WIDTHS), batch(0, 2)
    bad.reward[1] = torch.nan
    with pytest.raises(BadInput, match="transition"):
        replay.add(bad)
    assert replay.count == 0


@pytest.mark.parametrize("rows", [torch.zeros(11, 9), torch.zeros(3, 8)])
def test_replay_state_that_does_not_fit_refused(rows):
    with pytest.raises(BadInput, match="replay"):
        Replay(10, WIDTHS).load_state({"rows": rows, "next": torch.tensor(0)})
