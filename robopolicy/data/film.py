"""Recorded pictures: videos decoded once into memory-mapped arrays; training never waits for a decoder.

Pictures that are a part of the state are kept as videos too, and become numbers again when they are read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from robopolicy.errors import BadInput
from robopolicy.progress import Progress
from robopolicy.spec import Camera, Spec

_CACHE = ".cache"


def filmed(spec: Spec) -> tuple[Camera, ...]:
    """All cameras of which a dataset keeps videos: beside the state, or in it."""
    beside = {c.name for c in spec.cameras}
    return (*spec.cameras, *(c for c in spec.pictures if c.name not in beside))


def shown(states: np.ndarray, spec: Spec) -> dict[str, np.ndarray]:
    """(N, H, W, 3) uint8 by camera, the pictures in states (N, D)."""
    found, start = {}, spec.numbers_dim
    for c in spec.pictures:
        end = start + 3 * c.height * c.width
        flat = states[:, start:end].reshape(-1, 3, c.height, c.width)
        found[c.name] = np.rint(255 * flat).astype(np.uint8).transpose(0, 2, 3, 1)
        start = end
    return found


def with_pictures(numbers: np.ndarray, frames: Iterable[np.ndarray]) -> np.ndarray:
    """(N, D) states of their numbers (N, *) and pictures (N, H, W, 3) uint8; the inverse of `shown`."""
    flat = [x.transpose(0, 3, 1, 2).reshape(len(x), -1).astype(np.float32) / 255 for x in frames]
    return np.concatenate([numbers, *flat], 1, dtype=np.float32)


def decoded(root: Path, camera: Camera, frames: int) -> np.ndarray:
    """(frames, H, W, 3) uint8, memory-mapped: all pictures of a camera in a LeRobotDataset, in its order.

    Args:
        root: folder of the dataset.
        camera: which.
        frames: of the whole dataset.

    Raises:
        BadInput: naming the file that is missing, damaged, of another size or too short.
    """
    folder = root / "videos" / f"observation.images.{camera.name}"
    files = sorted(folder.rglob("*.mp4"))
    if not files:
        raise BadInput(str(folder), "videos", "none")
    path = root / _CACHE / f"{camera.name}-{content(files)[:16]}.npy"
    if not path.is_file():
        _decode(files, camera, frames, path)
    return mapped(path)


def content(files: Iterable[Path]) -> str:
    """sha256 of what is in some files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def mapped(path: Path) -> np.ndarray:
    """An array that was decoded before, memory-mapped.

    Raises:
        BadInput: if it is damaged; its folder can be deleted, it is decoded again then.
    """
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        raise BadInput(str(path), "a whole array (delete the folder .cache: it is made again)", e) from e


def _decode(files: list[Path], camera: Camera, frames: int, path: Path) -> None:
    """Writes the whole array or nothing."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    shape, folder = (frames, camera.height, camera.width, 3), files[0].parents[1]
    array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
    try:
        with Progress(f"pictures ({camera.name})", frames) as bar:
            at = 0
            for file in files:
                for picture in _pictures(file):
                    if picture.shape != shape[1:]:
                        raise BadInput(str(file), f"pictures of shape {shape[1:]}", picture.shape)
                    if at == frames:
                        raise BadInput(str(folder), f"{frames} pictures", "more")
                    array[at] = picture
                    at += 1
                    bar.advance()
            if at < frames:
                raise BadInput(str(folder), f"{frames} pictures", at)
        array.flush()
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _pictures(file: Path) -> Iterator[np.ndarray]:
    import av

    try:
        with av.open(str(file)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as e:
        raise BadInput(str(file), "a whole video", e) from e
