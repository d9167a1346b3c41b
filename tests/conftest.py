"""The order of the tests: processes take a file at a time, and a long one begun last keeps others waiting."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

_SLOW_S = 300  # what a slow test may take that says nothing else


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the longest tests come first."""
    longest: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        if item.get_closest_marker("slow"):
            allowed = item.get_closest_marker("timeout")
            longest[item.path] = max(longest[item.path], allowed.args[0] if allowed else _SLOW_S)
    items.sort(key=lambda item: -longest[item.path])
