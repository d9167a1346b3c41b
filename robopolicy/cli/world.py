"""`robopolicy train-eye` and `train-world`: what pictures are seen with, and what is imagined in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robopolicy.cli.common import Result, choose, need, positive, run, with_changes
from robopolicy.errors import BadInput


@dataclass(frozen=True)
class TrainEye:
    """Train an eye, which makes pictures numbers of the state: points that follow what moves, or all pixels.

    Trained on its own and then frozen, it is a sensor: whatever follows learns from what it sees. The folder
    is also the name of a task, the one that was recorded, as the eye sees it.
    Next: robopolicy convert --eye, then everything else with --task FOLDER.

    Example: robopolicy collect --task lift --pictures 64 --out runs/filmed
    Example: robopolicy train-eye --dataset runs/filmed --out runs/eye
    Example: robopolicy convert --source runs/filmed --eye runs/eye --out runs/demos

    Attributes:
        dataset: folders with pictures that "robopolicy collect" or "convert" wrote.
        out: folder of the eye.
        kind: "points", or "pixels", which are left as they are: then nothing is trained here, and each policy
            learns itself what to look for.
        preset: "quick" for two cores, "full" for a graphics processor.
        steps: number of updates, instead of the preset's.
        seed: master seed.
    """

    dataset: tuple[Path, ...]
    out: Path
    kind: Literal["points", "pixels"] = "points"
    preset: str = "quick"
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrainWorld:
    """Train a world model to imagine in.

    It needs demonstrations and rollouts: what it has never seen fail succeeds in imagination.
    Next: robopolicy imagine, or robopolicy steer.

    Example: robopolicy train-world --dataset runs/demos runs/rollouts --preset quick --out runs/world

    Attributes:
        dataset: folders that "robopolicy collect" wrote.
        out: folder of the world model.
        eye: what "robopolicy train-eye" wrote: then the pictures of the dataset are imagined, not states, and
            policies that were trained with this eye see them through it.
        preset: "quick" for two cores, "full" for a graphics processor.
        steps: updates per ensemble member, instead of the preset's.
        seed: master seed.
        processes: ensemble members are trained in this many; changes no weight.
        precision: with --eye, of the networks, here and whenever this model imagines; bf16 is for graphics
            processors.
        compiler: with --eye, backend of torch.compile, such as inductor, which takes a minute to begin with,
            or cudagraphs; by default nothing is compiled.
    """

    dataset: tuple[Path, ...]
    out: Path
    eye: Path | None = None
    preset: str = "quick"
    steps: int | None = None
    seed: int = 0
    processes: int = 2
    precision: Literal["fp32", "bf16"] = "fp32"
    compiler: str = ""


def train_eye(args: TrainEye) -> Result:
    """Trains an eye; see `TrainEye`."""
    from robopolicy.nets.eye import EYE_PRESETS

    config = with_changes(choose("preset", EYE_PRESETS, args.preset), steps=args.steps, kind=args.kind)
    positive(steps=config.steps)

    def work() -> Result:
        from robopolicy import eye
        from robopolicy.checkpoint import folder_hash

        report = eye.train_eye(need("dataset", args.dataset), args.out, config, args.seed)
        return {**report, "hash": folder_hash(args.out)}

    return run("train-eye", args, config, work)


def train_world(args: TrainWorld) -> Result:
    """Trains a world model; see `TrainWorld`."""
    if args.eye is not None:
        return _train_pixel_world(args, args.eye)
    from robopolicy.config import WORLD_PRESETS

    for name, plain in (("precision", "fp32"), ("compiler", "")):
        if getattr(args, name) != plain:
            raise BadInput(name, f"{plain or 'none'} where states are imagined", getattr(args, name))

    config = with_changes(choose("preset", WORLD_PRESETS, args.preset), steps=args.steps)
    positive(steps=config.steps, processes=args.processes)

    def work() -> Result:
        from robopolicy.checkpoint import folder_hash
        from world_models import train as world

        report = world.train_world(need("dataset", args.dataset), args.out, config, args.seed, args.processes)
        return {**report, "hash": folder_hash(args.out)}

    return run("train-world", args, config, work)


def _train_pixel_world(args: TrainWorld, eye: Path) -> Result:
    from world_models.pixels.config import PIXEL_PRESETS

    config = choose("preset", PIXEL_PRESETS, args.preset)
    config = with_changes(config, steps=args.steps, precision=args.precision)
    positive(steps=config.steps)

    def work() -> Result:
        from robopolicy.checkpoint import folder_hash
        from world_models.pixels.train import train_pixel_world

        (folder,) = need("eye", [eye])
        given = need("dataset", args.dataset), folder, args.out, config, args.seed
        report = train_pixel_world(*given, args.compiler)
        return {**report, "hash": folder_hash(args.out)}

    return run("train-world", args, config, work, shared=True)
