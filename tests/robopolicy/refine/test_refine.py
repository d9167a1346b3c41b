"""What every refiner owes: it improves, changes nothing that was given, resumes, and refuses."""

import dataclasses
import os
import signal

import pytest
import torch
from refine_toy import WALK, walk_env, walker, walks
from steering_toy import ToyPolicy

from robopolicy.checkpoint import REMEMBERED, tensor_hash
from robopolicy.config import PpoConfig
from robopolicy.errors import BadInput, Interrupted, RoboPolicyError
from robopolicy.policies.load import load_policy
from robopolicy.refine.config import (
    REFINE_METHODS,
    REFINE_PRESETS,
    GaussianConfig,
    NftConfig,
    PaRlConfig,
    RefineConfig,
)
from robopolicy.refine.refine import policy_success, refine
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.stats import wilson

LEARNS = RefineConfig(
    hidden=32,
    eval_every=15,
    critics=3,
    pa_rl=PaRlConfig(
        steps=60,
        envs=16,
        candidates=8,
        updates=4,
        batch=64,
        recent=512,
        lr=3e-3,
        tau=0.02,
        distil_lr=1e-3,
    ),
    gaussian=GaussianConfig(
        width=32,
        distil_updates=150,
        distil_batch=128,
        distil_lr=3e-3,
        ppo=PpoConfig(bound=1.0, steps=15, envs=64, batch=64, lr=2e-3),
    ),
    nft=NftConfig(steps=30, envs=96, batch=64, lr=1e-3),
)
TINY = REFINE_PRESETS["tiny"]


def run(out, method, config=TINY, policy=None, validate=None, episodes=None, **kwargs):
    episodes = walks(40) if episodes is None else episodes
    validate = validate or policy_success(walk_env(32), 64, 0)
    config = dataclasses.replace(config, method=method)
    return refine(policy or walker(), walk_env, episodes, out, config, 0, validate, **kwargs)


@pytest.mark.parametrize("method", REFINE_METHODS)
def test_refine_toy_task_learned_into_a_new_policy_and_the_given_one_unchanged(method, tmp_path):
    policy = walker()
    before = tensor_hash(policy.state_dict())
    result = run(tmp_path / "p", method, LEARNS, policy, world_hash=lambda: "w")
    assert result["prior"]["rate"] < 0.5
    assert result["best"]["rate"] > 0.9
    assert tensor_hash(policy.state_dict()) == before
    assert result["hashes"]["policy"] == {"before": before, "after": before}
    assert result["hashes"]["world"] == {"before": "w", "after": "w"}
    new = load_policy(tmp_path / "p")
    assert new.hash() != before
    fresh = rollout(walk_env(32), new, PriorSteerer(), range(900, 964))
    assert sum(e.success for e in fresh) > 0.9 * 64


@pytest.mark.parametrize("method", REFINE_METHODS)
def test_refine_interrupted_and_run_again_gives_the_same_policy(method, tmp_path):
    judge = policy_success(walk_env(4), 4, 0)

    def interrupting(at):
        """A `validate` in the course of which the user presses Ctrl-C."""
        calls = iter(range(99))

        def validate(policy):
            if next(calls) == at:
                os.kill(os.getpid(), signal.SIGINT)
            return judge(policy)

        return validate

    whole = run(tmp_path / "whole", method, validate=interrupting(-1))
    with pytest.raises(Interrupted):
        run(tmp_path / "part", method, validate=interrupting(2))
    again = run(tmp_path / "part", method, validate=interrupting(-1))
    assert again == whole


@pytest.mark.parametrize("method", REFINE_METHODS)
def test_refine_draws_only_from_its_seed(method, tmp_path):
    state = torch.random.get_rng_state()
    first = run(tmp_path / "a", method)["hash"]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(1)
    assert run(tmp_path / "b", method)["hash"] == first


def test_refine_that_only_makes_it_worse_keeps_what_it_began_with(tmp_path):
    rates = iter([wilson(5, 10), wilson(5, 10), *[wilson(4, 10)] * 9])
    result = run(tmp_path / "p", "pa-rl", validate=lambda p: next(rates))
    assert result["best"]["step"] == 0
    assert load_policy(tmp_path / "p").hash() == walker().hash()


@pytest.mark.parametrize("what", ["policy", "world"])
def test_refine_given_part_changed_refused_and_not_saved(what, tmp_path):
    policy, world = walker.__wrapped__(1), ["w"]

    def meddle(new):
        policy.mean += what == "policy"
        world[0] += "!" if what == "world" else ""
        return wilson(1, 2)

    with pytest.raises(RoboPolicyError, match=what):
        run(tmp_path / "p", "pa-rl", policy=policy, validate=meddle, world_hash=lambda: world[0])
    assert not (tmp_path / "p" / "manifest.json").exists()


def test_refine_folder_in_use_refused(tmp_path):
    run(tmp_path / "p", "pa-rl")
    (tmp_path / "p" / REMEMBERED).unlink()
    with pytest.raises(BadInput, match="out"):
        run(tmp_path / "p", "pa-rl")


def test_refine_without_recorded_steps_refused_and_nothing_written(tmp_path):
    with pytest.raises(BadInput, match="episodes"):
        run(tmp_path / "p", "pa-rl", episodes=[])
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("method", ["pa-rl", "diffusion-nft"])
def test_refine_of_what_is_no_diffusion_policy_refused(method, tmp_path):
    with pytest.raises(BadInput, match="diffusion"):
        run(tmp_path / "p", method, policy=ToyPolicy(WALK))


@pytest.mark.parametrize("method", REFINE_METHODS)
def test_refine_broken_imagination_refused(method, tmp_path):
    config = dataclasses.replace(TINY, method=method)
    with pytest.raises(BadInput, match="env obs"):
        refine(
            walker(),
            lambda n: walk_env(n, broken_at=1),
            walks(4),
            tmp_path / "p",
            config,
            0,
            lambda p: wilson(1, 2),
        )


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("method", lambda: RefineConfig(method="magic")),  # type: ignore[arg-type]
        ("gamma", lambda: RefineConfig(gamma=1.0)),
        ("eval_every", lambda: RefineConfig(eval_every=0)),
        ("keep", lambda: RefineConfig(pa_rl=PaRlConfig(candidates=4, keep=5))),
        ("critics", lambda: RefineConfig(critics=0)),
        ("recorded", lambda: RefineConfig(pa_rl=PaRlConfig(recorded=1.0))),
        ("group", lambda: RefineConfig(nft=NftConfig(envs=10, group=4))),
        ("beta", lambda: RefineConfig(nft=NftConfig(beta=0.0))),
        ("keep_old", lambda: RefineConfig(nft=NftConfig(keep_old=1.0))),
        ("anchor", lambda: RefineConfig(gaussian=GaussianConfig(anchor=-1.0))),
    ],
)
def test_refine_config_out_of_range_refused(field, make):
    with pytest.raises(BadInput, match=field):
        make()


@pytest.mark.parametrize("method", REFINE_METHODS)
def test_refine_config_of_a_method_has_the_steps_asked_for(method):
    assert TINY.of(method, 9).own.steps == 9
    assert TINY.of(method, None).own == dataclasses.replace(TINY, method=method).own
