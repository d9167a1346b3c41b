"""Imitation: fits a chunk diffusion policy to demonstrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.utils.constants import (
    ACTION,
    OBS_ENV_STATE,
    OBS_IMAGES,
    OBS_STATE,
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)
from torch import Tensor

from robopolicy.checkpoint import PROGRESS, remember, remembered, save_tensors, seal, tensor_hash
from robopolicy.config import PolicyConfig
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.data.windows import PolicyWindows
from robopolicy.devices import Devices, Log, scalar_log
from robopolicy.errors import BadInput
from robopolicy.nets.task import read
from robopolicy.policies.adapter import CONFIG, MODEL
from robopolicy.policies.card import card
from robopolicy.policies.diffusion.configuration_chunk_diffusion import ChunkDiffusionConfig
from robopolicy.policies.diffusion.modeling_chunk_diffusion import ChunkDiffusionPolicy
from robopolicy.policies.diffusion.processor_chunk_diffusion import make_chunk_diffusion_pre_post_processors
from robopolicy.policies.learners import make_learner
from robopolicy.policies.load import ChunkPolicy, different_make, load_policy
from robopolicy.policies.proof import PROOF, proof
from robopolicy.processes import leads
from robopolicy.progress import console
from robopolicy.seeding import torch_seed
from robopolicy.spec import Spec
from robopolicy.train import fit, seeded_init

CARD = "README.md"
# Recorded observations whose answers are kept.
_PROVED = 8
# What hardly moves in the data must not be blown up when it moves on the robot.
_LEAST_STD = 1e-3


def new_policy(spec: Spec, config: PolicyConfig, data: PolicyWindows, seed: int) -> ChunkPolicy:
    """An untrained policy with the statistics of `data`."""
    cameras = spec.pictures or spec.cameras
    features = {
        OBS_STATE: PolicyFeature(FeatureType.STATE, (spec.proprio_dim,)),
        OBS_ENV_STATE: PolicyFeature(FeatureType.ENV, (spec.numbers_dim - spec.proprio_dim,)),
        **{
            f"{OBS_IMAGES}.{c.name}": PolicyFeature(FeatureType.VISUAL, (3, c.height, c.width))
            for c in cameras
        },
    }
    own = ChunkDiffusionConfig(
        n_obs_steps=spec.obs_steps,
        horizon=spec.chunk,
        n_action_steps=spec.chunk,
        input_features={k: v for k, v in features.items() if v.shape[0]},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (spec.action_dim,))},
        denoiser=config.denoiser,
        width=config.width,
        blocks=config.blocks,
        channels=config.channels,
        process=config.process,
        num_inference_steps=config.inference_steps,
        memory=config.memory,
        memory_width=config.memory_width,
        memory_slots=config.memory_slots,
        memory_layers=config.memory_layers,
        memory_gated=config.memory_gated,
        task_size=config.task_size,
        text_encoder=config.text_encoder,
        text_size=read([""], config.text_encoder).shape[1] if config.text_encoder else 0,
        guidance=config.guidance,
        vision=config.vision if cameras else "none",
        optimizer_lr=config.lr,
        optimizer_weight_decay=config.weight_decay,
        device="cpu",
        push_to_hub=False,
    )
    with seeded_init(torch_seed(seed, "policy-init")):
        core = ChunkDiffusionPolicy(own)
    return ChunkPolicy(spec, core, statistics(spec, data))


def statistics(spec: Spec, data: PolicyWindows) -> dict[str, dict[str, Tensor]]:
    """Mean and std of the states seen, without pictures; the action's range is the Spec's."""
    last = data.obs(torch.arange(len(data)), spec.numbers_dim)[:, -1]
    mean, std = last.mean(0), last.std(0, correction=0).clamp_min(_LEAST_STD)
    n = spec.proprio_dim
    low, high = torch.from_numpy(spec.action_range)
    return {
        OBS_STATE: {"mean": mean[:n], "std": std[:n]},
        OBS_ENV_STATE: {"mean": mean[n:], "std": std[n:]},
        ACTION: {"min": low, "max": high},
    }


def unmoved(policy: ChunkPolicy) -> list[str]:
    """Names of the state's numbers that do not tell the policy anything, as they hardly move in its data."""
    least = (policy.std <= _LEAST_STD).tolist()
    names = policy.spec.state_names[: policy.spec.numbers_dim]
    return [name for name, still in zip(names, least, strict=True) if still]


