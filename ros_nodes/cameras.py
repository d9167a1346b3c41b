"""Whether cameras still see: new pictures come, and they change when the arm moves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# The same picture for so long, while the arm has moved by so much (radians or metres), is no live one.
_FROZEN_S = 0.5
_MOVED = 0.01


@dataclass
class _Seen:
    """The last picture of a camera, and when and where the arm was when it first looked like this."""

    at: float
    stamp_ns: int
    digest: int
    since: float
    where: np.ndarray


class CameraWatch:
    """Knows when each camera was last fresh.

    Args:
        max_age_s: by camera; a picture older than that, by arrival or by stamp, is none.
    """

    def __init__(self, max_age_s: Mapping[str, float]):
        self._max_age = dict(max_age_s)
        self._seen: dict[str, _Seen] = {}

    def see(self, name: str, now: float, wall_ns: int, stamp_ns: int, digest: int, where: np.ndarray) -> bool:
        """Takes a picture; False if it is old, from the future, or not newer than the one before.

        Args:
            name: of the camera.
            now: steady seconds.
            wall_ns: the robot's clock.
            stamp_ns: of the picture.
            digest: of its content.
            where: the arm is now.
        """
        before = self._seen.get(name)
        age = (wall_ns - stamp_ns) * 1e-9
        if not -0.02 <= age <= self._max_age[name] or (before and stamp_ns <= before.stamp_ns):
            return False
        same = before is not None and before.digest == digest and before.where.shape == where.shape
        since, began = (before.since, before.where) if before and same else (now, where)
        self._seen[name] = _Seen(now, stamp_ns, digest, since, began)
        return True

    def blind(self, now: float, where: np.ndarray) -> str:
        """The first camera that does not see, "" if all do."""
        for name, max_age in self._max_age.items():
            seen = self._seen.get(name)
            if seen is None or not 0 <= now - seen.at <= max_age:
                return name
            moved = seen.where.shape == where.shape and bool((np.abs(where - seen.where) > _MOVED).any())
            if moved and seen.at - seen.since > _FROZEN_S:
                return name
        return ""

    def forget(self) -> None:
        """What was seen means nothing any more."""
        self._seen.clear()
