"""The page of a deployment shows what its log tells, and nothing else has to be fetched for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robopolicy.errors import BadInput
from robopolicy.report.deployment import Deployed, deployment_page


def _deployed() -> Deployed:
    times = np.linspace(0, 3, 200)
    commands = np.stack([np.sin(times), np.full(200, np.nan)], 1)
    changes = [(0.0, "ARMED", ""), (0.5, "RUNNING", ""), (2.5, "FAULT", "POLICY_LOST")]
    low, high = np.array([-0.5, 0.0]), np.array([0.9, 1.0])
    return Deployed(
        "arm", times, commands, ("a<b", "still"), low, high, [5.0, 6.0, 90.0], changes, {"holds": 3}
    )


def test_page_tells_commands_limits_changes_and_latency(tmp_path):
    page = deployment_page(_deployed(), tmp_path / "sub" / "page.html").read_text()
    assert page.count("<svg") == 2
    assert "POLICY_LOST" in page
    assert "a&lt;b" in page
    assert "a<b" not in page
    assert "limits -0.5 and 0.9" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_page_of_a_deployment_without_commands_is_refused(tmp_path):
    nothing = replace(_deployed(), times=np.zeros(0), commands=np.zeros((0, 2)))
    with pytest.raises(BadInput, match="command"):
        deployment_page(nothing, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_page_of_a_deployment_without_chunks_has_no_latency(tmp_path):
    page = deployment_page(replace(_deployed(), chunk_ms=[]), tmp_path / "page.html").read_text()
    assert "How late" not in page