def train_policy(
    datasets: list[Path],
    out: Path,
    config: PolicyConfig,
    seed: int,
    init: Path | None = None,
    log: Log = "none",
) -> dict[str, Any]:
    """Trains a policy on demonstrations and seals it in `out`; resumes if interrupted.

    Args:
        datasets: folders of recorded episodes.
        out: folder of the policy.
        config: settings.
        seed: of every random draw.
        init: a policy to go on from: its weights and statistics.
        log: where scalars of each update are written to.

    Returns:
        Number of episodes and windows, names of what is "unmoved" in them, and the loss curve.

    Raises:
        BadInput: if the data is unusable; nothing has been written.
        Interrupted: on Ctrl-C, after saving.
    """
    if not datasets:
        raise BadInput("dataset", "at least one dataset", "none")
    spec, _ = dataset_info(datasets[0])
    for folder in datasets[1:]:
        spec.require(dataset_info(folder)[0], str(folder))
    episodes = load_episodes(datasets)
    data = PolicyWindows(episodes, spec)
    policy = new_policy(spec, config, data, seed)
    if init is not None:
        policy = _continued(policy, init)
    devices = Devices(config.precision)
    learner = make_learner(policy, data, config, devices)
    still = unmoved(policy)
    if still and leads():
        console.print(
            f"policy: hardly moves in this data: {', '.join(still)}", style="yellow", highlight=False
        )
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        **dataclasses.asdict(config),
        "data": tensor_hash({"states": data.states, "actions": data.steps}),
        "init": policy.hash() if init else "",
    }
    if done := remembered(out, {**settings, "seed": seed}):
        return done
    curve = fit(
        learner,
        config.steps,
        torch_seed(seed, "policy"),
        "policy",
        out / PROGRESS,
        settings,
        on_step=scalar_log(log, out, settings),
    )
    policy.core.load_state_dict(learner.ema.average)
    seen = {"episodes": len(episodes), "windows": len(data)}
    fields = {**seen, "unmoved": still, "curve": curve}
    if leads():
        remember(out, {**settings, "seed": seed}, fields)
        save_policy(policy.cpu(), out, seen, proved(policy, data))
    devices.wait()
    return fields


def proved(policy: ChunkPolicy, data: PolicyWindows) -> dict[str, Tensor]:
    """Answers to some of its data, see `robopolicy.policies.proof`; nothing if it sees pictures besides."""
    rows = torch.linspace(0, len(data) - 1, min(_PROVED, len(data))).long()
    return {} if policy.core.cameras and not policy.spec.pictures else proof(policy.eval(), data.obs(rows))


def _continued(fresh: ChunkPolicy, init: Path) -> ChunkPolicy:
    """The policy in `init`, ready to be trained, if it is of the same make as `fresh`."""
    policy = load_policy(init, fresh.spec)
    fresh.spec.require(policy.spec, "init")
    if not isinstance(policy, ChunkPolicy):
        raise BadInput("init", "a policy that robopolicy trained", init)
    if differing := different_make(policy, fresh):
        before, after = (", ".join(f"{k} {both[i]}" for k, both in differing.items()) for i in (0, 1))
        raise BadInput("init", after, before)
    return policy.requires_grad_(True).train()


def save_policy(
    policy: ChunkPolicy,
    out: Path,
    trained: Mapping[str, Any] | None = None,
    answers: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes the LeRobot checkpoint (config, weights, processors, model card) and seals it.

    Args:
        policy: what is saved.
        out: folder.
        trained: what it learned from, for the card; see `robopolicy.policies.card`.
        answers: of `robopolicy.policies.proof`, kept beside it.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / CARD).write_text(card(policy, trained))
    policy.core.save_pretrained(out)
    n = policy.spec.proprio_dim
    stats = {
        OBS_STATE: {"mean": policy.mean[:n], "std": policy.std[:n]},
        OBS_ENV_STATE: {"mean": policy.mean[n:], "std": policy.std[n:]},
        ACTION: {"min": policy.low, "max": policy.high},
    }
    before, after = make_chunk_diffusion_pre_post_processors(policy.core.config, stats)
    before.save_pretrained(out, config_filename=f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json")
    after.save_pretrained(out, config_filename=f"{POLICY_POSTPROCESSOR_DEFAULT_NAME}.json")
    names = ("policy_preprocessor", "policy_postprocessor")
    processors = [p.name for p in out.iterdir() if p.name.startswith(names)]
    if answers:
        save_tensors(out / PROOF, answers)
    seal(out, "policy", policy.spec, [CONFIG, MODEL, *processors, *([PROOF] if answers else [])])
