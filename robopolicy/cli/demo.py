"""Arguments of `robopolicy demo`, the whole chain with one command; `robopolicy.cli.chain` runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robopolicy.cli.learn import PolicyKind


@dataclass(frozen=True)
class Demo:
    """Run the whole chain: demonstrations, policy, world model, steering, both judgements, report.

    Interrupted, the same command goes on where it stopped.

    Example: robopolicy demo --out runs/demo

    Attributes:
        out: folder of the run.
        task: what to learn.
        policy: kind of policy, see "robopolicy train --help".
        world: what is imagined: "state", poses that a simulator knows; "latent", what an eye sees in the
            pictures of a camera; or "pixel", the pictures themselves. With the latter two, nothing after the
            demonstrations sees anything but pictures and the robot itself.
        eye: what policies see of pictures: "points" that an eye learns first, or "pixels", in which the
            policy learns itself what to look for.
        cameras: that are looked through, such as scene and wrist; see "robopolicy collect --help".
        preset: "quick" for two cores, "full" for a graphics processor.
        seed: master seed.
        refresh: real episodes of the steered policy from which the world model learns once more, before it
            steers again; none by default.
        processes: simulators, or trainings of the world model, that run at the same time; changes no number.
    """

    out: Path = Path("runs/demo")
    task: str = "lift"
    policy: PolicyKind = "diffusion"
    world: Literal["state", "latent", "pixel"] = "state"
    eye: Literal["points", "pixels"] = "points"
    cameras: tuple[str, ...] = ("scene",)
    preset: str = "quick"
    seed: int = 0
    refresh: int = 0
    processes: int = 2
