"""`robopolicy diagnose`: how far a world model can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from robopolicy.cli.common import Result, need, run
from robopolicy.errors import BadInput


@dataclass(frozen=True)
class Diagnose:
    """Say how far a world model can be trusted, on real episodes that it has not seen.

    Replayed failures must be imagined as failures, successes as successes; the beginning of a failure must be
    seen; doubt must rank the true error. Of a pixel world model: how like its pictures are to real ones.
    Collect the episodes with a seed range of their own (robopolicy collect --first 50000), with the policies
    that are to be judged, successes and failures.

    Example: robopolicy diagnose --world runs/world --dataset runs/fresh --out runs/diagnosis

    Attributes:
        world: saved world model.
        dataset: folders that "robopolicy collect" wrote.
        out: folder of the result.
        seed: of the sampler's noise.
        rerun: recording to write for rerun's viewer ("rerun FILE.rrd"): real episodes beside what is imagined
            of their actions; of a world model of states.
    """

    world: Path
    dataset: tuple[Path, ...]
    out: Path
    seed: int = 0
    rerun: Path | None = None


def diagnose(args: Diagnose) -> Result:
    """Compares a world model with real episodes; see `Diagnose`."""
    return run("diagnose", args, None, lambda: _diagnose(args))


def _diagnose(args: Diagnose) -> Result:
    from robopolicy.data.episodes import dataset_info, load_episodes
    from world_models.diagnose import diagnose
    from world_models.load import load_world
    from world_models.recording import rerun_recording
    from world_models.state import StateWorldModel

    need("world", [args.world])
    world, folders = load_world(args.world), need("dataset", args.dataset)
    if not isinstance(world, StateWorldModel):
        if args.rerun:
            raise BadInput("rerun", "none with a world model of pictures: its report has them", args.rerun)
        from world_models.pixels.quality import quality
        from world_models.pixels.train import pixel_episodes

        return quality(world.model, pixel_episodes(folders, world.spec, world.cameras), args.seed)
    for folder in folders:
        # Pictures beside the states are not looked at.
        world.spec.require(replace(dataset_info(folder)[0], cameras=()), str(folder))
    episodes = load_episodes(list(folders))
    found = diagnose(world, episodes, args.seed)
    if args.rerun:
        rerun_recording(world, episodes, args.seed, args.rerun)
    table = {f"onset_{k}": found["onset"][k] for k in ("auc", "auc_of_neighbours") if k in found["onset"]}
    doubt, action = found["doubt"]["spearman"], found["action"]["error_ratio"]
    return {**found["replay"], "doubt_spearman": doubt, **table, "action_error_ratio": action, **found}
