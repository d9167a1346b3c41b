"""A scripted policy that turns all joints of an SO-101 to one angle, and a server for it.

`python tests/helpers/reach_by_script.py --address SOCKET`
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

from robopolicy.nets.inpainting import Known
from robopolicy.processes import stop_on_signals
from robopolicy.serve import serve
from robopolicy.spec import Field, Spec
from ros_nodes.contract import Contract

ARM = Contract.load("so101")
GOAL = 20.0  # degrees
_STEP = 1.0  # degrees per control step
SPEC = Spec(
    robot=ARM.robot,
    task="reach",
    fps=ARM.fps,
    chunk=16,
    obs_steps=2,
    horizon=75,
    proprio=(Field("joints", 6, "deg", -180.0, 180.0, elements=ARM.elements),),
    objects=(),
    action=(Field("targets", 6, "deg", -180.0, 180.0, elements=ARM.action_names),),
)


class ReachByScript:
    """A straight line from where the arm is, or from where it will be when the chunk is there."""

    spec = SPEC
    joins = True

    def initial(self, seeds):
        return {}

    def sample(self, obs: Tensor, carry, noise: Tensor, known: Known | None = None):
        here = obs[:, -1:]
        ahead = _STEP * torch.arange(1, SPEC.chunk + 1)[None, :, None]
        away = GOAL - here
        chunk = here + away.sign() * torch.minimum(away.abs(), ahead)
        return chunk if known is None else torch.where(known.weight == 1, known.chunk, chunk), carry


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    serve(ReachByScript(), None, options.address, stop_on_signals())
    return 0


if __name__ == "__main__":
    sys.exit(main())
