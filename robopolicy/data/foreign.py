"""Recordings that others made: robomimic's HDF5 and plain LeRobotDatasets, as episodes with a Spec.

Neither says what its numbers mean beyond their names, so the Spec is drafted: fields are the columns, ranges
what was seen and some more. Pictures are taken from videos of LeRobot's, and left out elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robopolicy.data.film import decoded
from robopolicy.errors import BadInput
from robopolicy.spec import Camera, Field, Role, Spec
from robopolicy.types import Episode

# By how much more than what was seen a state may be, as a share of its spread.
_MARGIN = 0.25
# LeRobot's own tolerance.
_CLOCK_SLACK_S = 1e-4
_PROPRIO, _OBJECTS = "observation.state", "observation.environment_state"
_IMAGES = "observation.images."
Ended = Literal["recorded", "success", "failure"]


@dataclass(frozen=True)
class Recording:
    """What a foreign file holds.

    Attributes:
        robot: its name.
        task: its name.
        fps: control rate in Hz; 0 if the file does not say.
        episodes: of each, the states' columns (L+1, *) by name, then "action" (L, A), and, if the file says
            when the task was achieved, "achieved" (L,) bool.
        names: of a column's single numbers, where the file says so.
        cameras: whose pictures there are.
        pictures: of each episode and camera, (L, H, W, 3) uint8.
    """

    robot: str
    task: str
    fps: float
    episodes: list[dict[str, np.ndarray]]
    names: dict[str, tuple[str, ...]]
    cameras: tuple[Camera, ...] = ()
    pictures: list[dict[str, np.ndarray]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Names of the states' columns."""
        return [c for c in self.episodes[0] if c not in ("action", "achieved")]


