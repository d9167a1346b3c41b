"""Training of the policy: resumable to the bit, the counter of the average included."""

import os
import signal

import pytest
import torch
from tiny import POLICY, random_episodes, tiny_policy, tiny_spec, write_dataset

from robopolicy.checkpoint import load_tensors, save_tensors, tensor_hash
from robopolicy.data.windows import PolicyWindows
from robopolicy.errors import BadInput, Interrupted
from robopolicy.policies.learners import PolicyLearner
from robopolicy.policies.load import load_policy
from robopolicy.policies.train import statistics, train_policy
from robopolicy.train import fit

SPEC = tiny_spec()
DATA = PolicyWindows(random_episodes(SPEC), SPEC)


def learner() -> PolicyLearner:
    return PolicyLearner(tiny_policy(SPEC), DATA, POLICY)


def interrupted(progress, at: int) -> None:
    """Trains up to step `at` and stops as Ctrl-C does."""

    def ctrl_c(i, _):
        if i == at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(learner(), POLICY.steps, 5, "policy", progress, on_step=ctrl_c, quiet=True)


@pytest.fixture(scope="module")
def straight():
    done = learner()
    fit(done, POLICY.steps, 5, "policy", quiet=True)
    return done


@pytest.mark.parametrize("at", [0, 5, POLICY.steps - 2])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, straight, at):
    interrupted(tmp_path / "progress.safetensors", at)
    resumed = learner()
    fit(resumed, POLICY.steps, 5, "policy", tmp_path / "progress.safetensors", quiet=True)
    assert resumed.ema.count == straight.ema.count == POLICY.steps
    assert tensor_hash(resumed.state()) == tensor_hash(straight.state())


def test_resuming_without_the_counter_of_the_average_would_show(tmp_path, straight):
    progress = tmp_path / "progress.safetensors"
    interrupted(progress, 5)
    tensors, meta = load_tensors(progress)
    tensors["ema#count"] = torch.tensor(0)
    # `load_tensors` returns what was given as `meta`, so that it can be given again.
    save_tensors(progress, tensors, meta)
    resumed = learner()
    fit(resumed, POLICY.steps, 5, "policy", progress, quiet=True)
    mine, theirs = resumed.state(), straight.state()
    weights = [k for k in mine if k.startswith("net.")]
    assert all(torch.equal(mine[k], theirs[k]) for k in weights)
    averages = [k for k in mine if k.startswith("ema.")]
    assert not all(torch.equal(mine[k], theirs[k]) for k in averages)


def test_trained_policy_holds_the_average_and_opens(tmp_path):
    root = write_dataset(tmp_path / "set", SPEC, random_episodes(SPEC))
    report = train_policy([root], tmp_path / "policy", POLICY, 3)
    assert report["episodes"] == 12
    assert report["windows"] == len(DATA)
    assert not (tmp_path / "policy" / "progress.safetensors").exists()
    again = train_policy([root], tmp_path / "again", POLICY, 3)
    assert report["curve"] == again["curve"]
    hashes = [load_policy(tmp_path / name).hash() for name in ("policy", "again")]
    assert hashes[0] == hashes[1]


def test_progress_of_another_configuration_is_refused(tmp_path):
    progress = tmp_path / "progress.safetensors"
    interrupted(progress, 3)
    with pytest.raises(BadInput, match="another configuration"):
        fit(learner(), POLICY.steps, 6, "policy", progress, quiet=True)


def test_bad_data_is_refused_before_anything_is_written(tmp_path):
    other = tiny_spec(objects=False)
    roots = [
        write_dataset(tmp_path / "one", SPEC, random_episodes(SPEC, 2)),
        write_dataset(tmp_path / "two", other, random_episodes(other, 2)),
    ]
    for datasets in ([], [tmp_path / "none"], roots):
        with pytest.raises(BadInput):
            train_policy(datasets, tmp_path / "policy", POLICY, 0)
    assert not (tmp_path / "policy").exists()


def test_statistics_are_of_the_states_seen_and_of_the_range_of_the_action():
    stats = statistics(SPEC, DATA)
    states = torch.cat([torch.from_numpy(e.states[:-1]) for e in random_episodes(SPEC)])
    assert torch.allclose(stats["observation.state"]["mean"], states.mean(0)[:4], atol=1e-5)
    assert torch.allclose(stats["observation.environment_state"]["mean"], states.mean(0)[4:], atol=1e-5)
    low, high = torch.from_numpy(SPEC.action_range)
    assert torch.equal(stats["action"]["min"], low)
    assert torch.equal(stats["action"]["max"], high)


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
