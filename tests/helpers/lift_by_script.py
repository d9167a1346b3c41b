"""A scripted policy that lifts the cube open loop, chunk by chunk, and a server for it.

`python tests/helpers/lift_by_script.py --address SOCKET [--delay SECONDS]` serves it the way
`robopolicy.serve` serves a saved one; the real loader knows nothing of it.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor

from robopolicy.processes import stop_on_signals
from robopolicy.serve import serve
from sim.tasks import LIFT

_NOISE = 0.0005  # metres; enough to see whether the noise is the same
_HIGH = 0.06
_FULL_SPEED = 0.045
_GAIN = 0.5  # the impedance controller follows about a quarter of what is asked, 8 times per chunk


class LiftByScript:
    """Above the cube, down, close, up: which of these is read off the state alone."""

    spec = LIFT

    def __init__(self, delay_s: float = 0.0):
        self._delay_s = delay_s

    def initial(self, seeds):
        return {}

    def sample(self, obs: Tensor, carry, noise: Tensor):
        time.sleep(self._delay_s)
        state = obs[:, -1]
        eef, closed, cube = state[:, :3], state[:, 5], state[:, 6:9]
        away = (eef[:, :2] - cube[:, :2]).norm(dim=-1)
        drop = eef[:, 2] - cube[:, 2]
        lift = closed > 0.5
        down = ~lift & (away < 0.012) & (drop > 0.012)
        close = ~lift & (away < 0.012) & ~down
        target = cube.clone()
        target[:, 2] += torch.where(down | close, 0.0, _HIGH)
        target = torch.where(lift[:, None], eef + torch.tensor([0.0, 0.0, 0.25]), target)
        step = _GAIN * (target - eef)
        step = torch.where(close[:, None], 0.0, step).clamp(-_FULL_SPEED, _FULL_SPEED)
        grip = torch.where(close | lift, 1.0, -1.0)
        chunk = torch.cat([step, grip[:, None]], -1)[:, None].repeat(1, self.spec.chunk, 1)
        chunk[:, :, :3] += _NOISE * noise[:, :, :3].clamp(-3, 3)
        return chunk, carry


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    serve(LiftByScript(options.delay), None, options.address, stop_on_signals())
    return 0


if __name__ == "__main__":
    sys.exit(main())
