"""Imagination says which policies it should not be asked about."""

import numpy as np
import pytest

from robopolicy.checkpoint import read_json
from robopolicy.cli import main
from robopolicy.cli.judge import DOUBTFUL, refusal
from robopolicy.evaluate import Evaluation
from robopolicy.types import Episode


def judged(*doubts):
    """An evaluation whose episodes had these doubts, one tuple of chunks each."""
    episodes = [
        Episode(
            seed=i,
            states=np.zeros((3, 2), np.float32),
            actions=np.zeros((2, 1), np.float32),
            success=False,
            terminated=False,
            truncated=True,
            noise=np.zeros((len(doubt), 2, 1), np.float32),
            chunk_starts=np.arange(len(doubt)),
            doubt=np.array(doubt, np.float32),
        )
        for i, doubt in enumerate(doubts)
    ]
    return Evaluation("policy", tuple(range(len(doubts))), episodes, 1.0)


def test_doubtful_counts_chunks_not_episodes():
    assert judged((0.5, 2.0, 1.0), (3.0,)).doubtful == pytest.approx(2 / 4)
    assert judged((0.5, 1.0)).doubtful == 0


def test_policies_that_the_world_model_knows_are_not_refused():
    assert refusal([{"label": "a", "doubtful": 0.0}, {"label": "b", "doubtful": DOUBTFUL}]) == ""


def test_a_policy_in_doubt_is_refused_by_name():
    said = refusal([{"label": "a", "doubtful": 0.0}, {"label": "exploiter", "doubtful": 0.4}])
    assert "exploiter (40%)" in said
    assert "a (" not in said


def test_diagnose_says_what_it_promises(here, tmp_path):
    assert main(f"diagnose --world world --dataset data --out {tmp_path}/new".split()) == 0
    result = read_json(tmp_path / "new/result.json")
    assert {"failures_as_failures", "successes_as_successes", "doubt_spearman"} <= set(result)
