"""Chunks in a counting environment: how success is put off, and what is seen; the rest is in tests/faults."""

from __future__ import annotations

import numpy as np
import pytest
from counting_env import run


@pytest.mark.parametrize("goal", range(1, 11))
def test_chunk_linger_ends_exactly_later_and_still_succeeds(goal: int) -> None:
    inner, outcomes = run(goal, linger=3)
    assert inner.count == goal + 3
    assert np.concatenate([o[4]["achieved"][: o[4]["executed"]] for o in outcomes]).argmax() == goal - 1
    assert outcomes[-1][4]["success"]
    assert not any(o[3] for o in outcomes)


def test_chunk_history_is_the_last_states() -> None:
    _, outcomes = run(goal=99)
    assert outcomes[0][0].ravel().tolist() == [3, 4]
