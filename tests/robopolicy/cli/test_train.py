"""Every kind of policy goes through the chain by its name."""

import pytest

from robopolicy.checkpoint import read_json
from robopolicy.cli import main
from robopolicy.policies.load import load_policy

KINDS = {"beso": ("beso", 3, "none"), "flow": ("flow", 5, "none"), "sega": ("ddim", 5, "sega")}


@pytest.mark.parametrize("kind", KINDS)
def test_train_by_name_then_imagine_and_steer(kind, here, tmp_path):
    trained = f"train --dataset data --policy {kind} --preset tiny --steps 3 --out {tmp_path}/policy"
    assert main(trained.split()) == 0
    config = load_policy(tmp_path / "policy").core.config
    assert (config.process, config.num_inference_steps, config.memory) == KINDS[kind]
    common = f"--world world --policy {tmp_path}/policy"
    steered = f"steer {common} --dataset data --preset tiny --out {tmp_path}/steerer"
    assert main(steered.split()) == 0
    imagined = f"imagine {common} --steerer {tmp_path}/steerer --episodes 4 --out {tmp_path}/imagined"
    assert main(imagined.split()) == 0
    rows = read_json(tmp_path / "imagined/result.json")["policies"]
    assert [row["episodes"] for row in rows] == [4, 4]
