"""Reads recorded episodes: verified, decoded once into memory-mapped arrays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robopolicy.checkpoint import is_sealed, load_tensors, open_sealed, read_json
from robopolicy.data.film import content, decoded, filmed, mapped, with_pictures
from robopolicy.data.writer import (
    LAST,
    SIDECAR,
    check_episode,
    journal_files,
    read_journal,
    recorded_content,
)
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.spec import Spec
from robopolicy.types import Episode

_CACHE = ".cache"


def dataset_info(root: Path) -> tuple[Spec, dict[str, Any]]:
    """Spec and settings of a dataset, finished or cut off while recording.

    Raises:
        BadInput: if `root` is no dataset of ours or is damaged.
    """
    if not root.is_dir():
        raise BadInput("dataset", "a folder that robopolicy collect wrote", f"{root} (no such folder)")
    if is_sealed(root):
        return open_sealed(root, "dataset"), read_json(root / SIDECAR)["settings"]
    files = journal_files(root)
    if not files:
        raise BadInput("dataset", "a folder that robopolicy collect wrote", f"{root} (something else)")
    return Spec.load(files[0].parent), read_json(files[0].parent / "settings.json")


def load_episodes(roots: list[Path]) -> list[Episode]:
    """All episodes of some datasets, in order.

    Finished datasets are decoded at the first reading and memory-mapped from then on.

    Raises:
        BadInput: naming file, episode and field of what is missing, damaged or not finite.
    """
    if not roots:
        raise BadInput("dataset", "at least one dataset", "none")
    episodes: list[Episode] = []
    for root in roots:
        spec, _ = dataset_info(root)
        own = recorded_episodes(root)
        for i, episode in enumerate(own):
            check_episode(episode, spec, f"{root} episode {i}")
        if is_sealed(root):  # last, as the other checks say more of what is wrong
            _check_content(root)
        episodes += own
    return episodes


def recorded_episodes(root: Path) -> list[Episode]:
    """The episodes of one dataset as they are, their numbers not looked at."""
    if is_sealed(root):
        return _finished(root, dataset_info(root)[0])
    return [read_journal(p)[0] for p in journal_files(root)]


def _check_content(root: Path) -> None:
    """Refuses frames or videos in which a single byte has changed; older recordings do not say."""
    now = recorded_content(root)
    if read_json(root / SIDECAR).get("content", now) != now:
        raise BadInput(f"{root}/data, videos", "the frames that were recorded", "others")


def _finished(root: Path, spec: Spec) -> list[Episode]:
    rows = read_json(root / SIDECAR)["episodes"]
    n, k, a, numbers = spec.proprio_dim, spec.chunk, spec.action_dim, spec.numbers_dim
    columns = {
        "observation.state": n,
        "observation.environment_state": numbers - n,
        "action": a,
        "next.state": numbers,
        "policy_noise": k * a,
        "next.success": 1,
    }
    table = _decoded(root, {c: size for c, size in columns.items() if size})
    total = sum(row["length"] for row in rows)
    if len(table["action"]) != total:
        raise BadInput(f"{root}/data", f"{total} frames", len(table["action"]))
    films = {c.name: decoded(root, c, total) for c in filmed(spec)}
    last = {k: v.numpy() for k, v in load_tensors(root / LAST)[0].items()} if spec.pictures else {}
    episodes, start = [], 0
    for number, row in enumerate(rows):
        part = slice(start, start + row["length"])
        start += row["length"]
        parts = [table[c][part] for c in ("observation.state", "observation.environment_state") if c in table]
        before, after = np.concatenate(parts, -1), table["next.state"][part]
        starts = np.array(row["chunk_starts"], int)
        # A chunk that was cut off before its first action has no frame that could hold its noise.
        noise = table["policy_noise"][part][np.minimum(starts, row["length"] - 1)].reshape(-1, k, a)
        states = np.concatenate([before, after[-1:]])
        if spec.pictures:
            ends = {c: x[number : number + 1] for c, x in last.items()}
            seen = [np.concatenate([films[c.name][part], ends[c.name]]) for c in spec.pictures]
            states = with_pictures(states, seen)
        fields = {key: row[key] for key in row if key not in ("length", "chunk_starts", "doubt")}
        episodes.append(
            Episode(
                states=states,
                actions=table["action"][part],
                achieved=table["next.success"][part][:, 0].astype(bool),
                noise=noise,
                chunk_starts=starts,
                doubt=np.array(row["doubt"], np.float32),
                pictures={c.name: films[c.name][part] for c in spec.cameras},
                **fields,
            )
        )
    return episodes


def _decoded(root: Path, columns: dict[str, int]) -> dict[str, np.ndarray]:
    """(frames, size) of each column, memory-mapped; decoded from parquet if that has changed."""
    files = sorted((root / "data").rglob("*.parquet"))
    if not files:
        raise BadInput(f"{root}/data", "parquet files", "none")
    folder = root / _CACHE / content(files)[:16]
    if not folder.is_dir():
        try:
            frames = pa.concat_tables([pq.read_table(f, columns=list(columns)) for f in files])
        except (pa.ArrowInvalid, pa.ArrowException, OSError, KeyError) as e:
            raise BadInput(f"{root}/data", "whole parquet files with our columns", e) from e
        arrays = {n: _matrix(frames.column(n), size, f"{root}/data:{n}") for n, size in columns.items()}
        _publish(arrays, folder)
    return {c: mapped(folder / f"{c}.npy") for c in columns}


def _publish(arrays: dict[str, np.ndarray], folder: Path) -> None:
    """Writes `folder` whole or not at all; another process that does the same may be first."""
    temp = folder.with_name(f".{folder.name}.{os.getpid()}")
    temp.mkdir(parents=True, exist_ok=True)
    try:
        for name, array in arrays.items():
            np.save(temp / f"{name}.npy", array)
        temp.rename(folder)
    except OSError as e:
        if not folder.is_dir():
            raise RoboPolicyError(f"{folder} cannot be written: {e}") from e
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _matrix(column: pa.ChunkedArray, size: int, where: str) -> np.ndarray:
    values = column.combine_chunks()
    if pa.types.is_nested(values.type):
        values = values.flatten()
    try:
        array = values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), -1)
    except (ValueError, TypeError) as e:
        raise BadInput(where, f"{size} numbers per frame", e) from e
    if array.shape[1] != size:
        raise BadInput(where, f"{size} numbers per frame", array.shape[1])
    return array
