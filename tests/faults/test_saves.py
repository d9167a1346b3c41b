"""Faults of saving, each by its number in docs/faults.md: 24 to 28, what is cut off, shared or not a name."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from crashpoints import crash_points, forked, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import episode, same_episode, tiny_spec
from trainings import tiny_member, tiny_steerer

from robopolicy.checkpoint import (
    is_sealed,
    load_tensors,
    open_sealed,
    read_json,
    save_tensors,
    tensor_hash,
    write_json,
)
from robopolicy.cli.common import run
from robopolicy.data import writer as writing
from robopolicy.data.episodes import load_episodes
from robopolicy.data.writer import EpisodeWriter
from robopolicy.errors import BadInput, RoboPolicyError
from robopolicy.nets.ema import Ema
from robopolicy.policies.gaussian import GaussianPolicy, load_gaussian, save_gaussian
from robopolicy.processes import alone
from robopolicy.spec import Camera
from robopolicy.train import descend, fit, load_optimizer_state, optimizer_state, seeded_init

SPEC = tiny_spec()
OLD, NEW = {"w": torch.arange(40.0)}, {"w": -torch.arange(60.0)}


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a full disk; Rust's writes fail too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def policy(seed: int = 0) -> GaussianPolicy:
    return GaussianPolicy(SPEC, 2, 1, torch.Generator().manual_seed(seed))


def test_fault_24_disk_full_at_any_byte_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    tensors, text = tmp_path / "progress.safetensors", tmp_path / "a.json"
    save_tensors(tensors, OLD)
    write_json(text, {"old": 1})
    for size in range(0, 390, 13):
        with disk_of(size), pytest.raises(RoboPolicyError, match=r"progress\.safetensors cannot be written"):
            save_tensors(tensors, NEW)
    for size in range(len('{\n "new": 2\n}\n')):
        with disk_of(size), pytest.raises(RoboPolicyError, match=r"a\.json cannot be written"):
            write_json(text, {"new": 2})
    assert tensor_hash(load_tensors(tensors)[0]) == tensor_hash(OLD)
    assert read_json(text) == {"old": 1}
    assert sorted(os.listdir(tmp_path)) == ["a.json", "progress.safetensors"]


def test_fault_24_disk_with_less_room_than_a_save_takes_is_not_written_to(tmp_path, monkeypatch):
    path = tmp_path / "progress.safetensors"
    save_tensors(path, OLD)
    size = sum(t.nbytes for t in NEW.values())
    written = []
    monkeypatch.setattr("robopolicy.checkpoint.save_file", lambda *args, **_: written.append(args))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=size - 1))
    with pytest.raises(RoboPolicyError, match=rf"kept: {size} bytes wanted, {size - 1} free"):
        save_tensors(path, NEW)
    assert not written
    assert tensor_hash(load_tensors(path)[0]) == tensor_hash(OLD)


def test_fault_24_disk_full_seals_nothing_and_loses_no_episode(tmp_path):
    recorder = EpisodeWriter(tmp_path / "set", SPEC, "push", {})
    for size in (0, 100, 300, 1000):
        with disk_of(size), pytest.raises(RoboPolicyError, match="cannot be written"):
            save_gaussian(policy(), tmp_path / "policy")
        with disk_of(size), pytest.raises(RoboPolicyError, match="cannot be written"):
            recorder.add(episode(SPEC, 0, 5, True))
        assert not is_sealed(tmp_path / "policy")
        assert recorder.seeds_done == set()
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]
    recorder.add(episode(SPEC, 0, 5, True))
    assert same_episode(load_episodes([tmp_path / "set"])[0], episode(SPEC, 0, 5, True))


def test_fault_25_progress_killed_at_any_change_is_the_old_or_the_new(tmp_path):
    path = tmp_path / "progress.safetensors"
    save_tensors(path, OLD, {"next": 1})
    seen = []
    for _ in crash_points(lambda: save_tensors(path, NEW, {"next": 2})):
        tensors, meta = load_tensors(path)
        seen.append(meta["next"])
        assert tensor_hash(tensors) == tensor_hash(OLD if meta["next"] == 1 else NEW)
    assert seen[0] == 1
    assert seen[-1] == 2
    assert len(seen) > 4


def test_fault_25_artefact_killed_at_any_change_is_whole_or_refused(tmp_path):
    out, seen = tmp_path / "policy", []
    for _ in crash_points(lambda: save_gaussian(policy(), out)):
        seen.append(is_sealed(out))
        if is_sealed(out):
            assert load_gaussian(out, open_sealed(out, "policy")).hash() == policy().hash()
        else:
            with pytest.raises(BadInput):
                open_sealed(out, "policy")
    assert seen == sorted(seen)
    assert seen[-1]
    assert len(seen) > 12


EPISODES = [episode(SPEC, i, length, bool(i % 2)) for i, length in enumerate([3, 1])]


def test_fault_25_recording_killed_at_any_change_loses_no_episode(tmp_path, monkeypatch):
    root, begun, built = tmp_path / "set", tmp_path / "begun", tmp_path / "built"

    def add(folder: Path) -> None:
        EpisodeWriter(folder, SPEC, "push", {}).add(EPISODES[1])

    EpisodeWriter(root, SPEC, "push", {}).add(EPISODES[0])
    for _ in crash_points(lambda: add(root)):
        done = load_episodes([root])
        assert all(same_episode(a, b) for a, b in zip(done, EPISODES, strict=False))
        assert len(done) in (1, 2)
        (root / "journal/000001.safetensors").unlink(missing_ok=True)
    assert len(done) == 2
    add(root)

    # LeRobot is slow, and what it builds is a copy until the seal is on it: once is enough.
    writing._build(built, SPEC, "push", EPISODES)
    monkeypatch.setattr(writing, "_build", lambda build, *_: _copy(built, build))
    shutil.copytree(root, begun)
    sealed = []
    for _ in crash_points(lambda: EpisodeWriter(root, SPEC, "push", {}).close()):
        sealed.append(is_sealed(root))
        for again in (False, True):
            if again and not sealed[-1]:
                EpisodeWriter(root, SPEC, "push", {}).close()
            assert all(same_episode(a, b) for a, b in zip(load_episodes([root]), EPISODES, strict=True))
        shutil.rmtree(root)
        shutil.copytree(begun, root)
    assert sealed == sorted(sealed)
    assert len(sealed) > 20


def _copy(built: Path, build: Path) -> None:
    for file in (next(built.rglob("data/**/*.parquet")), built / "meta" / "info.json"):
        (build / file.relative_to(built)).parent.mkdir(parents=True)
        shutil.copyfile(file, build / file.relative_to(built))


class Averaged:
    """Regression with AdamW and the moving average of its weights."""

    def __init__(self):
        with seeded_init(1):
            self.net = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-2)
        self.ema = Ema(self.net, 0.9)

    def step(self, index, generator):
        x = torch.randn(8, 3, generator=generator)
        loss = (self.net(x) - x[:, :2]).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        descend(self.optimizer, self.net.parameters())
        self.ema.update(self.net)
        return {"loss": float(loss.detach())}

    def state(self):
        own = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        return own | self.ema.state("ema") | optimizer_state(self.optimizer, "optimizer")

    def load_state(self, tensors):
        self.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        self.ema.load_state("ema", tensors)
        load_optimizer_state(self.optimizer, "optimizer", tensors)


LEARNERS = {"average": Averaged, "steerer": tiny_steerer, "world": tiny_member}
STEPS = 9


def kill_at(step: int):
    """An `on_step` at which the process is killed."""
    return lambda i, _: os.kill(os.getpid(), signal.SIGKILL) if i == step else None


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as a child has: sums over several are rounded otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", LEARNERS)
def test_fault_26_training_killed_at_any_step_and_resumed_is_the_same_to_the_bit(tmp_path, kind):
    straight = LEARNERS[kind]()
    curve = fit(straight, STEPS, 5, "toy", quiet=True)
    for at in range(STEPS):
        progress = tmp_path / f"{at}.safetensors"
        given = {"progress_file": progress, "save_every_s": 0.0, "quiet": True}
        code = outcome(
            lambda at=at, given=given: fit(LEARNERS[kind](), STEPS, 5, "toy", on_step=kill_at(at), **given)
        )
        assert code == -signal.SIGKILL
        assert progress.is_file() == (at > 0)
        resumed = LEARNERS[kind]()
        rows = fit(resumed, STEPS, 5, "toy", **given)
        assert rows == curve
        assert tensor_hash(resumed.state()) == tensor_hash(straight.state())


@pytest.mark.usefixtures("one_thread")
def test_fault_26_resuming_without_the_counter_of_the_average_would_show(tmp_path):
    straight, progress = Averaged(), tmp_path / "progress.safetensors"
    fit(straight, STEPS, 5, "toy", quiet=True)
    outcome(
        lambda: fit(Averaged(), STEPS, 5, "toy", progress, save_every_s=0, on_step=kill_at(4), quiet=True)
    )
    tensors, meta = load_tensors(progress)
    save_tensors(progress, tensors | {"ema#count": torch.tensor(0)}, meta)
    resumed = Averaged()
    fit(resumed, STEPS, 5, "toy", progress, quiet=True)
    assert tensor_hash(resumed.net.state_dict()) == tensor_hash(straight.net.state_dict())
    assert tensor_hash(resumed.ema.average) != tensor_hash(straight.ema.average)


@dataclass(frozen=True)
class Args:
    out: Path


def test_fault_27_second_writer_is_refused_by_process_and_a_killed_one_holds_nothing(tmp_path):
    out = tmp_path / "out"
    ready, begun = os.pipe()

    def write() -> None:
        with alone(out):
            os.write(begun, b"1")
            signal.pause()

    child = forked(write)
    try:
        os.read(ready, 1)
        for same in (out, tmp_path / "x" / ".." / "out"):
            with pytest.raises(BadInput, match=rf"process {child} writes there"):
                run("train", Args(same), None, lambda: {"done": 1})
        assert not out.exists()
        run("train", Args(tmp_path / "other"), None, lambda: {})
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(begun)
    assert run("train", Args(out), None, lambda: {"done": 1})["done"] == 1
    assert os.listdir(out) == ["result.json"]


_opened: list[str] | None = None


def _watch(event: str, args: tuple) -> None:
    if _opened is not None and event == "open":
        _opened.append(os.path.realpath(args[0]) if isinstance(args[0], str) else "")


sys.addaudithook(_watch)  # for ever: Python cannot take one back


@contextmanager
def opening() -> Iterator[list[str]]:
    """The real paths of all files that are opened inside."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> Path:
    """Beside a secret, and with a link to it."""
    out = tmp_path_factory.mktemp("names") / "policy"
    save_gaussian(policy(), out)
    (out.parent / "secret").write_bytes((out / "config.json").read_bytes())
    (out / "link").symlink_to(out.parent / "secret")
    (out / "inner").mkdir()
    return out


