"""Opens a saved policy; the only place that chooses its class."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from draccus.utils import ParsingError
from lerobot.configs.policies import PreTrainedConfig
from lerobot.processor import NormalizerProcessorStep, PolicyProcessorPipeline
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE, POLICY_PREPROCESSOR_DEFAULT_NAME
from torch import Tensor, nn

from robopolicy.checkpoint import (
    PROGRESS,
    is_sealed,
    load_strict,
    load_tensors,
    open_sealed,
    read_json,
    tensor_hash,
)
from robopolicy.errors import BadInput
from robopolicy.nets.inpainting import Known
from robopolicy.policies.adapter import (
    CONFIG,
    MODEL,
    LeRobotPolicy,
    check_features,
    check_processor,
    open_lerobot,
)
from robopolicy.policies.diffusion.configuration_chunk_diffusion import ChunkDiffusionConfig
from robopolicy.policies.diffusion.modeling_chunk_diffusion import ChunkDiffusionPolicy
from robopolicy.policies.gaussian import TYPE, GaussianPolicy, load_gaussian
from robopolicy.protocols import Carry
from robopolicy.spec import Spec

PREPROCESSOR = f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json"


class ChunkPolicy(nn.Module):
    """A chunk diffusion policy in physical units; implements `robopolicy.protocols.Policy`.

    Args:
        spec: what the numbers mean.
        core: the LeRobot policy, which knows normalised values only.
        stats: LeRobot's statistics: mean and std of the observations, min and max of the action.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, spec: Spec, core: ChunkDiffusionPolicy, stats: dict[str, dict[str, Tensor]]):
        super().__init__()
        self.spec, self.core = spec, core
        keys = core.keys
        self.register_buffer("mean", torch.cat([stats[k]["mean"] for k in keys]).float())
        self.register_buffer("std", torch.cat([stats[k]["std"] for k in keys]).float())
        self.register_buffer("low", stats[ACTION]["min"].float())
        self.register_buffer("high", stats[ACTION]["max"].float())

    def initial(self, seeds: Sequence[int]) -> Carry:
        """An empty memory, if it has one: "memory" (B, *) and whether it is "fresh" (B,).

        A policy that can be told what to do begins with "task" (B, E), zeros: it has not been told yet. See
        `robopolicy.policies.told`.
        """
        memory, count = self.core.memory, len(seeds)
        if self.core.task:
            return {"task": torch.zeros(count, self.core.task.size)}
        if not memory:
            return {}
        return {"memory": torch.zeros(count, *memory.shape), "fresh": torch.ones(count, dtype=torch.bool)}

    def normalize(self, obs: Tensor) -> Tensor:
        """The numbers of physical states (..., D), without pictures, to mean 0 and standard deviation 1."""
        return (obs[..., : len(self.mean)] - self.mean) / (self.std + 1e-8)

    def pictures(self, obs: Tensor) -> list[Tensor]:
        """(..., 3, H, W) from 0 to 1, one tensor per camera, in physical states (..., D).

        Raises:
            BadInput: if the policy sees pictures, but not as a part of the state.
        """
        cameras, shown = self.spec.pictures, obs[..., len(self.mean) :]
        if len(cameras) < len(self.core.cameras):
            wanted = "pictures in the state (robopolicy train-eye --kind pixels)"
            raise BadInput("policy", wanted, f"one that sees {self.core.cameras} beside it")
        parts = shown.split([3 * c.height * c.width for c in cameras], -1)
        return [x.unflatten(-1, (3, c.height, c.width)) for c, x in zip(cameras, parts, strict=True)]

    def embed(self, obs: Tensor) -> Tensor:
        """(B, T, E) what the policy itself makes of physical states (B, T, D): E numbers of each."""
        numbers = self.normalize(obs)
        if not self.core.cameras:
            return numbers
        return torch.cat([numbers, self.core.see(self.pictures(obs))], -1)

    def condition(self, obs: Tensor, carry: Carry | None = None) -> Tensor:
        """(B, cond_dim) what the denoiser is conditioned on, for physical states (B, T, D) and the carry.

        Raises:
            BadInput: if the policy has a memory, or has to be told what to do: then this is not a function of
                `obs` alone.
        """
        if self.core.memory:
            raise BadInput("policy", "one without memory", f"a memory of kind {self.core.config.memory!r}")
        if self.core.task and not carry:
            raise BadInput("policy", "one that is not told what to do", "one that is")
        seen = self.states(obs)
        if self.core.cameras:
            seen = torch.cat([seen, self.core.see(self.pictures(obs)).flatten(1)], -1)
        return torch.cat([seen, carry["task"]], -1) if self.core.task and carry else seen

    def states(self, obs: Tensor) -> Tensor:
        """(B, *) the numbers of physical states (B, T, D) normalised, as the denoiser sees them."""
        normal, size = self.normalize(obs), self.spec.proprio_dim
        return torch.cat([normal[..., :size].flatten(1), normal[..., size:].flatten(1)], -1)

    def normalize_actions(self, actions: Tensor) -> Tensor:
        """Physical actions (..., A) to [-1, 1]."""
        return 2 * (actions - self.low) / (self.high - self.low) - 1

    @property
    def joins(self) -> bool:
        """Whether `sample` may be told what is known of the chunk."""
        return not self.core.memory

    @torch.no_grad()
    def sample(
        self, obs: Tensor, carry: Carry, noise: Tensor, known: Known | None = None
    ) -> tuple[Tensor, Carry]:
        """See `robopolicy.protocols.Policy`; a deterministic function of its arguments.

        What is `known` of the chunk, in physical units, is kept and the rest made to go with it.
        """
        if self.core.memory:
            cond, memory = self.core.memory(self.embed(obs), carry["memory"], carry["fresh"])
            carry = {"memory": memory, "fresh": torch.zeros_like(carry["fresh"])}
        else:
            cond = self.condition(obs, carry)
        if known is not None:
            known = known._replace(chunk=self.normalize_actions(known.chunk))
        chunk = self.core.denoise(cond, noise, known).clamp(-1, 1)
        return self.low + (chunk + 1) / 2 * (self.high - self.low), carry

    def hash(self) -> str:
        """sha256 of weights and statistics."""
        return tensor_hash(self.state_dict())


