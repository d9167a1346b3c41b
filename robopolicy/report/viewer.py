"""Recordings for rerun's viewer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from rerun import RecordingStream


@contextmanager
def rerun_file(path: Path, name: str) -> Iterator[RecordingStream]:
    """A recording that is whole when the block is left.

    Args:
        path: a new file; by custom it ends in ".rrd".
        name: which no other recording has.

    Raises:
        BadInput: if rerun is not there, or the file is.
    """
    try:
        from rerun import RecordingStream
    except ImportError as e:
        raise BadInput("rerun", "the package: pip install rerun-sdk", "none") from e
    if path.exists():
        raise BadInput("rerun", "a new file", f"{path} (exists)")
    path.parent.mkdir(parents=True, exist_ok=True)
    recording = RecordingStream("robopolicy", recording_id=name)
    recording.save(path)
    try:
        yield recording
    finally:
        recording.flush()
        recording.disconnect()
