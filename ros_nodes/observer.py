"""Puts the parts of a robot state together by stamp, and states together to a history. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

import numpy as np

_PARTIAL = 8  # stamps for which parts may be missing at the same time


class Observer:
    """Collects the values of each topic until every element of a stamp is there.

    Args:
        elements: names of the state elements, in the order wanted.
        steps: states in a history, T.
        max_gap_s: states further apart do not belong to one history; None allows any gap.
    """

    def __init__(self, elements: Sequence[str], steps: int = 1, max_gap_s: float | None = None):
        self._elements = tuple(elements)
        self._max_gap_s = max_gap_s
        self._partial: OrderedDict[int, dict[str, float]] = OrderedDict()
        self._states: deque[tuple[int, np.ndarray]] = deque(maxlen=steps)

    def add(self, stamp_ns: int, values: Mapping[str, float]) -> np.ndarray | None:
        """Takes what one message says about the state at `stamp_ns`.

        Returns:
            The state (D,) float64 if it is now complete and newer than all before, else None.
        """
        if self._states and stamp_ns <= self._states[-1][0]:
            return None
        parts = self._partial.setdefault(stamp_ns, {})
        parts.update(values)
        if any(e not in parts for e in self._elements):
            while len(self._partial) > _PARTIAL:
                self._partial.popitem(last=False)
            return None
        for old in [s for s in self._partial if s <= stamp_ns]:
            del self._partial[old]
        state = np.array([parts[e] for e in self._elements])
        self._states.append((stamp_ns, state))
        return state

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the newest state."""
        return self._states[-1][0] if self._states else None

    def history(self) -> np.ndarray | None:
        """(T, D) the newest states, newest last; None until T of them follow each other."""
        if len(self._states) < (self._states.maxlen or 1):
            return None
        stamps = [s for s, _ in self._states]
        gaps = np.diff(stamps) * 1e-9
        if self._max_gap_s is not None and (gaps > self._max_gap_s).any():
            return None
        return np.stack([x for _, x in self._states])

    def clear(self) -> None:
        """Forgets everything: a new episode begins."""
        self._partial.clear()
        self._states.clear()