def read_robomimic(path: Path) -> Recording:
    """A robomimic file: `data/demo_N/{actions, rewards, obs/NAME, next_obs/NAME}`.

    Raises:
        BadInput: naming file and group of what is missing or damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file.get("data")
            if not isinstance(data, h5py.Group) or not len(data):
                raise BadInput(str(path), "a group data with demonstrations", sorted(file))
            about = json.loads(data.attrs.get("env_args", "{}"))
            demos = sorted(data, key=lambda n: (len(n), n))
            episodes = [_robomimic_episode(data[n], f"{path}:data/{n}") for n in demos]
    except (OSError, json.JSONDecodeError) as e:
        raise BadInput(str(path), "a whole HDF5 file of robomimic", e) from e
    kwargs = about.get("env_kwargs", {})
    robots = kwargs.get("robots") or ["robot"]
    robot = robots if isinstance(robots, str) else robots[0]
    task = str(about.get("env_name", path.stem)).lower()
    return Recording(robot.lower(), task, float(kwargs.get("control_freq", 0)), episodes, {})


def _robomimic_episode(demo: Any, where: str) -> dict[str, np.ndarray]:
    missing = [k for k in ("actions", "obs") if k not in demo]
    if missing:
        raise BadInput(where, "actions and obs", f"no {missing}")
    actions = np.asarray(demo["actions"], np.float32)
    columns: dict[str, np.ndarray] = {}
    for name, before in demo["obs"].items():
        if before.ndim > 2:
            continue  # a picture
        before = np.asarray(before, np.float32).reshape(len(before), -1)
        if len(before) != len(actions):
            raise BadInput(f"{where}/obs/{name}", f"{len(actions)} rows, one per action", len(before))
        if "next_obs" in demo:
            after = np.asarray(demo["next_obs"][name], np.float32).reshape(len(before), -1)
            columns[name] = np.concatenate([before, after[-1:]])
        else:
            columns[name] = before
    steps = len(actions) if "next_obs" in demo else len(actions) - 1
    columns["action"] = actions[:steps]
    if "rewards" in demo:
        columns["achieved"] = np.asarray(demo["rewards"])[:steps] > 0
    return columns


def write_robomimic(path: Path, spec: Spec, episodes: Sequence[Episode]) -> None:
    """Writes episodes as robomimic does, one `obs` per field of the Spec.

    Raises:
        BadInput: if there is such a file already.
    """
    import h5py

    if path.exists():
        raise BadInput("out", "a new file", f"{path} (exists)")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    about = {
        "env_name": spec.task,
        "type": 1,
        "env_kwargs": {"robots": [spec.robot], "control_freq": spec.fps},
    }
    with h5py.File(unfinished, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(about)
        data.attrs["total"] = sum(e.length for e in episodes)
        for i, episode in enumerate(episodes):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = episode.length
            demo["actions"] = episode.actions
            demo["rewards"] = episode.achieved.astype(np.float32)
            demo["dones"] = (np.arange(episode.length) == episode.length - 1).astype(np.uint8)
            for field in spec.state:
                values = episode.states[:, spec.slice_of(field.name)]
                demo[f"obs/{field.name}"], demo[f"next_obs/{field.name}"] = values[:-1], values[1:]
    unfinished.rename(path)


def read_lerobot(folder: Path, cameras: Sequence[str] | None = None) -> Recording:
    """A LeRobotDataset v3 with states; an episode's last action is left out, as nobody saw what it did.

    Args:
        folder: of the dataset.
        cameras: those whose pictures are kept, by name without `observation.images.`; all by default.

    Raises:
        BadInput: naming file and column of what is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from robopolicy.checkpoint import read_json

    info = read_json(folder / "meta" / "info.json")
    features = info["features"]
    columns = [c for c in (_PROPRIO, _OBJECTS) if c in features]
    if _PROPRIO not in features or "action" not in features:
        wanted = f"{_PROPRIO} and action"
        raise BadInput(f"{folder}/meta/info.json:features", wanted, sorted(features))
    flags = [c for c in ("next.success", "next.reward") if c in features][:1]
    files = sorted((folder / "data").rglob("*.parquet"))
    clock = ["timestamp"] if "timestamp" in features else []
    read = ["episode_index", *columns, "action", *flags, *clock]
    try:
        table = pa.concat_tables([pq.read_table(f, columns=read) for f in files])
        at = table["episode_index"].to_numpy()
        arrays = {c: np.asarray(table[c].to_pylist(), np.float32).reshape(len(at), -1) for c in read[1:]}
    except (pa.ArrowException, OSError, ValueError, TypeError) as e:
        raise BadInput(f"{folder}/data", f"whole parquet files with {read}", e) from e
    if clock:
        _check_clock(folder, at, table["timestamp"].to_numpy(), float(info["fps"]))
    kept = _cameras(features, cameras)
    films = {c.name: decoded(folder, c, len(at)) for c in kept}
    episodes, pictures = [], []
    for index in np.unique(at):
        rows = at == index
        episode: dict[str, np.ndarray] = {c: arrays[c][rows] for c in columns}
        episode["action"] = arrays["action"][rows][:-1]
        if flags:
            episode["achieved"] = arrays[flags[0]][rows][:-1, 0] > 0
        if len(episode["action"]):
            episodes.append(episode)
            pictures.append({name: film[rows][:-1] for name, film in films.items()})
    if not episodes:
        raise BadInput(f"{folder}/data", "an episode of at least two frames", f"{len(at)} frames")
    named = {c: features[c].get("names") for c in (*columns, "action")}
    names = {c: tuple(n) for c, n in named.items() if isinstance(n, list) and len(n) == arrays[c].shape[1]}
    robot, fps = str(info.get("robot_type") or "robot"), float(info["fps"])
    return Recording(robot, folder.name, fps, episodes, names, kept, pictures)


def _check_clock(folder: Path, episode: np.ndarray, times: np.ndarray, fps: float) -> None:
    """Refuses frames that do not follow each other at the rate that the dataset says it has."""
    if fps <= 0:
        raise BadInput(f"{folder}/meta/info.json:fps", "a rate in Hz", fps)
    slack = _CLOCK_SLACK_S + 2 * np.spacing(np.float32(np.abs(times[np.isfinite(times)]).max(initial=0)))
    step, same = np.diff(times.astype(float)), np.diff(episode) == 0
    off = same & ~(np.abs(step - 1 / fps) <= slack)
    if off.any():
        frame = int(off.argmax()) + 1
        where = f"{folder}/data:timestamp of frame {frame}, episode {episode[frame]}"
        raise BadInput(where, f"1/{fps:g} s after the one before", f"{step[frame - 1]:g} s")


