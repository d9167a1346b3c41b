"""A layout for Foxglove shows each command, each state and each camera of a contract once."""

import json
from pathlib import Path

import pytest

import ros_nodes
from robopolicy.cli import main
from ros_nodes.contract import Contract
from ros_nodes.layouts import foxglove_layout

SHIPPED = sorted(p.stem for p in (Path(ros_nodes.__file__).parent / "config").glob("*.yaml"))


def leaves(tree):
    return [tree] if isinstance(tree, str) else leaves(tree["first"]) + leaves(tree["second"])


@pytest.mark.parametrize("robot", SHIPPED)
def test_layout_of_every_contract_shows_all_of_it_once(robot):
    contract = Contract.load(robot)
    layout = foxglove_layout(contract, "left")
    panels = layout["configById"]
    assert sorted(leaves(layout["layout"])) == sorted(panels)
    paths = [line["value"] for p in panels.values() for line in p.get("paths", ())]
    assert len(set(paths)) == len(paths)
    assert all(p.startswith("/left/") for p in paths)
    rotations = sum(len(s.rotation) for s in contract.streams)
    assert len(paths) == len(contract.action_names) + len(contract.elements) - rotations + 1
    assert sum(n.startswith("Image!") for n in panels) == len(contract.cameras)


def test_layout_by_command_is_json(tmp_path):
    assert main(["contract", "--foxglove", "servo", "--out", str(tmp_path / "layout.json")]) == 0
    assert json.loads((tmp_path / "layout.json").read_text()) == foxglove_layout(Contract.load("servo"))
