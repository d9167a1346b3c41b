"""Writes episodes as a LeRobotDataset v3, one at a time, without losing any to a crash.

ROOT/
  journal/000000.safetensors ...   while recording: one file per episode, on disk before `add` returns
  meta/ data/ videos/              after closing: the LeRobotDataset
  robopolicy.json spec.json        what LeRobot has no room for: seeds, sources, flags, settings
  last.safetensors                 where pictures are in the state, those after the last action
  manifest.json                    written last
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from robopolicy.checkpoint import (
    is_sealed,
    load_tensors,
    read_json,
    save_spec,
    save_tensors,
    seal,
    write_json,
)
from robopolicy.data.film import content, filmed, shown
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.spec import Spec
from robopolicy.types import Episode

SIDECAR = "robopolicy.json"
LAST = "last.safetensors"
JOURNAL = "journal"
_SETTINGS = "settings.json"
_FLAGS = ("seed", "success", "terminated", "truncated", "source", "strategy", "instruction", "reason")
_PICTURES = "observation.images."
_SMALL = 128  # pixels a side; nobody watches such videos in a browser, which cannot show them
_ARRAYS = ("states", "actions", "achieved", "noise", "chunk_starts", "doubt")


class EpisodeWriter:
    """Records episodes into `root`; continues a recording that was cut off.

    Args:
        root: folder of the dataset.
        spec: what the numbers mean.
        task: sentence that LeRobot shows as the task.
        settings: how the episodes came about; saved with them.

    Raises:
        BadInput: if `root` holds a finished dataset, or one begun with another Spec or settings.
    """

    def __init__(self, root: Path, spec: Spec, task: str, settings: Mapping[str, Any]):
        if is_sealed(root):
            raise BadInput("dataset", "a new folder or an unfinished dataset", f"{root} (finished)")
        self.root, self.spec, self.task = root, spec, task
        self.settings = json.loads(json.dumps(dict(settings), allow_nan=False))
        self.journal = root / JOURNAL
        if (self.journal / _SETTINGS).is_file():
            spec.require(Spec.load(self.journal), str(root))
            before = read_json(self.journal / _SETTINGS)
            if before != self.settings:
                raise BadInput(str(root), f"settings {before}", self.settings)
        self._done = [read_journal(p)[0] for p in journal_files(root)]

    @property
    def seeds_done(self) -> set[int]:
        """Seeds of the episodes already recorded."""
        return {e.seed for e in self._done}

    def add(self, episode: Episode) -> None:
        """Records one episode; it is on disk when this returns.

        Raises:
            BadInput: if it is empty or a number is not finite or out of the Spec's range.
        """
        check_episode(episode, self.spec, f"episode {len(self._done)}")
        if not (self.journal / _SETTINGS).is_file():
            self.journal.mkdir(parents=True, exist_ok=True)
            save_spec(self.spec, self.journal)
            write_json(self.journal / _SETTINGS, self.settings)
        arrays = {n: getattr(episode, n) for n in _ARRAYS}
        arrays |= {f"{_PICTURES}{n}": frames for n, frames in episode.pictures.items()}
        tensors = {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items()}
        flags = {n: getattr(episode, n) for n in _FLAGS}
        save_tensors(self.journal / f"{len(self._done):06d}.safetensors", tensors, flags)
        self._done.append(episode)

    def close(self) -> None:
        """Turns the journal into a LeRobotDataset and seals it."""
        if not self._done:
            raise BadInput("dataset", "at least one episode", "none")
        # Recording order depends on which simulator was faster; the dataset must not.
        episodes = sorted(self._done, key=lambda e: e.seed)
        build = self.root / "build"
        shutil.rmtree(build, ignore_errors=True)
        try:
            _build(build, self.spec, self.task, episodes)
        except OSError as e:
            shutil.rmtree(build, ignore_errors=True)
            raise RoboPolicyError(f"{build} cannot be written, the recording is kept: {e}") from e
        for part in ("meta", "data", *(["videos"] if filmed(self.spec) else [])):
            shutil.rmtree(self.root / part, ignore_errors=True)
            (build / part).rename(self.root / part)
        shutil.rmtree(build)
        rows = [
            {n: getattr(e, n) for n in _FLAGS}
            | {"length": e.length, "chunk_starts": e.chunk_starts.tolist(), "doubt": e.doubt.tolist()}
            for e in episodes
        ]
        about = {"task": self.task, "settings": self.settings, "content": recorded_content(self.root)}
        write_json(self.root / SIDECAR, {**about, "episodes": rows})
        kept = [SIDECAR]
        if self.spec.pictures:
            ends = [shown(e.states[-1:], self.spec) for e in episodes]
            last = {c.name: np.concatenate([x[c.name] for x in ends]) for c in self.spec.pictures}
            tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in last.items()}
            save_tensors(self.root / LAST, tensors)
            kept.append(LAST)
        seal(self.root, "dataset", self.spec, kept)
        shutil.rmtree(self.journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()


def recorded_content(root: Path) -> str:
    """sha256 of the frames and videos of a finished dataset."""
    found = (p for kind in ("data", "videos") for p in (root / kind).rglob("*"))
    return content(sorted(p for p in found if p.is_file()))


def journal_files(root: Path) -> list[Path]:
    """Recorded episodes of an unfinished dataset."""
    return sorted((root / JOURNAL).glob("*.safetensors"))


def read_journal(path: Path) -> tuple[Episode, Spec]:
    """One recorded episode and the Spec it was recorded with."""
    spec = Spec.load(path.parent)
    tensors, flags = load_tensors(path)
    wanted = [*_ARRAYS, *(f"{_PICTURES}{c.name}" for c in spec.cameras)]
    if set(tensors) != set(wanted) or set(flags) != set(_FLAGS):
        raise BadInput(str(path), f"{wanted} and {_FLAGS}", sorted({*tensors, *flags}))
    pictures = {c.name: tensors.pop(f"{_PICTURES}{c.name}").numpy() for c in spec.cameras}
    return Episode(**{k: v.numpy() for k, v in tensors.items()}, **flags, pictures=pictures), spec


def check_episode(episode: Episode, spec: Spec, where: str) -> None:
    """Refuses an episode with wrong shapes, or numbers that are not finite or out of range."""
    if episode.length == 0 or len(episode.states) != episode.length + 1:
        got = f"{len(episode.states)} states, {episode.length} actions"
        raise BadInput(where, "L >= 1 actions and L + 1 states", got)
    _check_frames(spec.check_obs, episode.states, f"{where} state")
    _check_frames(spec.check_action, episode.actions, f"{where} action")
    for name in ("noise", "doubt"):
        if not np.isfinite(getattr(episode, name)).all():
            raise BadInput(f"{where} {name}", "finite numbers", "NaN or infinity")
    for camera in spec.cameras:
        frames = episode.pictures.get(camera.name, np.zeros(0))
        shape = (episode.length, camera.height, camera.width, 3)
        if frames.shape != shape or frames.dtype != np.uint8:
            wanted = f"pictures of shape {shape}, uint8"
            raise BadInput(f"{where} camera {camera.name}", wanted, f"{frames.shape}, {frames.dtype}")
    if unknown := set(episode.pictures) - {c.name for c in spec.cameras}:
        raise BadInput(f"{where} pictures", f"of the cameras {[c.name for c in spec.cameras]}", unknown)


def _check_frames(check: Callable[..., np.ndarray], frames: np.ndarray, where: str) -> None:
    """Runs a Spec's check over all frames; what it refuses is named with its frame."""
    try:
        check(frames, where)
    except BadInput:
        for i, frame in enumerate(frames):
            try:
                check(frame, where)
            except BadInput as e:
                raise BadInput(f"{e.field} (frame {i})", e.wanted, e.got) from None
        raise