def _cameras(features: dict[str, Any], wanted: Sequence[str] | None) -> tuple[Camera, ...]:
    """Those of the cameras that recorded videos which are wanted."""
    there = {
        key.removeprefix(_IMAGES): f["shape"]
        for key, f in features.items()
        if key.startswith(_IMAGES) and f["dtype"] == "video"
    }
    if unknown := set(wanted or ()) - set(there):
        raise BadInput("cameras", f"of {sorted(there)}, which recorded videos", sorted(unknown))
    names = there if wanted is None else wanted
    return tuple(Camera(name, *there[name][:2]) for name in names)


def draft_spec(
    recording: Recording, proprio: Sequence[str], objects: Sequence[str], chunk: int, obs_steps: int
) -> Spec:
    """A Spec with these columns, in this order.

    Args:
        recording: what was read.
        proprio: columns that the robot measures of itself.
        objects: columns of the world.
        chunk: actions per query of a policy.
        obs_steps: observations that it sees.

    Raises:
        BadInput: for a column that is not there.
    """
    for name in (*proprio, *objects):
        if name not in recording.columns:
            raise BadInput("column", f"one of {recording.columns}", name)
    if recording.fps <= 0:
        raise BadInput("fps", "a rate in Hz, which the file does not say", recording.fps)
    return Spec(
        robot=recording.robot,
        task=recording.task,
        fps=recording.fps,
        chunk=chunk,
        obs_steps=obs_steps,
        horizon=max(len(e["action"]) for e in recording.episodes),
        proprio=tuple(_drafted(recording, c) for c in proprio),
        objects=tuple(_drafted(recording, c) for c in objects),
        action=(_drafted(recording, "action"),),
        cameras=recording.cameras,
    )


def _drafted(recording: Recording, column: str) -> Field:
    values = np.concatenate([e[column] for e in recording.episodes])
    if not np.isfinite(values).all():
        raise BadInput(column, "finite numbers", "NaN or infinity")
    low, high = float(values.min()), float(values.max())
    size, role, margin = values.shape[1], _role(column, values.shape[1]), _MARGIN * (high - low) + 1e-3
    if column == "action":
        # A policy has to be able to say what was said: its chunks are limited to this range.
        low, high, margin = (-1.0, 1.0, 0.0) if low >= -1 and high <= 1 else (low, high, 1e-3)
    return Field(column, size, "1", low - margin, high + margin, role, recording.names.get(column, ()))


def _role(column: str, size: int) -> Role:
    if column == "action":
        return "command"
    return "point" if size == 3 and column.endswith("pos") else "other"


def to_episodes(recording: Recording, spec: Spec, source: str, ended: Ended = "recorded") -> list[Episode]:
    """The recording's episodes as the Spec orders their numbers.

    Args:
        recording: what was read.
        spec: what was drafted from it.
        source: label written into the episodes.
        ended: how they ended, if the file does not say when the task was achieved, or says it wrongly:
            "success" or "failure" for all.

    Raises:
        BadInput: if nothing says how they ended.
    """
    episodes = []
    pictures = recording.pictures or [{}] * len(recording.episodes)
    for index, columns in enumerate(recording.episodes):
        achieved = columns.get("achieved")
        if ended != "recorded":
            achieved = np.zeros(len(columns["action"]), bool)
            achieved[-1:] = ended == "success"
        if achieved is None:
            wanted = "success or failure, as the file does not say when the task was achieved"
            raise BadInput("ended", wanted, ended)
        states = np.concatenate([columns[f.name] for f in spec.state], -1)
        episodes.append(
            Episode.recorded(index, states, columns["action"], achieved, spec.chunk, source, pictures[index])
        )
    return episodes