def different_make(a: ChunkPolicy, b: ChunkPolicy) -> dict[str, tuple[object, object]]:
    """Settings in which two policies differ, with both values; how they were trained does not count."""
    one, other = (dataclasses.asdict(p.core.config) for p in (a, b))
    ignored = ("optimizer_lr", "optimizer_weight_decay", "pretrained_path")
    return {k: (one[k], other[k]) for k in one if k not in ignored and one[k] != other[k]}


def load_policy(folder: Path, spec: Spec | None = None) -> ChunkPolicy | GaussianPolicy | LeRobotPolicy:
    """A frozen policy from a folder that `robopolicy` or LeRobot wrote.

    Args:
        folder: sealed, with a Spec of its own, or a LeRobot checkpoint.
        spec: what the numbers of a LeRobot checkpoint mean, which it does not say itself.

    Raises:
        BadInput: if any file is missing, damaged, or does not fit the others.
    """
    if spec is None or is_sealed(folder) or (folder / PROGRESS).exists():
        spec = open_sealed(folder, "policy")
    kind = read_json(folder / CONFIG).get("type")  # LeRobot would look for a missing one on the Hub
    if kind == TYPE:
        return load_gaussian(folder, spec)
    try:
        config = PreTrainedConfig.from_pretrained(folder)
    except (ParsingError, ValueError, TypeError, KeyError) as e:
        raise BadInput(f"{folder}/{CONFIG}", "a policy configuration", e) from e
    if isinstance(config, ChunkDiffusionConfig):
        policy = _open_chunk(folder, spec, config)
    else:
        policy = open_lerobot(folder, spec, config)
    return policy.eval().requires_grad_(False)


def _open_chunk(folder: Path, spec: Spec, config: ChunkDiffusionConfig) -> ChunkPolicy:
    check_features(config, spec, f"{folder}/{CONFIG}")
    if (config.horizon, config.n_obs_steps) != (spec.chunk, spec.obs_steps):
        got = f"{config.horizon}, {config.n_obs_steps}"
        raise BadInput(f"{folder}/{CONFIG}:horizon, n_obs_steps", f"{spec.chunk}, {spec.obs_steps}", got)
    policy = ChunkPolicy(spec, ChunkDiffusionPolicy(config), _stats(folder))
    load_strict(policy.core, load_tensors(folder / MODEL)[0], str(folder / MODEL))
    return policy


def _stats(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The statistics that LeRobot's normaliser in `folder` holds."""
    check_processor(folder, PREPROCESSOR)
    pipeline = PolicyProcessorPipeline.from_pretrained(folder, config_filename=PREPROCESSOR)
    steps = [s for s in pipeline.steps if isinstance(s, NormalizerProcessorStep)]
    if len(steps) != 1:
        raise BadInput(f"{folder}/{PREPROCESSOR}", "one normaliser", f"{len(steps)}")
    state = steps[0].state_dict()
    wanted = [(k, n) for k in (OBS_STATE, OBS_ENV_STATE) for n in ("mean", "std")]
    wanted += [(ACTION, "min"), (ACTION, "max")]
    missing = [f"{k}.{n}" for k, n in wanted if f"{k}.{n}" not in state]
    if missing:
        raise BadInput(f"{folder}/{PREPROCESSOR}", "statistics of every feature", f"no {missing}")
    spoiled = [f"{k}.{n}" for k, n in wanted if not torch.isfinite(state[f"{k}.{n}"]).all()]
    if spoiled:
        raise BadInput(f"{folder}/{PREPROCESSOR}", "finite statistics", f"NaN or infinity in {spoiled}")
    stats: dict[str, dict[str, Tensor]] = {}
    for key, name in wanted:
        stats.setdefault(key, {})[name] = state[f"{key}.{name}"]
    return stats
