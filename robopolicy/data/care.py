"""Looking after recordings: what is wrong with them, what can be saved, joining and dividing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.checkpoint import folder_hash, is_sealed
from robopolicy.data.episodes import dataset_info, load_episodes, recorded_episodes
from robopolicy.data.writer import EpisodeWriter, check_episode, journal_files, read_journal
from robopolicy.errors import BadInput
from robopolicy.seeding import stream
from robopolicy.spec import Spec
from robopolicy.types import Episode


def problems(root: Path) -> list[str]:
    """Everything that is wrong with a dataset, finished or cut off; each names file, episode or frame."""
    try:
        spec, _ = dataset_info(root)
    except BadInput as e:
        return [str(e)]
    if not is_sealed(root):
        return [reason for _, reason in _journal(root) if isinstance(reason, str)]
    try:
        load_episodes([root])
    except BadInput as e:
        return [str(e), *(p for p in _each(root, spec) if p != str(e))]
    return []


def _each(root: Path, spec: Spec) -> list[str]:
    """What is wrong with single episodes, if they can be read at all."""
    try:
        episodes = recorded_episodes(root)
    except BadInput:
        return []
    found = []
    for i, episode in enumerate(episodes):
        try:
            check_episode(episode, spec, f"{root} episode {i}")
        except BadInput as e:
            found.append(str(e))
    return found


def _journal(root: Path) -> list[tuple[Path, Episode | str]]:
    """Files of a recording that was cut off, with their episode, or what is wrong with it."""
    found: list[tuple[Path, Episode | str]] = []
    for path in journal_files(root):
        try:
            episode, spec = read_journal(path)
            check_episode(episode, spec, str(path))
            found.append((path, episode))
        except BadInput as e:
            found.append((path, str(e)))
    return found


def repair(root: Path, out: Path, leave_out: Sequence[int] = ()) -> dict[str, Any]:
    """Makes a dataset of the whole episodes of one that was cut off, or of a finished one without some.

    `root` stays as it is.

    Args:
        root: the recording.
        out: a new folder, whose settings name what was left out.
        leave_out: numbers of episodes of a finished recording, as `problems` names them.

    Returns:
        How many `episodes` were kept, and what is wrong with those that were `left_out`, by file.

    Raises:
        BadInput: if another episode is damaged too, or none is named of a finished recording: no other
            copy is there to mend it with.
    """
    spec, settings = dataset_info(root)
    if is_sealed(root):
        return _without(root, out, spec, settings, sorted(set(leave_out)))
    if leave_out:
        raise BadInput("leave_out", "none, as what is damaged is left out anyway", list(leave_out))
    files = _journal(root)
    kept = [e for _, e in files if isinstance(e, Episode)]
    left_out = {path.name: reason for path, reason in files if isinstance(reason, str)}
    _write(out, spec, kept, settings)
    return {"episodes": len(kept), "left_out": left_out}


def _without(root: Path, out: Path, spec: Spec, settings: dict[str, Any], named: list[int]) -> dict[str, Any]:
    episodes = recorded_episodes(root)
    if not named or named[0] < 0 or named[-1] >= len(episodes) or len(named) == len(episodes):
        wanted = f"some of the {len(episodes)} episodes, from 0 on, as {root} is finished"
        raise BadInput("leave_out", wanted, named or "none")
    kept = {i: e for i, e in enumerate(episodes) if i not in named}
    for i, episode in kept.items():
        check_episode(episode, spec, f"{root} episode {i}")
    _write(out, spec, list(kept.values()), {**settings, "left_out": named})
    return {"episodes": len(kept), "left_out": {str(i): "asked for" for i in named}}


def merge(roots: Sequence[Path], out: Path) -> dict[str, Any]:
    """One dataset of several with the same Spec; each episode goes on to say where it is from.

    Raises:
        BadInput: naming the dataset whose Spec differs.
    """
    spec, _ = dataset_info(roots[0])
    for root in roots[1:]:
        spec.require(dataset_info(root)[0], str(root))
    episodes = load_episodes(list(roots))
    made_of = {root.resolve().name: folder_hash(root)[:16] for root in roots if is_sealed(root)}
    _write(out, spec, episodes, {"source": "merged", "made_of": made_of})
    return {"episodes": len(episodes), "successes": sum(e.success for e in episodes)}


def divide(root: Path, out: Path, share: float, seed: int) -> dict[str, Any]:
    """Two datasets of one, `out/train` and `out/held_out`, each with at least one episode.

    Args:
        root: finished or cut off.
        out: a new folder.
        share: of the episodes that are trained on.
        seed: of the choice.
    """
    spec, settings = dataset_info(root)
    episodes = load_episodes([root])
    if not 0 < share < 1 or len(episodes) < 2:
        wanted = "a share between 0 and 1, of at least 2 episodes"
        raise BadInput("share", wanted, f"{share} of {len(episodes)}")
    order = stream(seed, "dataset-split").permutation(len(episodes))
    cut = min(max(1, round(share * len(episodes))), len(episodes) - 1)
    parts = {"train": order[:cut], "held_out": order[cut:]}
    for name, rows in parts.items():
        _write(out / name, spec, [episodes[i] for i in rows], {**settings, "part": name, "split_seed": seed})
    return {name: len(rows) for name, rows in parts.items()}


def statistics(roots: Sequence[Path]) -> dict[str, Any]:
    """What is in some datasets with the same Spec: episodes by source, lengths, and what numbers do."""
    spec, _ = dataset_info(roots[0])
    for root in roots[1:]:
        spec.require(dataset_info(root)[0], str(root))
    episodes = load_episodes(list(roots))
    lengths = np.array([e.length for e in episodes])
    values = {
        "state": (spec.state, np.concatenate([e.states for e in episodes])),
        "action": (spec.action, np.concatenate([e.actions for e in episodes])),
    }
    fields, still = {}, []
    for fields_of, rows in values.values():
        start = 0
        for field in fields_of:
            own, start = rows[:, start : start + field.size], start + field.size
            fields[field.name] = {
                "min": float(own.min()),
                "max": float(own.max()),
                "range": [field.low, field.high],
            }
            spread = np.ptp(own, 0)
            still += [name for name, x in zip(field.names, spread, strict=True) if x == 0]
    return {
        "episodes": len(episodes),
        "successes": sum(e.success for e in episodes),
        "sources": dict(Counter(e.source for e in episodes)),
        "steps": int(lengths.sum()),
        "hours": float(lengths.sum() / spec.fps / 3600),
        "length": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
        "cameras": [f"{c.name} {c.height} x {c.width}" for c in spec.cameras],
        "fields": fields,
        "never_change": still,
    }


def _write(out: Path, spec: Spec, episodes: Sequence[Episode], settings: dict[str, Any]) -> None:
    with EpisodeWriter(out, spec, spec.task, settings) as writer:
        for episode in episodes:
            writer.add(episode)
