"""`robopolicy convert`: recordings of others and of robots, and ours for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robopolicy.cli.common import Result, plain, positive, run
from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from robopolicy.spec import Spec
    from robopolicy.types import Episode

_HDF5 = (".hdf5", ".h5")


@dataclass(frozen=True)
class Convert:
    """Make recordings of robomimic (HDF5), LeRobot or a robot (folders) our own, or ours one of robomimic's.

    The log of a robot is what "robopolicy deploy --record" wrote: each engagement becomes an episode, so that
    a world model can learn from what happened. What the numbers of the others mean is drafted from names and
    values: read spec.json in the new folder, and correct units and ranges before a robot depends on them.
    Pictures are taken from LeRobot's videos only. With --eye, a dataset with pictures becomes one of what the
    eye sees in them, numbers like any others.
    Next: robopolicy train.

    Example: robopolicy convert --source demo.hdf5 --proprio robot0_eef_pos robot0_gripper_qpos
    --objects object --out runs/demos

    Attributes:
        source: file of robomimic's, folder of a LeRobotDataset v3, of a robot's log, or what "robopolicy
            collect" wrote.
        out: new folder; for what "robopolicy collect" wrote, a new file ending in .hdf5 inside a new folder.
        proprio: columns that the robot measures of itself; by default observation.state, or those of
            robomimic whose names begin with "robot".
        objects: columns of the world; by default observation.environment_state, or "object".
        cameras: those whose pictures are kept, by name without "observation.images."; all by default.
        task: name of the task, instead of the file's.
        fps: control rate in Hz, instead of the file's.
        chunk: actions per query of a policy.
        obs_steps: observations that it sees.
        ended: how all episodes ended, where the file does not say it or says it wrongly.
        eye: what "robopolicy train-eye" wrote, for a source that is ours already.
    """

    source: Path
    out: Path
    proprio: tuple[str, ...] | None = None
    objects: tuple[str, ...] | None = None
    cameras: tuple[str, ...] | None = None
    task: str = ""
    fps: float = 0.0
    chunk: int = 8
    obs_steps: int = 2
    ended: Literal["recorded", "success", "failure"] = "recorded"
    eye: Path | None = None


def convert(args: Convert) -> Result:
    """Converts a recording; see `Convert`."""
    if not args.source.exists():
        raise BadInput("source", "a file or a folder", f"{args.source} (no such file)")
    if args.out.suffix in _HDF5:
        return _export(args)
    return run("convert", args, None, lambda: _import(args))


def _export(args: Convert) -> Result:
    from robopolicy.data.episodes import dataset_info, load_episodes
    from robopolicy.data.foreign import write_robomimic

    spec, _ = dataset_info(args.source)
    episodes = load_episodes([args.source])
    write_robomimic(args.out, spec, episodes)
    steps = sum(e.length for e in episodes)
    return {"verb": "convert", "config": {"args": plain(args)}, "episodes": len(episodes), "steps": steps}


def _import(args: Convert) -> Result:
    from robopolicy.data.foreign import draft_spec, read_lerobot, read_robomimic, to_episodes
    from robopolicy.data.writer import check_episode

    positive(chunk=args.chunk, obs_steps=args.obs_steps)
    if args.eye is not None:
        return _import_seen(args, args.eye)
    if (args.source / "metadata.yaml").is_file():
        return _import_log(args)
    if args.source.is_dir():
        if (args.source / "spec.json").is_file():
            raise BadInput("out", "a file ending in .hdf5, as the source is ours already", args.out)
        recording = read_lerobot(args.source, args.cameras)
    elif args.source.suffix in _HDF5:
        recording = read_robomimic(args.source)
    else:
        raise BadInput("source", "a folder, or a file ending in .hdf5", args.source)
    recording = replace(recording, task=args.task or recording.task, fps=args.fps or recording.fps)
    proprio, objects = args.proprio, args.objects
    if proprio is None:
        proprio = tuple(c for c in recording.columns if c.startswith(("robot", "observation.state")))
    if objects is None:
        objects = tuple(c for c in recording.columns if c in ("object", "observation.environment_state"))
    spec = draft_spec(recording, proprio, objects, args.chunk, args.obs_steps)
    episodes = to_episodes(recording, spec, "converted", args.ended)
    for i, episode in enumerate(episodes):
        check_episode(episode, spec, f"{args.source} episode {i}")
    return {
        **_written(args, spec, episodes),
        "proprio": list(proprio),
        "objects": list(objects),
        "cameras": [c.name for c in spec.cameras],
        "left_out": [c for c in recording.columns if c not in (*proprio, *objects)],
    }


def _import_log(args: Convert) -> Result:
    from ros_nodes.logs import read_log, to_episodes

    log = read_log(args.source)
    episodes = to_episodes(log)
    if log.spec is None or not episodes:
        raise BadInput("source", "a log in which a policy moved the arm", f"{args.source} (none did)")
    # A seed says which episode of a simulator it was; of several engagements it tells nothing.
    numbered = [replace(e, seed=i) for i, e in enumerate(episodes)]
    return _written(args, log.spec, numbered)


def _import_seen(args: Convert, folder: Path) -> Result:
    from robopolicy.data.episodes import dataset_info, load_episodes
    from robopolicy.eye import load_eye, seen_episode, seen_spec

    if not (args.source / "spec.json").is_file():
        raise BadInput("source", "a dataset of ours (convert it first)", args.source)
    eye, _ = load_eye(folder)
    spec, settings = dataset_info(args.source)
    episodes = [seen_episode(e, spec, eye) for e in load_episodes([args.source])]
    return _written(args, seen_spec(spec, eye, folder), episodes, settings)


def _written(
    args: Convert, spec: Spec, episodes: Sequence[Episode], settings: Mapping[str, Any] | None = None
) -> Result:
    """Writes the episodes, and who made them; what a result says of them."""
    from robopolicy.data.writer import EpisodeWriter

    settings = settings or {"source": "converted", "file": args.source.name, "seed": 0}
    with EpisodeWriter(args.out, spec, spec.task, settings) as writer:
        for episode in episodes:
            if episode.seed not in writer.seeds_done:
                writer.add(episode)
    return {
        "task": spec.task,
        "episodes": len(episodes),
        "steps": sum(e.length for e in episodes),
        "successes": sum(e.success for e in episodes),
    }
