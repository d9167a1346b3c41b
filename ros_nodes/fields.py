"""Reading the fields of a contract: each is checked, and a refusal names it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from robopolicy.errors import BadInput


def keys(
    data: object, where: str, required: set[str] | None = None, optional: set[str] | None = None
) -> dict[str, Any]:
    """A mapping; with `required`, one of exactly these keys and perhaps the optional ones."""
    if not isinstance(data, dict) or not all(isinstance(k, str) for k in data):
        raise BadInput(where, "a mapping with names as keys", data)
    if required is not None and not required <= set(data) <= required | (optional or set()):
        raise BadInput(where, f"the keys {sorted(required)}, perhaps {sorted(optional or ())}", sorted(data))
    return dict(data)


def items(data: object, where: str) -> list[Any]:
    """A list that is not empty."""
    if not isinstance(data, list) or not data:
        raise BadInput(where, "a list", data)
    return data


def text(data: object, where: str) -> str:
    """Text that is not empty."""
    if not isinstance(data, str) or not data:
        raise BadInput(where, "text", data)
    return data


def names(data: object, where: str, size: int | None = None) -> tuple[str, ...]:
    """Unique names, `size` of them."""
    found = tuple(text(x, where) for x in items(data, where))
    if size is not None and len(found) != size:
        raise BadInput(where, f"{size} names", found)
    unique(found, where)
    return found


def number(data: object, where: str, low: float = -1e6, high: float = 1e6) -> float:
    """A number in [low, high]."""
    # A bool is an int in Python, and YAML reads "yes" as one.
    if isinstance(data, bool) or not isinstance(data, int | float) or not low <= data <= high:
        raise BadInput(where, f"a number in [{low:g}, {high:g}]", data)
    return float(data)


def numbers(data: object, where: str) -> np.ndarray:
    """Numbers, float64."""
    return np.array([number(x, where) for x in items(data, where)], np.float64)


def unique(found: Iterable[str], where: str) -> None:
    """Refuses names that come twice."""
    listed = list(found)
    if len(set(listed)) != len(listed):
        raise BadInput(where, "unique names", listed)
