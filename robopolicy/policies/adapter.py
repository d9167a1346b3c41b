"""Any LeRobot policy whose chunk is a function of the noise it starts from, as a policy of ours.

What LeRobot's `diffusion` and its flow policies have in common is `predict_action_chunk(batch, noise=)` and
a configuration that says which steps they see and for which they produce actions. Only the K steps from now
on are executed, and only they have noise in our interface. The numbers of the model's noise for other steps
(`diffusion` begins in the past and looks beyond K) and for dimensions that pad the action are fixed unit
combinations of these: so the noise that comes in determines everything, and normal noise gives the policy as
it was trained. Merely repeating ours there would not: a policy for Lift lost a fifth or half of its
successes. Normalisation is LeRobot's own, by the processors saved with the checkpoint.

Flow policies for vision and language (`smolvla`, `pi0`) are told the Spec's task and know one state only: it
is all of ours. They also want a camera; what they see is black, so only cameras will do that their
configuration itself calls empty (`empty_cameras`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import (
    ACTION,
    OBS_ENV_STATE,
    OBS_IMAGES,
    OBS_LANGUAGE_TOKENS,
    OBS_STATE,
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)
from safetensors import SafetensorError
from torch import Tensor, nn

from robopolicy.checkpoint import load_strict, load_tensors, plain_name, read_json, tensor_hash
from robopolicy.errors import BadInput
from robopolicy.protocols import Carry
from robopolicy.seeding import stream
from robopolicy.spec import Spec
from robopolicy.train import seeded_init

CONFIG, MODEL = "config.json", "model.safetensors"
PROCESSORS = (POLICY_PREPROCESSOR_DEFAULT_NAME, POLICY_POSTPROCESSOR_DEFAULT_NAME)


class LeRobotPolicy(nn.Module):
    """A LeRobot policy in physical units; implements `robopolicy.protocols.Policy`.

    Args:
        spec: what the numbers mean.
        core: LeRobot's policy; its configuration must fit the Spec.
        before: its processor of observations.
        after: its processor of actions.

    Raises:
        BadInput: if its chunk depends on more than observation and noise, or not on the noise.
    """

    low: Tensor
    high: Tensor
    spread: Tensor

    def __init__(
        self,
        spec: Spec,
        core: PreTrainedPolicy,
        before: PolicyProcessorPipeline,
        after: PolicyProcessorPipeline,
    ):
        super().__init__()
        self.spec, self.core, self.before, self.after = spec, core.eval(), before, after
        config: Any = core.config
        self.keys = list(config.input_features)
        self.cameras = {name: config.input_features[name].shape for name in _empty_cameras(config)}
        self.state_dim = config.input_features[OBS_STATE].shape[0]
        seen = config.observation_delta_indices
        # Without delta indices LeRobot's batches have no time dimension.
        self.seen = -1 if seen is None else [spec.obs_steps - 1 + i for i in seen]
        self.dims = getattr(config, "max_action_dim", spec.action_dim)
        self.register_buffer("spread", spread_noise(config.action_delta_indices, self.dims, spec))
        for name, bound in zip(("low", "high"), spec.action_range, strict=True):
            self.register_buffer(name, torch.from_numpy(bound))
        # The statistics are part of the policy, so they are part of its hash; so is what it is told.
        for name, pipeline in (("before", before), ("after", after)):
            for i, step in enumerate(pipeline.steps):
                for key, value in step.state_dict().items():
                    self.register_buffer(f"{name}_{i}_{key.replace('.', '_')}", value)
        batch = self._normalised(torch.zeros(1, spec.obs_steps, spec.state_dim))
        if OBS_LANGUAGE_TOKENS in batch:
            self.register_buffer("told", batch[OBS_LANGUAGE_TOKENS])
        self._require_noise(batch)

    def initial(self, seeds: Sequence[int]) -> Carry:
        """This policy has no memory."""
        return {}

    @torch.no_grad()
    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """See `robopolicy.protocols.Policy`; actions are limited to the Spec's range."""
        actions = self.after(self._predict(self._normalised(obs), noise))[:, : self.spec.chunk]
        return actions.clamp(self.low, self.high), carry

    def hash(self) -> str:
        """sha256 of weights, statistics and, where it is told the task, the tokens of that."""
        return tensor_hash(self.state_dict())

    def _normalised(self, obs: Tensor) -> dict[str, Any]:
        n, seen = self.state_dim, obs[:, self.seen]
        parts = {OBS_STATE: seen[..., :n], OBS_ENV_STATE: seen[..., n:]}
        black = obs.new_zeros(1)
        parts |= {k: black.expand(*seen.shape[:-1], *shape) for k, shape in self.cameras.items()}
        return self.before({k: parts[k] for k in self.keys} | {"task": [self.spec.task] * len(obs)})

    def _predict(self, batch: dict[str, Any], noise: Tensor) -> Tensor:
        self.core.reset()  # else LeRobot's queues would mix these observations with earlier ones
        whole = (noise.flatten(1) @ self.spread).view(len(noise), -1, self.dims)
        return self.core.predict_action_chunk(batch, noise=whole)

    @torch.no_grad()
    def _require_noise(self, batch: dict[str, Any]) -> None:
        """Refuses a policy that draws noise of its own, or ignores ours, by trying it out."""
        spec, parameters = self.spec, inspect.signature(self.core.predict_action_chunk).parameters
        takes = "noise" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        wanted = "one whose chunks depend on noise that is given to it"
        if not takes:
            raise BadInput("policy", wanted, f"{self.core.name}, which takes none")
        # Normalised zeros are in the middle of what it has seen.
        batch |= {k: torch.zeros_like(batch[k]) for k in self.keys}
        noise = torch.randn(2, 1, spec.chunk, spec.action_dim, generator=torch.Generator().manual_seed(0))
        chunks = []
        for seed, which in ((0, 0), (1, 0), (0, 1)):
            with seeded_init(seed):
                chunks.append(self._predict(batch, noise[which]))
        if not torch.equal(chunks[0], chunks[1]):
            hint = f'diffusion: set "noise_scheduler_type" to "DDIM" in {CONFIG}'
            got = f"{self.core.name}, which draws more ({hint})"
            raise BadInput("policy", "one whose chunks depend on observation and noise alone", got)
        if torch.equal(chunks[0], chunks[2]):
            raise BadInput("policy", wanted, f"{self.core.name}, which ignores it")


