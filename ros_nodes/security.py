"""Who may say what, as a policy for SROS2: only the gate may command the arm. Pure.

    ros2 security create_keystore keys
    ros2 security create_enclave keys /NAMESPACE/gate        # and policy, recorder
    ros2 security create_permission keys /NAMESPACE/gate policy.xml
    ROS_SECURITY_ENABLE=true ROS_SECURITY_STRATEGY=Enforce ROS_SECURITY_KEYSTORE=keys ...

The drivers of the arm need an enclave of their own: the file names the topics that they may publish.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from ros_nodes.contract import Contract

_LIFECYCLE = (
    "change_state",
    "get_state",
    "get_available_states",
    "get_available_transitions",
    "get_transition_graph",
)
_PARAMETERS = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "get_type_description",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
)


def policy_xml(contract: Contract, namespace: str = "robopolicy") -> str:
    """A policy file of SROS2 (version 0.2.0) for the nodes of a deployment.

    Args:
        contract: of the arm.
        namespace: of the nodes.
    """
    states = [s.topic for s in contract.streams]
    pictures = [c.topic for c in contract.cameras]
    commands = ["command"] if contract.driven is None else [o.topic for o in contract.driven.outlets]
    gate = ["gate/request", "gate/state", "gate/contract", "gate/events", "/diagnostics"]
    policy = ["policy/chunk", "policy/heartbeat", "policy/spec", "policy/asked"]
    heard = [*states, *pictures, "policy/chunk", "policy/heartbeat", "policy/spec"]
    says = {
        "gate": (commands + gate, heard, ["engage", "stop", "reset"]),
        "policy": (policy, [*states, *pictures, "gate/request"], ["reset"]),
        "recorder": (["success"], [*states, *commands, *gate, *policy, "success"], ["success"]),
        "driver": ([*states, *pictures], commands, []),
    }
    root = ET.Element("policy", version="0.2.0")
    enclaves = ET.SubElement(root, "enclaves")
    for node, (publishes, listens, services) in says.items():
        enclave = ET.SubElement(enclaves, "enclave", path=f"/{namespace}/{node}")
        profile = ET.SubElement(ET.SubElement(enclave, "profiles"), "profile", ns=f"/{namespace}", node=node)
        own = [f"{node}/{s}" for s in (*services, *_LIFECYCLE, *_PARAMETERS)]
        _rule(profile, "services", "reply", own)
        _rule(
            profile,
            "topics",
            "publish",
            [*publishes, f"{node}/transition_event", "/rosout", "/parameter_events"],
        )
        _rule(profile, "topics", "subscribe", [*listens, "/clock", "/parameter_events"])
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _rule(profile: ET.Element, kind: str, may: str, names: Sequence[str]) -> None:
    rule = ET.SubElement(profile, kind, {may: "ALLOW"})
    for name in dict.fromkeys(names):
        ET.SubElement(rule, kind[:-1]).text = name


def unenforced(environment: Mapping[str, str]) -> str:
    """Why ROS 2 lets any process on the network speak, "" if it does not.

    Args:
        environment: variables of the process.
    """
    if environment.get("ROS_SECURITY_ENABLE", "").lower() != "true":
        return "ROS_SECURITY_ENABLE is not true"
    if environment.get("ROS_SECURITY_STRATEGY", "").lower() != "enforce":
        return "ROS_SECURITY_STRATEGY is not Enforce: who has no key is let in all the same"
    if not environment.get("ROS_SECURITY_KEYSTORE"):
        return "ROS_SECURITY_KEYSTORE names no keys"
    return ""
