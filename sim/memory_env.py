"""Tasks that cannot be done by what is seen now: a hand over a table, and something to be remembered.

No simulator: the hand goes where it is told, so that what fails is memory and not dexterity. An episode that
has gone wrong is over: nobody gets a second guess.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import gymnasium
import numpy as np

from robopolicy.seeding import stream
from robopolicy.spec import Spec

GOALS = np.array([[0.6, 0.6], [-0.6, 0.6], [-0.6, -0.6], [0.6, -0.6]], np.float32)
# As many steps as a chunk has: every policy sees a cue whenever it looks, and a signal before it is due.
FLASH_STEPS = 8
LATEST_FLASH = 24
_TIME_TO_ANSWER = 28
_NEAR_M = 0.15
_CENTRE_M = 0.35
RAISED_M, UP_M, DOWN_M, ASIDE_M = 0.6, 0.35, 0.15, 0.45
_FIRST_SIGNAL, _UNTIL_NEXT, _TIME_ASIDE = (8, 32), (28, 56), 40
_UNTIL_NEXT_FLASH, _UNTIL_NEXT_STOP = (16, 24), (32, 48)
ARM_M, REACHED_M = 0.6, 0.35


class MemoryEnv(gymnasium.Env):
    """A hand that moves exactly by its action, and a rule about what it has to remember.

    Args:
        spec: of the task.
        camera: no pictures are taken: only 0.
    """

    spec: Any  # our Spec, where gymnasium would keep its registry entry

    def __init__(self, spec: Spec, camera: int = 0):
        self.spec = spec
        self.observation_space = gymnasium.spaces.Box(*spec.state_range)
        self.action_space = gymnasium.spaces.Box(*spec.action_range)
        self.hand, self.steps = np.zeros(3, np.float32), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; everything in it is a function of `seed`."""
        super().reset(seed=seed)
        rng = stream(seed, self.spec.task) if seed is not None else self.np_random
        self.hand[:] = [*rng.uniform(-0.05, 0.05, 2), 0.0]
        self.steps = 0
        self.begin(rng)
        return self._state(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Applies one action (3,); reward is 1 on success, which ends the episode."""
        self.hand += self.spec.check_action(action)
        np.clip(self.hand, [-1, -1, 0], 1, out=self.hand)
        self.steps += 1
        success, failed = self.judge()
        truncated = not success and (failed or self.steps >= self.spec.horizon)
        return self._state(), float(success), success, truncated, {"is_success": success}

    @abstractmethod
    def begin(self, rng: np.random.Generator) -> None:
        """Draws what the episode is about."""

    @abstractmethod
    def judge(self) -> tuple[bool, bool]:
        """Whether the task has been achieved by the last step, and whether it cannot be any more."""

    def shown(self) -> np.ndarray:
        """What is seen beside the hand."""
        return np.zeros(0, np.float32)

    def _state(self) -> np.ndarray:
        return self.spec.check_obs(np.concatenate([self.hand, self.shown()]))


class CueEnv(MemoryEnv):
    """One of four lamps flashes at some time; much later, at a signal, the hand has to go to its corner."""

    def __init__(self, spec: Spec, camera: int = 0):
        super().__init__(spec, camera)
        self._longest = spec.horizon - LATEST_FLASH - FLASH_STEPS - _TIME_TO_ANSWER

    def begin(self, rng: np.random.Generator) -> None:
        self.cue, self.flash = int(rng.integers(len(GOALS))), int(rng.integers(LATEST_FLASH + 1))
        self.go = self.flash + FLASH_STEPS + int(rng.integers(self._longest * 2 // 3, self._longest + 1))

    def judge(self) -> tuple[bool, bool]:
        away = np.linalg.norm(self.hand[:2] - GOALS, axis=-1)
        early = self.steps <= self.go and bool(np.linalg.norm(self.hand[:2]) > _CENTRE_M)
        success = bool(away[self.cue] < _NEAR_M) and not early
        wrong = bool((np.delete(away, self.cue) < _NEAR_M).any())
        return success, early or wrong or self.steps >= self.go + _TIME_TO_ANSWER

    def shown(self) -> np.ndarray:
        lamps = np.zeros(len(GOALS) + 1, np.float32)
        lamps[self.cue] = self.flash <= self.steps < self.flash + FLASH_STEPS
        lamps[-1] = np.clip(_brightness(self.steps, self.go), 0, 1)
        return lamps


class SignalEnv(MemoryEnv):
    """Something is to be done at each of some signals, and what it is depends on how many there have been."""

    gaps: tuple[tuple[int, int], ...]  # steps before each signal, from..to
    signals: np.ndarray  # steps at which they are given

    def begin(self, rng: np.random.Generator) -> None:
        self.signals = _drawn(rng, self.gaps)

    @property
    def given(self) -> int:
        """Signals until now."""
        return int((self.signals < self.steps).sum())

    def announced(self) -> np.ndarray:
        """How bright the lamp is for each of the signals."""
        brightness = _brightness(self.steps, self.signals)
        return np.where(brightness > 1, 0, brightness).clip(0).astype(np.float32)

    def shown(self) -> np.ndarray:
        return self.announced().max(keepdims=True)


class CountEnv(SignalEnv):
    """At each of so many signals the hand has to be raised and lowered, at the next it has to go aside."""

    def __init__(self, spec: Spec, camera: int = 0):
        super().__init__(spec, camera)
        self.wanted = lifts(spec)
        self.gaps = (_FIRST_SIGNAL, *[_UNTIL_NEXT] * self.wanted)

    def begin(self, rng: np.random.Generator) -> None:
        super().begin(rng)
        self.lifts, self.up = 0, False

    def judge(self) -> tuple[bool, bool]:
        height = self.hand[2]
        if not self.up and height > UP_M:
            self.up = True
            self.lifts += 1
        self.up &= bool(height > DOWN_M)
        aside = bool(self.hand[0] > ASIDE_M)
        done = self.lifts == self.wanted and not self.up and self.given > self.wanted
        return aside and done, self.lifts > min(self.given, self.wanted) or (aside and not done)


class ReturnEnv(SignalEnv):
    """At a signal the hand has to go left and come back to the middle; at the next it has to go right."""

    gaps = ((8, 80), (40, 112))

    def begin(self, rng: np.random.Generator) -> None:
        super().begin(rng)
        self.stage = 0  # nothing done, been to the left, back in the middle

    def judge(self) -> tuple[bool, bool]:
        x = self.hand[0]
        left, right = bool(x < -REACHED_M), bool(x > REACHED_M)
        failed = (left and (self.stage == 2 or not self.given)) or (right and self.stage < 2)
        if left and self.stage == 0:
            self.stage = 1
        if self.stage == 1 and abs(x) < _NEAR_M:
            self.stage = 2
        done = right and self.stage == 2
        return done and self.given == 2, failed or (done and self.given < 2)


class TourEnv(SignalEnv):
    """Lamps flash one after another; at each of as many signals the hand has to go to the next one's corner.

    It comes back to the middle in between. No lamp flashes twice in a row.
    """

    gaps = (_UNTIL_NEXT_STOP,) * 3

    def begin(self, rng: np.random.Generator) -> None:
        super().begin(rng)
        others = rng.integers(1, len(GOALS), len(self.gaps) - 1)
        self.cues = np.cumsum([rng.integers(len(GOALS)), *others]) % len(GOALS)
        self.flashes = _drawn(rng, ((0, LATEST_FLASH), *[_UNTIL_NEXT_FLASH] * len(others)))
        self.signals += self.flashes[-1] + FLASH_STEPS
        self.corners, self.visited, self.home = self.cues, 0, True

    def judge(self) -> tuple[bool, bool]:
        self.home |= bool(np.linalg.norm(self.hand[:2]) < _NEAR_M)
        (at,) = np.nonzero(np.linalg.norm(self.hand[:2] - GOALS, axis=-1) < _NEAR_M)
        if not (self.home and len(at)):
            return False, False
        right = bool(at[0] == self.corners[self.visited]) and self.given > self.visited
        self.visited, self.home = self.visited + right, False
        return self.visited == len(self.gaps), not right

    def flashing(self) -> np.ndarray:
        """Which of the flashes is on."""
        return (self.flashes <= self.steps) & (self.steps < self.flashes + FLASH_STEPS)

    def shown(self) -> np.ndarray:
        lamps = np.isin(np.arange(len(GOALS)), self.cues[self.flashing()])
        return np.append(lamps.astype(np.float32), super().shown())


class ErrandEnv(TourEnv):
    """With each lamp one of two things is shown: it is kept there. At each signal one of them is asked for.

    Either is asked for once, whatever was shown first.
    """

    gaps = (_UNTIL_NEXT_STOP,) * 2

    def begin(self, rng: np.random.Generator) -> None:
        super().begin(rng)
        self.things, order = rng.permutation(len(self.gaps)), rng.permutation(len(self.gaps))
        self.corners, self.asked = self.cues[order], self.things[order]

    def shown(self) -> np.ndarray:
        named = np.append(self.things[self.flashing()], self.asked[self.announced() > 0])
        return np.insert(super().shown(), len(GOALS), np.isin(np.arange(len(self.things)), named))


def lifts(spec: Spec) -> int:
    """How often the hand has to be raised: as often as the horizon of a counting task has time for."""
    return (spec.horizon - _FIRST_SIGNAL[1] - _TIME_ASIDE) // _UNTIL_NEXT[1]


def _drawn(rng: np.random.Generator, gaps: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Steps at which things happen, each so many, from..to, after the one before."""
    low, high = np.array(gaps).T
    return np.cumsum(rng.integers(low, high + 1))


def _brightness(step: int, signal: np.ndarray | int) -> np.ndarray:
    """Of a lamp that counts down to a signal: 0 until a flash before it, 1 when it is due, more later."""
    return 1 + (step - np.asarray(signal)) / FLASH_STEPS


ENVS = {"cue": CueEnv, "count": CountEnv, "return": ReturnEnv, "tour": TourEnv, "errand": ErrandEnv}