def _build(root: Path, spec: Spec, task: str, episodes: list[Episode]) -> None:
    import av.logging
    import datasets
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    datasets.disable_progress_bars()  # one bar per episode, each a second long
    av.logging.set_libav_level(av.logging.ERROR)  # else a dozen lines per video
    n, k, a, numbers = spec.proprio_dim, spec.chunk, spec.action_dim, spec.numbers_dim
    names, cameras = spec.state_names[:numbers], filmed(spec)

    def floats(size: int, labels: tuple[str, ...] | None = None) -> dict[str, Any]:
        return {"dtype": "float32", "shape": (size,), "names": list(labels) if labels else None}

    features = {
        "observation.state": floats(n, names[:n]),
        "observation.environment_state": floats(numbers - n, names[n:]),
        "action": floats(a, spec.action_names),
        # The state after the action: without it an episode's last state would be lost.
        "next.state": floats(numbers, names),
        "policy_noise": floats(k * a),
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    }
    if numbers == n:
        del features["observation.environment_state"]
    for c in cameras:
        shape = {"shape": (c.height, c.width, 3), "names": ["height", "width", "channels"]}
        features[f"{_PICTURES}{c.name}"] = {"dtype": "video", **shape}
    # LeRobot's own choice, AV1, brings the process down with pictures as small as those of tests. The usual
    # halving of colours takes from small pictures what there is to be seen: those lose nothing but rounding.
    small = all(max(c.height, c.width) < _SMALL for c in cameras)
    look = ("yuv444p", 0) if small else ("yuv420p", 18)
    encoder = RGBEncoderConfig(vcodec="h264", pix_fmt=look[0], crf=look[1])
    dataset = LeRobotDataset.create(
        f"robopolicy/{spec.task}",
        round(spec.fps),
        features,
        root,
        spec.robot,
        use_videos=bool(cameras),
        rgb_encoder=encoder,
    )
    for e in episodes:
        noise, pictures = _noise_by_frame(e, k, a), shown(e.states, spec) | e.pictures
        for i in range(e.length):
            frame = {
                "observation.state": e.states[i, :n],
                "observation.environment_state": e.states[i, n:numbers],
                "action": e.actions[i],
                "next.state": e.states[i + 1, :numbers],
                "policy_noise": noise[i],
                "next.success": e.achieved[i : i + 1],
                "next.done": np.array([i == e.length - 1]),
                "task": e.instruction or task,
                **{f"{_PICTURES}{name}": frames[i] for name, frames in pictures.items()},
            }
            dataset.add_frame({key: v for key, v in frame.items() if key in features or key == "task"})
        with nullcontext() if cameras else _no_pictures():
            dataset.save_episode()
    dataset.finalize()


@contextmanager
def _no_pictures() -> Iterator[None]:
    """Spares LeRobot the search for pictures in every single frame: there are none, and it takes longest."""
    from lerobot.datasets import dataset_writer

    embed = dataset_writer.embed_images
    dataset_writer.embed_images = lambda dataset: dataset
    try:
        yield
    finally:
        dataset_writer.embed_images = embed


def _noise_by_frame(e: Episode, k: int, a: int) -> np.ndarray:
    """(L, K*A) noise of the chunk each frame belongs to; zeros if the episode has none of that size."""
    if len(e.noise) == 0 or e.noise.shape[1:] != (k, a):
        return np.zeros((e.length, k * a), np.float32)
    chunk = np.searchsorted(e.chunk_starts, np.arange(e.length), "right") - 1
    return e.noise.reshape(len(e.noise), -1)[chunk].astype(np.float32)
