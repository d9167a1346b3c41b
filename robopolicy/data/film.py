"""Recorded pictures: videos decoded once into memory-mapped arrays; training never waits for a decoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from robopolicy.errors import BadInput
from robopolicy.progress import Progress
from robopolicy.spec import Camera

_CACHE = ".cache"


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
