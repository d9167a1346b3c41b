"""Policy, Spec and data that belong together are used together, or refused."""

import dataclasses
import os
import signal

import pytest
from tiny import POLICY, random_episodes, tiny_policy, tiny_spec, write_dataset

from robopolicy.checkpoint import seal
from robopolicy.errors import BadInput, Interrupted
from robopolicy.policies.load import load_policy
from robopolicy.policies.train import PolicyLearner, save_policy, train_policy

SPEC = tiny_spec()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (dataclasses.replace(SPEC, chunk=6), "horizon.*wanted 6, 2, got 4, 2"),
        (dataclasses.replace(SPEC, obs_steps=3), "n_obs_steps.*wanted 4, 3, got 4, 2"),
        (
            dataclasses.replace(SPEC, action=SPEC.proprio),
            r"features.*'action': \(4,\).*got.*'action': \(3,\)",
        ),
        (tiny_spec(objects=False), "features.*got.*environment_state"),
    ],
)
def test_policy_sealed_with_a_spec_of_other_sizes_is_refused(tmp_path, other, named):
    save_policy(tiny_policy(SPEC), tmp_path)
    files = [p.name for p in tmp_path.iterdir() if p.name not in ("spec.json", "manifest.json")]
    seal(tmp_path, "policy", other, files)
    with pytest.raises(BadInput, match=named):
        load_policy(tmp_path)


def test_training_is_not_resumed_with_other_data(tmp_path, monkeypatch):
    datasets = [write_dataset(tmp_path / f"{i}", SPEC, random_episodes(SPEC, 3, seed=i)) for i in range(2)]
    step = PolicyLearner.step

    def ctrl_c(self, index, generator):
        if index == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, index, generator)

    with monkeypatch.context() as patch:
        patch.setattr(PolicyLearner, "step", ctrl_c)
        with pytest.raises(Interrupted):
            train_policy([datasets[0]], tmp_path / "policy", POLICY, 0)
    with pytest.raises(BadInput, match="another configuration"):
        train_policy([datasets[1]], tmp_path / "policy", POLICY, 0)
    with pytest.raises(BadInput, match=r"manifest\.json"):
        load_policy(tmp_path / "policy")
    train_policy([datasets[0]], tmp_path / "policy", POLICY, 0)
    train_policy([datasets[0]], tmp_path / "straight", POLICY, 0)
    assert load_policy(tmp_path / "policy").hash() == load_policy(tmp_path / "straight").hash()
