"""Files that are either whole or refused: safetensors and strict JSON, sealed by a manifest.

    DIR/
      config.json, model.safetensors, ...   what the artefact is made of
      spec.json                             what its numbers mean
      manifest.json                         kind, files with sha256 and size; written last, by rename
      progress.safetensors                  only while training: where to resume

A directory without a manifest that matches every file does not load. No pickle, anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.spec import SPEC_FILE, Spec

MANIFEST = "manifest.json"
PROGRESS = "progress.safetensors"
_SCHEMA = 1


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part."""
    temp = path.with_name(f".{path.name}.tmp")
    with open(temp, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temp, path)
    _sync_folder(path.parent)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes strict JSON (no NaN) atomically."""
    write_atomic(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads strict JSON.

    Raises:
        BadInput: if the file is missing, is not JSON or holds NaN.
    """
    if not path.is_file():
        raise BadInput(str(path), "a JSON file", "no such file")
    try:
        data = json.loads(path.read_text(), parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError, ValueError) as e:
        raise BadInput(str(path), "valid JSON", e) from e
    if not isinstance(data, dict):
        raise BadInput(str(path), "a JSON object", type(data).__name__)
    return data


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> None:
    """Writes tensors and JSON-able `meta` as one safetensors file, atomically."""
    temp = path.with_name(f".{path.name}.tmp")
    whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    save_file(whole, temp, metadata={"robopolicy": json.dumps(dict(meta or {}), allow_nan=False)})
    with open(temp, "rb") as f:
        os.fsync(f.fileno())
    os.replace(temp, path)
    _sync_folder(path.parent)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_tensors` wrote.

    Raises:
        BadInput: if the file is missing, damaged, or holds a non-finite number.
    """
    if not path.is_file():
        raise BadInput(str(path), "a safetensors file", "no such file")
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as f:
            meta = json.loads((f.metadata() or {}).get("robopolicy", "{}"))
    except (SafetensorError, json.JSONDecodeError, OSError) as e:
        raise BadInput(str(path), "a whole safetensors file", e) from e
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
            problems.append(f"{k} is {tuple(tensors[k].shape)}, not {tuple(own[k].shape)}")
    if problems:
        raise BadInput(where, "exactly the model's tensors", "; ".join(sorted(problems)[:8]))
    module.load_state_dict(dict(tensors))


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, independent of order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{t.dtype}|{tuple(t.shape)}|".encode())
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
    spec.save(folder)
    entries = {}
    for name in sorted({*files, SPEC_FILE}):
        data = (folder / name).read_bytes()
        entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    write_json(
        folder / MANIFEST,
        {"schema": _SCHEMA, "kind": kind, "spec": spec.fingerprint, "files": entries},
    )
    (folder / PROGRESS).unlink(missing_ok=True)


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
    if manifest.get("schema") != _SCHEMA or not isinstance(manifest.get("files"), dict):
        raise BadInput(f"{folder}/{MANIFEST}", f"manifest schema {_SCHEMA}", manifest.get("schema"))
    if manifest.get("kind") != kind:
        raise BadInput(str(folder), f"a {kind}", f"a {manifest.get('kind')}")
    for name, entry in manifest["files"].items():
        path = folder / name
        if Path(name).name != name or path.is_symlink():
            raise BadInput(f"{folder}/{MANIFEST}", "plain file names", repr(name))
        if not path.is_file():
            raise BadInput(str(path), f"{entry['bytes']} bytes", "no such file")
        data = path.read_bytes()
        if len(data) != entry["bytes"]:
            raise BadInput(str(path), f"{entry['bytes']} bytes", f"{len(data)} bytes")
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise BadInput(str(path), "the content it was sealed with", "changed content")
    spec = Spec.load(folder)
    if spec.fingerprint != manifest.get("spec"):
        raise BadInput(f"{folder}/{SPEC_FILE}", manifest.get("spec", ""), spec.fingerprint)
    return spec


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