def refused_as_a_name(artefact: Path, name: str) -> None:
    """That a manifest in which a file is called `name`, with the secret's hash, opens nothing elsewhere."""
    manifest = read_json(artefact / "manifest.json")
    entry = manifest["files"]["config.json"]
    whole = (artefact / "manifest.json").read_bytes()
    (artefact / "manifest.json").write_text(json.dumps({**manifest, "files": {name: entry}}))
    try:
        with opening() as files, pytest.raises(BadInput):
            open_sealed(artefact, "policy")
    finally:
        (artefact / "manifest.json").write_bytes(whole)
    assert files
    assert all(f.startswith(f"{os.path.realpath(artefact)}/") for f in files)


HOSTILE = [
    "../secret",
    "{}/secret",
    "inner/../../secret",
    "link",
    "inner",
    ".",
    "..",
    "",
    "...",
    "config.json\0",
]
HOSTILE += [
    "./config.json",
    "config.json\n",
    "config.json/",
    "~/secret",
    "c\u043enfig.json",
    "a" * 300,
    "a b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_fault_28_name_in_a_manifest_never_leads_elsewhere(artefact, name):
    refused_as_a_name(artefact, name.replace("{}", str(artefact.parent)))
    if not name.isalpha():
        with pytest.raises(BadInput, match="camera"):
            Camera(name, 8, 8)


@settings(max_examples=100, deadline=None)
@given(name=st.text("./\\\0:~ab-\u2024\uff0e", max_size=8))
def test_fault_28_any_name_in_a_manifest_is_refused_with_a_reason(artefact, name):
    refused_as_a_name(artefact, name)
