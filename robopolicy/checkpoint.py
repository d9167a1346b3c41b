"""Files that are either whole or refused: safetensors and strict JSON, sealed by a manifest.

    DIR/
      config.json, model.safetensors, ...   what the artefact is made of
      spec.json                             what its numbers mean
      manifest.json                         kind, files with sha256 and size; written last, by rename
      progress.safetensors                  only while training: where to resume

A directory without a manifest that matches every file does not load. What is written outside of a sealed
directory holds its own checksum. No pickle, anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.spec import SPEC_FILE, Spec

MANIFEST = "manifest.json"
PROGRESS = "progress.safetensors"
REMEMBERED = "remembered.json"
_SCHEMA = 1
_CHECKSUM = "sha256"
_PLAIN = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,120}")


def plain_name(name: object) -> bool:
    """Whether `name` is that of a file which can only lie in the folder that it is looked for in."""
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part.

    Raises:
        RoboPolicyError: if it cannot be written, as on a full disk; the old content is kept.
    """
    with _replacing(path) as temp, open(temp, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes strict JSON (no NaN) atomically."""
    write_atomic(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads strict JSON.

    Raises:
        BadInput: if the file is missing, is not JSON, holds NaN or a key twice.
    """
    if not path.is_file():
        raise BadInput(str(path), "a JSON file", "no such file")
    try:
        data = json.loads(
            path.read_text(), parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated
        )
    except (ValueError, RecursionError) as e:
        raise BadInput(str(path), "valid JSON", e) from e
    if not isinstance(data, dict):
        raise BadInput(str(path), "a JSON object", type(data).__name__)
    return data


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> None:
    """Writes tensors and JSON-able `meta` as one safetensors file, atomically.

    Raises:
        RoboPolicyError: if there is no room, or it cannot be written otherwise; the old content is kept.
    """
    whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # One entry, as safetensors keeps no order of several: the same content has to be the same bytes.
    known = json.loads(json.dumps(dict(meta or {}), allow_nan=False))
    about = json.dumps({**known, _CHECKSUM: _checksum(whole, known)})
    with _replacing(path) as temp:
        wanted, free = sum(t.nbytes for t in whole.values()), shutil.disk_usage(path.parent).free
        if free < wanted:
            raise OSError(f"{wanted} bytes wanted, {free} free")
        save_file(whole, temp, metadata={"robopolicy": about})
        with open(temp, "rb") as f:
            os.fsync(f.fileno())


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_tensors` wrote.

    Raises:
        BadInput: if the file is missing, damaged, changed, or holds a non-finite number.
    """
    if not path.is_file():
        raise BadInput(str(path), "a safetensors file", "no such file")
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as f:
            meta = dict(json.loads((f.metadata() or {}).get("robopolicy", "{}")))
    except (SafetensorError, ValueError, TypeError, OSError) as e:
        raise BadInput(str(path), "a whole safetensors file", e) from e
    checksum = meta.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(tensors, meta):
        raise BadInput(str(path), "the content it was written with", "changed content")
    for name, t in tensors.items():
        if t.is_floating_point() and not torch.isfinite(t).all():
            raise BadInput(f"{path}:{name}", "finite numbers", "NaN or infinity")
    return tensors, meta


def load_strict(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Loads tensors into a module; every key and shape must match, all differences are listed.

    Raises:
        BadInput: naming missing and unexpected keys and shapes that differ.
    """
    own = module.state_dict()
    problems = [f"missing {k}" for k in own.keys() - tensors.keys()]
    problems += [f"unexpected {k}" for k in tensors.keys() - own.keys()]
    for k in own.keys() & tensors.keys():
        if own[k].shape != tensors[k].shape or own[k].dtype != tensors[k].dtype:
            got, wanted = (f"{tuple(t.shape)} {t.dtype}" for t in (tensors[k], own[k]))
            problems.append(f"{k} is {got}, not {wanted}")
    if problems:
        raise BadInput(where, "exactly the model's tensors", "; ".join(sorted(problems)))
    module.load_state_dict(dict(tensors))


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, independent of order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{t.dtype}|{tuple(t.shape)}|".encode())
        if t.numel():  # of none, torch cannot view the bytes
            digest.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def folder_hash(folder: Path) -> str:
    """sha256 of an artefact: of its manifest, which holds the hash of every file; unsealed, of the files."""
    if is_sealed(folder):
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    files = sorted(p for p in folder.iterdir() if p.is_file())
    entries = [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def seal(folder: Path, kind: str, spec: Spec, files: list[str]) -> None:
    """Declares an artefact finished: writes its Spec and, last, the manifest of `files`.

    Args:
        folder: where the files already are.
        kind: "policy", "world", "steerer" or "dataset".
        spec: what its numbers mean.
        files: names inside `folder`.
    """
    save_spec(spec, folder)
    entries = {}
    for name in sorted({*files, SPEC_FILE}):
        with open(folder / name, "rb") as f:
            data = f.read()
            os.fsync(f.fileno())  # whoever wrote it may not have done so
        entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    write_json(
        folder / MANIFEST,
        {"schema": _SCHEMA, "kind": kind, "spec": spec.fingerprint, "files": entries},
    )
    (folder / PROGRESS).unlink(missing_ok=True)


def save_spec(spec: Spec, folder: Path) -> None:
    """As `Spec.save`, atomically."""
    write_atomic(folder / SPEC_FILE, json.dumps(spec.to_dict(), indent=1, allow_nan=False).encode())


def remember(out: Path, made_with: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Keeps what is to be said of an artefact that is about to be sealed, until it has been said.

    Whoever is killed between the two would otherwise have an artefact and no curve of its training.

    Args:
        out: the artefact's folder.
        made_with: settings; `remembered` compares them.
        fields: JSON-able.
    """
    write_json(out / REMEMBERED, {"made_with": plain(made_with), "fields": dict(fields)})


def remembered(out: Path, made_with: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `remember` kept of a finished artefact; none if there is nothing to remember.

    Raises:
        BadInput: if it was made with other settings.
    """
    if not is_sealed(out) or not (out / REMEMBERED).is_file():
        return None
    found = read_json(out / REMEMBERED)
    if found["made_with"] != plain(made_with):
        raise BadInput("out", "a free folder or the same settings as before", f"{out}, other settings")
    return found["fields"]


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON would give them back."""
    return json.loads(json.dumps(dict(settings), default=str))


def is_sealed(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def open_sealed(folder: Path, kind: str) -> Spec:
    """Verifies every file of an artefact against its manifest and returns its Spec.

    Raises:
        BadInput: naming the file that is missing, cut short, changed, or of another kind.
    """
    if not folder.is_dir():
        raise BadInput(kind, f"a {kind} directory", f"{folder} (no such directory)")
    manifest = read_json(folder / MANIFEST)
    if set(manifest) != {"schema", "kind", "spec", "files"} or not isinstance(manifest["files"], dict):
        raise BadInput(f"{folder}/{MANIFEST}", "schema, kind, spec and files", sorted(manifest))
    if type(manifest["schema"]) is not int or manifest["schema"] != _SCHEMA:
        raise BadInput(f"{folder}/{MANIFEST}", f"manifest schema {_SCHEMA}", manifest["schema"])
    if manifest["kind"] != kind:
        raise BadInput(str(folder), f"a {kind}", f"a {manifest['kind']}")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not plain_name(name) or path.is_symlink():
            raise BadInput(f"{folder}/{MANIFEST}", "plain file names", repr(name))
        if not isinstance(entry, dict) or set(entry) != {"sha256", "bytes"}:
            raise BadInput(f"{folder}/{MANIFEST}:{name}", "sha256 and bytes", entry)
        if not path.is_file():
            raise BadInput(str(path), f"{entry['bytes']} bytes", "no such file")
        data = path.read_bytes()
        if len(data) != entry["bytes"]:
            raise BadInput(str(path), f"{entry['bytes']} bytes", f"{len(data)} bytes")
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise BadInput(str(path), "the content it was sealed with", "changed content")
    spec = Spec.load(folder)
    if spec.fingerprint != manifest["spec"]:
        raise BadInput(f"{folder}/{SPEC_FILE}", str(manifest["spec"]), spec.fingerprint)
    return spec


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _checksum(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    about = json.dumps(dict(meta), sort_keys=True)
    return hashlib.sha256(f"{tensor_hash(tensors)}|{about}".encode()).hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to be written, which takes the place of `path` once it is whole and on the disk."""
    temp = path.with_name(f".{path.name}.tmp")
    try:
        yield temp
        os.replace(temp, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as e:
        raise RoboPolicyError(f"{path} cannot be written, what was there is kept: {e}") from e
    finally:
        temp.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