def spread_noise(steps: list[int], dims: int, spec: Spec) -> Tensor:
    """(K * A, H * dims): noise of the K steps from now on -> noise of a model for `steps`, H of them.

    What is executed is passed on. The columns of the rest are those of random orthogonal matrices, so that
    each K * A of them are independent standard normal numbers if the noise is.
    """
    size, rng = spec.chunk * spec.action_dim, stream(0, "lerobot-noise")
    spread = np.zeros((size, len(steps), dims))
    executed = np.zeros((len(steps), dims), bool)
    for k in range(spec.chunk):
        executed[steps.index(k), : spec.action_dim] = True
    count = int((~executed).sum())
    blocks = [np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(-(-count // size))]
    spread[:, executed] = np.eye(size)
    if blocks:
        spread[:, ~executed] = np.concatenate(blocks, 1)[:, :count]
    return torch.from_numpy(spread.reshape(size, -1)).float()


def open_lerobot(folder: Path, spec: Spec, config: PreTrainedConfig) -> LeRobotPolicy:
    """The policy that LeRobot saved in `folder`, with the processors beside it.

    Raises:
        BadInput: if a file is missing or damaged, or the policy does not fit the Spec.
    """
    where = f"{folder}/{CONFIG}"
    check_features(config, spec, where)
    own: Any = config
    seen, acted = config.observation_delta_indices or [0], config.action_delta_indices or [0]
    if not all(-spec.obs_steps < i <= 0 for i in seen):
        raise BadInput(f"{where}:n_obs_steps", f"at most {spec.obs_steps}, as in the Spec", len(seen))
    if own.n_action_steps != spec.chunk or not {*range(spec.chunk)} <= {*acted}:
        got = f"{own.n_action_steps} of the steps {acted[0]} to {acted[-1]}"
        raise BadInput(f"{where}:n_action_steps", f"{spec.chunk}, the Spec's chunk, from step 0 on", got)
    for name in PROCESSORS:
        check_processor(folder, f"{name}.json")
    config.device = "cpu"
    try:
        with seeded_init(0):  # the weights are replaced at once
            core = get_policy_class(config.type)(config)
    except (ImportError, OSError, ValueError) as e:
        raise BadInput(where, "a policy that can be built here", e) from e
    load_strict(core, _with_shared(core, load_tensors(folder / MODEL)[0]), f"{folder}/{MODEL}")
    # A relative path could be taken for a name on the Hub.
    device = {"device_processor": {"device": "cpu"}}
    try:
        both = make_pre_post_processors(config, str(folder.resolve()), preprocessor_overrides=device)
    except (ImportError, ValueError, KeyError, TypeError, OSError, SafetensorError) as e:
        raise BadInput(str(folder), "LeRobot's processors", e) from e
    policy = LeRobotPolicy(spec, core, *both)
    spoiled = [k for k, v in policy.named_buffers() if v.is_floating_point() and not v.isfinite().all()]
    if spoiled:
        raise BadInput(str(folder), "finite statistics", f"NaN or infinity in {spoiled}")
    return policy


def check_processor(folder: Path, name: str) -> None:
    """Refuses a LeRobot processor that names code to be run, or a file that is not beside it.

    LeRobot would import any class by its path, and look on the Hub for a file that is missing.
    """
    steps = read_json(folder / name).get("steps")
    if not isinstance(steps, list) or not all(isinstance(s, dict) for s in steps):
        raise BadInput(f"{folder}/{name}:steps", "a list of steps", steps)
    for step in steps:
        if "class" in step or not isinstance(step.get("registry_name"), str):
            raise BadInput(f"{folder}/{name}", "steps that LeRobot knows by name", step.get("class", step))
        file = step.get("state_file")
        if file is not None and not (plain_name(file) and (folder / file).is_file()):
            raise BadInput(f"{folder}/{name}:state_file", "a file beside it", repr(file))


def _with_shared(core: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds what LeRobot leaves out of a file because it is another tensor's memory."""
    own = core.state_dict()
    saved = {own[k].data_ptr(): t for k, t in tensors.items() if k in own}
    left_out = [k for k in own.keys() - tensors.keys() if own[k].data_ptr() in saved]
    return tensors | {k: saved[own[k].data_ptr()] for k in left_out}


def check_features(config: PreTrainedConfig, spec: Spec, where: str) -> None:
    """Refuses a configuration whose inputs and outputs are not the Spec's."""
    features = {**(config.input_features or {}), **(config.output_features or {})}
    objects = spec.numbers_dim - spec.proprio_dim
    sizes = {OBS_STATE: spec.proprio_dim, OBS_ENV_STATE: objects, ACTION: spec.action_dim}
    wanted = {name: (size,) for name, size in sizes.items() if size}
    wanted |= {f"{OBS_IMAGES}.{c.name}": (3, c.height, c.width) for c in spec.pictures or spec.cameras}
    empty = _empty_cameras(config)
    if hasattr(config, "empty_cameras"):  # a policy for vision and language, which knows one state only
        wanted = {OBS_STATE: (spec.state_dim,), ACTION: (spec.action_dim,)}
        if not empty:
            raise BadInput(f"{where}:empty_cameras", "at least 1, as we have no pictures", 0)
    got = {name: tuple(feature.shape) for name, feature in features.items() if name not in empty}
    if got != wanted:
        raise BadInput(f"{where}:features", f"{wanted}", got)


def _empty_cameras(config: Any) -> list[str]:
    """The cameras that LeRobot's configuration itself says are none."""
    return [f"{OBS_IMAGES}.empty_camera_{i}" for i in range(getattr(config, "empty_cameras", 0))]
