"""What a result holds, and how memory and time are measured."""

import json
import subprocess
import sys
import time

import pytest

from robopolicy.results import PeakMemory, Stopwatch, hardware, versions, write_result


def test_result_has_the_common_fields_and_the_verbs_own(tmp_path):
    out = tmp_path / "a" / "b"
    fields = {"config": {"args": {"seed": 3}}, "rate": 0.5}
    result = write_result(out, "evaluate", fields)
    assert json.loads((out / "result.json").read_text()) == result
    assert result["schema"] == 1
    assert result["verb"] == "evaluate"
    assert result["config"] == {"args": {"seed": 3}}
    assert result["rate"] == 0.5
    wanted = {"python", "robopolicy", "torch", "lerobot", "diffusers", "mujoco", "robosuite", "numpy"}
    assert set(result["versions"]) == wanted
    assert set(result["hardware"]) == {"cpu", "cores", "memory_gb", "platform", "gpu"}


def test_result_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_result(tmp_path, "train", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, "train", {"loss": float("nan")})
    assert json.loads((tmp_path / "result.json").read_text())["loss"] == 1.0


def test_missing_packages_have_no_version(monkeypatch):
    monkeypatch.setattr("robopolicy.results._PACKAGES", ("no-such-package-here",))
    assert versions()["no-such-package-here"] is None


def test_hardware_is_named():
    found = hardware()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gb"] > 0


def test_peak_memory_counts_children():
    code = "x = b'1' * 150_000_000; print(len(x), flush=True); import time; time.sleep(60)"
    with PeakMemory(every_s=0.01) as memory:
        before = memory.mb
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            child.stdout.readline()
            deadline = time.monotonic() + 10
            while memory.mb < before + 150 and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
    assert memory.mb > before + 150


def test_stopwatch_adds_up_stages_even_those_that_fail():
    times = iter([0.0, 2.0, 10.0, 11.0, 20.0, 24.0])
    watch = Stopwatch(lambda: next(times))
    with watch.stage("train"):
        pass
    with watch.stage("collect"):
        pass
    with pytest.raises(KeyError), watch.stage("train"):
        raise KeyError
    assert watch.seconds == {"train": 6.0, "collect": 1.0}
    assert watch.total == 7.0
