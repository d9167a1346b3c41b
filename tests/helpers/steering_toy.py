"""A toy world to steer in: walk along a line to the goal, left or right, in at most six steps.

State (x, goal), goal -1 or +1; action (dx, idle). The task is achieved at x * goal >= 0.9. The policy
plays its noise as it is, so half of all episodes walk the wrong way.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.config import DsrlConfig, SteerConfig
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import stream
from robopolicy.spec import Field, Spec
from robopolicy.steering.load import load_steerer
from robopolicy.steering.noise import UniformNoise
from robopolicy.steering.steer import imagined_success, steer
from robopolicy.types import Episode

SPEC = Spec(
    robot="toy",
    task="walk",
    fps=10,
    chunk=2,
    obs_steps=2,
    horizon=6,
    proprio=(Field("x", 1, "m", -20.0, 20.0),),
    objects=(Field("goal", 1, "1", -1.0, 1.0),),
    action=(Field("dx", 2, "m", -10.0, 10.0),),
)


class ToyPolicy(nn.Module):
    """Action = gain * noise; `gain` is the weight that steering must not touch."""

    def __init__(self, spec: Spec = SPEC, gain: float = 0.25):
        super().__init__()
        self.spec = spec
        self.gain = nn.Parameter(torch.tensor(gain))

    def initial(self, seeds):
        return {}

    def sample(self, obs: Tensor, carry, noise: Tensor):
        return (self.gain * noise).detach(), carry


class ToyEnv:
    """A ChunkEnv with `state` and `load_state`; all randomness is a function of the seed.

    Args:
        num_envs: slots.
        threshold: x * goal at which the task is achieved.
        doubt_beyond: |x| from which the "world model" doubts and cuts the episode.
        broken_at: total number of steps after which an observation is NaN.

    Attributes:
        applied: (N,) actions executed in the current episode of each slot.
    """

    def __init__(
        self,
        num_envs: int,
        spec: Spec = SPEC,
        threshold: float = 0.9,
        doubt_beyond: float = np.inf,
        broken_at: int = -1,
    ):
        self.num_envs, self.spec, self.threshold = num_envs, spec, threshold
        self.doubt_beyond, self.broken_at = doubt_beyond, broken_at
        self.doubt_limit = 1.0
        self.obs = np.zeros((num_envs, spec.obs_steps, 2), np.float32)
        self.ended = np.ones(num_envs, bool)
        self.applied = np.zeros(num_envs, np.int64)
        self.calls = 0

    def reset(self, *, seed=None, options=None):
        for i in np.flatnonzero((options or {}).get("reset_mask", np.ones(self.num_envs, bool))):
            self.obs[i] = self.start(stream(seed[i], "toy-start"))
            self.ended[i], self.applied[i] = False, 0
        return self.obs.copy(), {}

    def start(self, rng: np.random.Generator) -> tuple[float, float]:
        return rng.uniform(-0.1, 0.1), rng.choice([-1.0, 1.0])

    def achieves(self, x, goal):
        return x * goal >= self.threshold

    def doubts(self, x, goal):
        return max(0.0, abs(x) - self.doubt_beyond + 1) if np.isfinite(self.doubt_beyond) else 0.0

    def step(self, actions):
        n, k = self.num_envs, self.spec.chunk
        states = np.zeros((n, k, 2), np.float32)
        executed, success, terminated, truncated = (np.zeros(n, t) for t in (int, bool, bool, bool))
        doubt, reason = np.zeros(n, np.float32), [""] * n
        for i in range(n):
            while executed[i] < k and not self.ended[i]:
                x, goal = self.obs[i, -1]
                x += actions[i, executed[i], 0]
                self.obs[i] = np.concatenate([self.obs[i, 1:], [(x, goal)]])
                states[i, executed[i]] = x, goal
                executed[i] += 1
                self.applied[i] += 1
                doubt[i] = self.doubts(x, goal)
                doubtful = doubt[i] > self.doubt_limit
                success[i] = terminated[i] = self.achieves(x, goal) and not doubtful
                if doubtful:
                    truncated[i], reason[i] = True, "doubt"
                elif not success[i] and self.applied[i] >= self.spec.horizon:
                    truncated[i], reason[i] = True, "horizon"
                self.ended[i] = terminated[i] or truncated[i]
        self.calls += 1
        if self.calls == self.broken_at:
            self.obs[0, -1, 0] = np.nan
        info = {
            "states": states,
            "executed": executed,
            "achieved": self.achieves(states[..., 0], states[..., 1]),
            "success": success,
            "doubt": doubt,
            "reason": reason,
        }
        return self.obs.copy(), success.astype(np.float32), terminated, truncated, info

    def state(self):
        names = ("obs", "ended", "applied")
        return {n: torch.from_numpy(getattr(self, n).copy()) for n in names}

    def load_state(self, tensors):
        for name, value in tensors.items():
            setattr(self, name, value.numpy().copy())

    def close(self):
        pass


class Flawed(ToyEnv):
    """Imagination with a false-reward corner: near x * goal = -0.6 it sees a success that is none.

    An honest ensemble has seen little of that corner and doubts it: from 0 at x * goal = -0.3 up to twice
    the 99th percentile of held-out data in its middle.

    Args:
        doubt_limit: doubt that ends an episode.
    """

    def __init__(self, num_envs: int, doubt_limit: float):
        super().__init__(num_envs)
        self.doubt_limit = doubt_limit

    def achieves(self, x, goal):
        return super().achieves(x, goal) | (x * goal <= -0.6)

    def doubts(self, x, goal):
        return max(0.0, (-0.3 - x * goal) / 0.15)


class Chain(ToyEnv):
    """States 0, 1, 2, then success at 3; `Walker` takes one step at a time. Starts anywhere (or at 0)."""

    def __init__(self, num_envs: int, spec: Spec, threshold: float = 2.5, starts: int = 3):
        super().__init__(num_envs, spec, threshold)
        self.starts = starts

    def start(self, rng: np.random.Generator) -> tuple[float, float]:
        return float(rng.integers(self.starts)), 1.0


class Walker(ToyPolicy):
    """Steps by exactly 1 whatever its noise."""

    def sample(self, obs: Tensor, carry, noise: Tensor):
        return torch.ones_like(noise), carry


def recorded(count: int, steerer=None, policy: ToyPolicy | None = None) -> list[Episode]:
    """Episodes of the toy policy, by default with prior noise."""
    return rollout(ToyEnv(8), policy or ToyPolicy(), steerer or PriorSteerer(), range(count))


class FlippingPolicy(ToyPolicy):
    """Whether it plays its noise or the opposite is in its memory alone, and changes with every chunk."""

    def initial(self, seeds):
        return {"sign": torch.tensor([[1.0 - 2 * (s % 2)] for s in seeds])}

    def sample(self, obs: Tensor, carry, noise: Tensor):
        return super().sample(obs, carry, noise * carry["sign"][..., None])[0], {"sign": -carry["sign"]}


LEARNING = SteerConfig(
    hidden=32,
    eval_every=20,
    dsrl=DsrlConfig(steps=40, envs=16, updates=8, batch=64, learning_starts=64, tau=0.02, lr=3e-3),
)


def imagined_and_true(make_env, out, policy=None):
    """Success rates of what was learned, where it learned and in the world as it is."""
    policy = policy or ToyPolicy()
    episodes = recorded(40, UniformNoise(1.5, repeat=True), policy)
    validate = imagined_success(make_env(32), policy, 64, 0)
    result = steer(policy, make_env, episodes, out, LEARNING, 0, validate)
    done = rollout(ToyEnv(32), policy, load_steerer(out, policy), range(900, 964))
    return result["best"]["rate"], sum(e.success for e in done) / 64
