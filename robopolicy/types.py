"""Plain data that crosses rooms. Pure numpy.

Shape letters, used everywhere: N environments or B batch, T observation steps, K chunk, L steps of
an episode, C chunks of an episode, D state, A action.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from robopolicy.errors import BadInput
from robopolicy.spec import Camera


@dataclass
class Episode:
    """One episode, real or imagined.

    Attributes:
        seed: environment seed it started from.
        states: (L+1, D) physical states; `states[i]` is what `actions[i]` was applied to.
        actions: (L, A) physical actions that were executed.
        success: whether the task was achieved.
        terminated: ended by success (or by a failure the task defines).
        truncated: ended by the time limit, by doubt or by divergence; the future still has value.
        noise: (C, K, A) latent noise of each chunk.
        chunk_starts: (C,) step at which each chunk began.
        doubt: (C,) doubt of the world model per chunk; zeros in the real simulator.
        source: what produced it ("expert", "policy", "noise", "random", ...).
        strategy: the expert's named strategy, if any.
        instruction: the sentence that says what was to be done, if there was one.
        reason: why it was cut short, if it was ("doubt", "diverged", "horizon").
        achieved: (L,) whether the state after each action meets the task's goal. By default only the
            last state of a successful episode does. Recorded data goes on for some steps after the
            first success, see `sim.vector.SimVectorEnv`.
        pictures: of each camera of the Spec, (L, H, W, 3) uint8: what was seen before each action.
    """

    seed: int
    states: np.ndarray
    actions: np.ndarray
    success: bool
    terminated: bool
    truncated: bool
    noise: np.ndarray
    chunk_starts: np.ndarray
    doubt: np.ndarray
    source: str = ""
    strategy: str = ""
    instruction: str = ""
    reason: str = ""
    achieved: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    pictures: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.achieved) != len(self.actions):
            self.achieved = np.zeros(len(self.actions), bool)
            self.achieved[-1:] = self.success

    @classmethod
    def recorded(
        cls,
        seed: int,
        states: np.ndarray,
        actions: np.ndarray,
        achieved: np.ndarray,
        chunk: int,
        source: str,
        pictures: dict[str, np.ndarray] | None = None,
    ) -> Self:
        """An episode of which nothing is known of any policy's noise.

        Args:
            seed: its number, where no simulator gave it one.
            states: (L+1, D).
            actions: (L, A).
            achieved: (L,) bool; it succeeded if any is.
            chunk: actions per query of a policy, K.
            source: what produced it.
            pictures: of each camera, (L, H, W, 3) uint8.
        """
        success = bool(achieved.any())
        return cls(
            seed=seed,
            states=states,
            actions=actions,
            success=success,
            terminated=success,
            truncated=not success,
            noise=np.zeros((0, chunk, actions.shape[1]), np.float32),
            chunk_starts=np.zeros(0, int),
            doubt=np.zeros(0, np.float32),
            source=source,
            achieved=achieved,
            pictures=pictures or {},
        )

    @property
    def length(self) -> int:
        return len(self.actions)

    def film(self, camera: Camera) -> np.ndarray:
        """(L, H, W, 3) uint8 pictures of a camera.

        Raises:
            BadInput: naming episode and camera, if there are none or they have another size.
        """
        frames = self.pictures.get(camera.name)
        shape = (self.length, camera.height, camera.width, 3)
        if frames is None or frames.shape != shape:
            got = "none" if frames is None else frames.shape
            raise BadInput(f"episode {self.seed}, camera {camera.name}", f"pictures {shape}", got)
        return frames

    def until_success(self) -> Episode:
        """The episode as it would have been had it ended at its first success."""
        if not self.achieved.any():
            return self
        n = int(self.achieved.argmax()) + 1
        chunks = int((self.chunk_starts < n).sum())
        return replace(
            self,
            states=self.states[: n + 1],
            actions=self.actions[:n],
            achieved=self.achieved[:n],
            pictures={name: frames[:n] for name, frames in self.pictures.items()},
            noise=self.noise[:chunks],
            chunk_starts=self.chunk_starts[:chunks],
            doubt=self.doubt[:chunks],
            terminated=True,
            truncated=False,
            reason="",
        )
