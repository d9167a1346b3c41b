"""The baselines as learners that learn nothing: noise as drawn, or bounded uniform noise."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from robopolicy.config import SteerConfig
from robopolicy.protocols import Policy
from robopolicy.steering.actors import ActorConfig
from robopolicy.steering.imagination import ImaginedEnv
from robopolicy.steering.parts import pack, unpack
from robopolicy.steering.steerer import NoiseSteerer
from robopolicy.types import Episode


class Untrained:
    """A `robopolicy.train.Learner` whose step does nothing; it has no use for `env`."""

    prefilled = 0

    def __init__(
        self,
        policy: Policy,
        env: ImaginedEnv,
        episodes: Sequence[Episode],
        config: SteerConfig,
        generator: Generator,
    ):
        self.steerer = NoiseSteerer(ActorConfig.of(config), policy.spec, generator, policy)
        self.steerer.features.fit(episodes, policy.spec)

    def step(self, index: int, generator: Generator) -> dict[str, float]:
        return {"loss": 0.0}

    def state(self) -> dict[str, Tensor]:
        """The normalisation of what the steerer does not look at."""
        return pack({"steerer": self.steerer})

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        unpack({"steerer": self.steerer}, tensors)
