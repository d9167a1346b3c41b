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


class TimedObserver:
    """Collects topics that come each at a rate and with stamps of its own, faster than a policy looks.

    A state is what the first topic says, with the newest that each other one has said before. A history is
    of states one control step apart, as the policy learned from.

    Args:
        elements: names of the state elements, in the order wanted.
        streams: element names by topic; the first one makes a state.
        steps: states in a history, T.
        period_s: one control step.
        max_age_s: what is older than this, at the stamp of a state, is no part of it.
    """

    def __init__(
        self,
        elements: Sequence[str],
        streams: Sequence[Sequence[str]],
        steps: int,
        period_s: float,
        max_age_s: float,
    ):
        self._elements = tuple(elements)
        self._first = frozenset(streams[0])
        self._steps, self._period, self._max_age = steps, period_s * 1e9, max_age_s * 1e9
        self._newest: dict[str, tuple[int, float]] = {}
        self._states: deque[tuple[int, np.ndarray]] = deque()

    def add(self, stamp_ns: int, values: Mapping[str, float]) -> np.ndarray | None:
        """Takes what one message says; see `Observer.add`."""
        for name, value in values.items():
            if name not in self._newest or stamp_ns > self._newest[name][0]:
                self._newest[name] = (stamp_ns, value)
        if not self._first <= set(values) or (self._states and stamp_ns <= self._states[-1][0]):
            return None
        parts = [self._newest.get(e) for e in self._elements]
        if any(p is None or stamp_ns - p[0] > self._max_age for p in parts):
            return None
        state = np.array([p[1] for p in parts if p is not None])
        self._states.append((stamp_ns, state))
        while stamp_ns - self._states[0][0] > self._steps * self._period:
            self._states.popleft()
        return state

    @property
    def stamp_ns(self) -> int | None:
        """Stamp of the newest state."""
        return self._states[-1][0] if self._states else None

    def history(self) -> np.ndarray | None:
        """(T, D) states one control step apart, to half a step, newest last; None until there are."""
        if not self._states:
            return None
        stamps = np.array([s for s, _ in self._states])
        rows = []
        for k in range(self._steps - 1, -1, -1):
            off = np.abs(stamps - (stamps[-1] - k * self._period))
            if off.min() > self._period / 2:
                return None
            rows.append(self._states[int(off.argmin())][1])
        return np.stack(rows)

    def clear(self) -> None:
        """Forgets everything: a new episode begins."""
        self._newest.clear()
        self._states.clear()
