"""Only the gate may command the arm, and what is not enforced is said."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from ros_nodes.contract import Contract
from ros_nodes.security import policy_xml, unenforced

ALL = ("panda_sim", "panda_jtc", "ur5e", "servo", "so101")
SAFE = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": "/keys"}


def _said(root: ET.Element, may: str) -> dict[str, set[str]]:
    """Node -> topics that it may publish or subscribe."""
    rules = f"topics[@{may}='ALLOW']/topic"
    return {p.get("node", ""): {t.text or "" for t in p.iterfind(rules)} for p in root.iter("profile")}


@pytest.mark.parametrize("name", ALL)
def test_policy_only_the_gate_may_publish_commands(name):
    contract = Contract.load(name)
    root = ET.fromstring(policy_xml(contract, "arm").split("?>", 1)[1])
    driven = contract.driven
    commands = {"command"} if driven is None else {o.topic for o in driven.outlets}
    publishes, listens = _said(root, "publish"), _said(root, "subscribe")
    assert {n for n, topics in publishes.items() if topics & commands} == {"gate"}
    assert commands <= listens["driver"]
    states = {s.topic for s in contract.streams}
    assert {n for n, topics in publishes.items() if topics & states} == {"driver"}
    assert {n for n, topics in publishes.items() if "policy/chunk" in topics} == {"policy"}
    assert {e.get("path") for e in root.iter("enclave")} >= {"/arm/gate", "/arm/policy", "/arm/recorder"}


def test_unenforced_names_the_first_variable_that_is_missing():
    assert unenforced(SAFE) == ""
    for name in SAFE:
        assert name in unenforced({k: v for k, v in SAFE.items() if k != name})
    assert "Enforce" in unenforced({**SAFE, "ROS_SECURITY_STRATEGY": "Permissive"})
