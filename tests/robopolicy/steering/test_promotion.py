"""A steerer is promoted on real evidence, and on nothing else."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from robopolicy.checkpoint import folder_hash, read_json, write_json
from robopolicy.config import STEER_PRESETS
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.steering.actors import ActorConfig
from robopolicy.steering.promotion import PROMOTION, judge, promote, require_promotion
from robopolicy.steering.steerer import NoiseSteerer, save_steerer
from sim.specs import LIFT


@pytest.fixture
def steerer(tmp_path) -> Path:
    config = ActorConfig.of(STEER_PRESETS["tiny"])
    save_steerer(tmp_path, NoiseSteerer(config, LIFT, torch.Generator().manual_seed(0)), "policy", "world")
    return tmp_path


def evaluation(steerer: Path, low: float, episodes: int = 100, **changes: Any) -> dict[str, Any]:
    """The result of judging the steerer beside its base."""
    base, own = {"policy": "p"}, {"policy": "p", "steerer": folder_hash(steerer)}
    rows = [{"label": "a", "hashes": base, "episodes": episodes}]
    rows += [{"label": "b", "hashes": own, "episodes": episodes}]
    difference = {"first": "a", "second": "b", "mean": low + 0.1, "low": low, "high": low + 0.2}
    return {"verb": "evaluate", "policies": rows, "differences": [difference], **changes}


@pytest.mark.parametrize(("low", "promoted"), [(0.01, True), (0.0, False), (-0.3, False)])
def test_promotion_interval_decides(steerer, low, promoted):
    assert promote(steerer, evaluation(steerer, low)).promoted is promoted
    if promoted:
        require_promotion(steerer)
    else:
        with pytest.raises(RoboPolicyError, match="not promoted"):
            require_promotion(steerer)


def test_promotion_too_few_episodes_not_promoted(steerer):
    verdict = judge(steerer, evaluation(steerer, 0.5, episodes=99))
    assert not verdict.promoted
    assert "no evidence" in verdict.reason


def test_promotion_without_evaluation_refused(steerer):
    with pytest.raises(RoboPolicyError, match="not been judged"):
        require_promotion(steerer)


def test_promotion_of_another_steerer_does_not_count(steerer):
    verdict = promote(steerer, evaluation(steerer, 0.5))
    write_json(steerer / PROMOTION, {**asdict(verdict), "steerer": "other"})
    with pytest.raises(RoboPolicyError, match="another steerer"):
        require_promotion(steerer)


def test_promotion_keeps_the_verdict_whole(steerer):
    verdict = promote(steerer, evaluation(steerer, 0.2))
    assert read_json(steerer / PROMOTION) == asdict(verdict)


def test_promotion_imagined_result_refused(steerer):
    with pytest.raises(BadInput, match="evaluate"):
        promote(steerer, evaluation(steerer, 0.5, verb="imagine"))
    assert not (steerer / PROMOTION).exists()


def test_promotion_result_without_the_steerer_or_its_base_refused(steerer):
    result = evaluation(steerer, 0.5)
    other = [{**row, "hashes": {"policy": "q"}} for row in result["policies"]]
    with pytest.raises(BadInput, match="steerer"):
        judge(steerer, {**result, "policies": other})
    with pytest.raises(BadInput, match="base comes first"):
        judge(steerer, {**result, "policies": [other[0], result["policies"][1]]})
