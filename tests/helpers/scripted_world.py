"""A world model that does as it is told, for tests of what is built around one."""

from __future__ import annotations

import numpy as np
import torch
from tiny import tiny_spec

from robopolicy.protocols import Prediction

SPEC = tiny_spec()
STARTS = np.random.default_rng(0).uniform(-0.5, 0.5, (7, SPEC.obs_steps, SPEC.state_dim)).astype(np.float32)


class ScriptedWorld:
    """The hand follows its actions and some noise; doubt, success and divergence are scripted.

    Args:
        won_above: height of the hand from which the task is achieved.
        doubt: of every chunk.
        broken: whether every state is NaN.
    """

    def __init__(self, won_above: float = np.inf, doubt: float = 0.1, broken: bool = False):
        self.spec, self.won_above, self.doubt, self.broken = SPEC, won_above, doubt, broken

    def predict(self, obs, actions, noise):
        states = obs[:, -1:].repeat(1, SPEC.chunk, 1)
        states[..., :3] += actions.cumsum(1)
        states += 1e-3 * noise
        if self.broken:
            states = states * torch.nan
        success = (states[..., 2] > self.won_above).float()
        return Prediction(states, success, torch.full((len(obs),), self.doubt))
