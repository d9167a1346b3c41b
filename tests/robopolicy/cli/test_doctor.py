"""The doctor knows what is wrong, says how to cure it, and never falls ill."""

import pytest

from robopolicy.cli import main
from robopolicy.cli.doctor import Finding, diagnose, packages, ros


def test_doctor_runs_and_agrees_with_its_findings(capsys):
    code = main(["doctor"])
    out = capsys.readouterr().out
    assert code == int("fail " in out)
    for subject in ("python", "packages", "simulator", "graphics", "ros", "threads", "memory", "disk"):
        assert subject in out


def states(findings) -> dict[str, str]:
    return {f.subject: f.state for f in findings}


GOOD = {
    **dict.fromkeys(("torch", "lerobot", "diffusers", "safetensors", "gymnasium", "tyro", "rich"), "1"),
    "numpy": "2.2.6",
    "mujoco": "3.3.0",
    "robosuite": "1.5.1",
}


@pytest.mark.parametrize(
    ("change", "subject", "state"),
    [
        ({}, "simulator", "ok"),
        ({"mujoco": "3.17.0"}, "simulator", "fail"),
        ({"robosuite": "1.5.2"}, "simulator", "warn"),
        ({"robosuite": None}, "simulator", "warn"),
        ({"numpy": "1.26.4"}, "numpy", "fail"),
        ({"lerobot": None}, "packages", "fail"),
    ],
)
def test_doctor_knows_packages_that_do_not_go_together(change, subject, state):
    installed = {**GOOD, **change}
    findings = list(packages(installed.get))
    assert states(findings)[subject] == state
    assert all(f.cure for f in findings if f.state != "ok")


def test_doctor_sees_two_ros_installations():
    mixed = list(ros({"ROS_DISTRO": "jazzy"}, lambda _: "7.1.6"))
    assert states(mixed)["ros mixed"] == "warn"
    assert "ros mixed" not in states(ros({}, lambda _: "7.1.6"))


def test_doctor_sees_too_many_threads():
    assert states(diagnose({"OMP_NUM_THREADS": "4096"}))["threads"] == "warn"
    assert states(diagnose({"OMP_NUM_THREADS": "1"}))["threads"] == "ok"


def test_a_failing_check_is_exit_code_1(monkeypatch, capsys):
    found = [Finding("fail", "disk", "[full]", "make room")]
    monkeypatch.setattr("robopolicy.cli.doctor.diagnose", lambda: found)
    assert main(["doctor"]) == 1
    assert "[full]" in capsys.readouterr().out
