"""Diffusion policy over action chunks as a LeRobot plug-in.

Training asks the denoiser to undo noise; sampling undoes it from a given noise without drawing any more
(`robopolicy.nets.sampling`), so chunk = F(observation, noise) is a function: what DSRL steers. With a
memory, chunk and next memory are a function of observation, memory and noise. Everything here is
normalised; physical units end in the processors and in `robopolicy.policies.load`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from torch import Generator, Tensor, nn

from robopolicy.nets.inpainting import Known
from robopolicy.nets.memory import make_memory
from robopolicy.nets.mlp import MlpDenoiser
from robopolicy.nets.sampling import make_process
from robopolicy.nets.task import TaskEncoder, ToldDenoiser, read
from robopolicy.nets.transformer import TransformerDenoiser
from robopolicy.nets.unet1d import UnetDenoiser
from robopolicy.nets.vision import Vision
from robopolicy.policies.diffusion.configuration_chunk_diffusion import ChunkDiffusionConfig


class ChunkDiffusionPolicy(PreTrainedPolicy):
    """See the module. Inputs `observation.state`, `.environment_state` and `.images.*`, (B, T, *) each."""

    config_class = ChunkDiffusionConfig  # type: ignore[assignment]
    name = "chunk_diffusion"  # type: ignore[assignment]

    def __init__(self, config: ChunkDiffusionConfig, **_: Any):
        super().__init__(config)
        config.validate_features()
        self.config: ChunkDiffusionConfig = config
        inputs, outputs = config.input_features or {}, config.output_features or {}
        self.keys = [k for k in (OBS_STATE, OBS_ENV_STATE) if k in inputs]
        self.cameras = list(config.image_features)
        numbers = sum(inputs[k].shape[0] for k in self.keys)
        size = numbers + len(self.cameras) * config.vision_size  # of one observation
        self.memory = make_memory(
            config.memory,  # type: ignore[arg-type]
            size,
            config.n_obs_steps,
            config.memory_width,
            config.memory_slots,
            config.memory_layers,
            config.memory_gated,
        )
        self.task = TaskEncoder(numbers, config.task_size, config.text_size) if config.task_size else None
        self.vision = nn.ModuleList(
            Vision(config.vision, config.vision_size, config.crop)  # type: ignore[arg-type]
            for _ in self.cameras
        )
        seen = self.memory.read_size if self.memory else config.n_obs_steps * size
        self.action_dim, told = outputs[ACTION].shape[0], config.task_size
        if told:
            net = make_denoiser(config, self.action_dim, seen + told + ToldDenoiser.extra(told))
            self.denoiser = ToldDenoiser(net, told, seen)
        else:
            self.denoiser = make_denoiser(config, self.action_dim, seen)
        self.process = make_process(
            config.process,  # type: ignore[arg-type]
            config.num_train_timesteps,
            config.num_inference_steps,
            config.prediction_type,
        )
        self.reset()

    def reset(self) -> None:
        """Forgets the observations seen, what is remembered and the actions queued."""
        self._actions: deque[Tensor] = deque(maxlen=self.config.n_action_steps)
        self._seen: dict[str, deque[Tensor]] = {}
        self._remembered: Tensor | None = None

    def get_optim_params(self) -> Any:
        return self.parameters()

    def condition(self, batch: dict[str, Any]) -> Tensor:
        """(B, cond_dim) from normalised observations (B, T, *) and sentences; not for one with memory."""
        obs = torch.cat([x.flatten(1) for x in self.observed(batch)], -1)
        if not self.task:
            return obs
        told = self.task.of_words(read(batch["task"], self.config.text_encoder).to(obs.device))
        return torch.cat([obs, told], -1)

    def observed(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """(B, T, *) the numbers of normalised observations, and what is seen in pictures if there are any."""
        numbers = [batch[k] for k in self.keys]
        if not self.cameras:
            return numbers
        # LeRobot's trainer has no generator to give; torch's own draws where it crops.
        generator = torch.default_generator if self.training else None
        return [*numbers, self.see([batch[k] for k in self.cameras], generator)]

    def see(self, pictures: Sequence[Tensor], generator: Generator | None = None) -> Tensor:
        """(B, T, views * F) what is seen in pictures (B, T, 3, H, W) from 0 to 1, one tensor per camera.

        Args:
            pictures: in the order of `cameras`.
            generator: of where they are cropped; in the middle without.
        """
        pairs = zip(self.vision, pictures, strict=True)
        return torch.cat([v(v.cropped(x, generator)) for v, x in pairs], -1)  # type: ignore[operator]

    def recall(self, obs: Tensor, fresh: Tensor, truncate: int = 0) -> Tensor:
        """(B, C, cond_dim) what the denoiser is conditioned on in C calls in a row.

        Args:
            obs: (B, C, T, E) normalised.
            fresh: (B, C) bool: an episode begins with this call.
            truncate: calls after which no gradient flows back; 0 for never.
        """
        assert self.memory
        memory, reads = obs.new_zeros(len(obs), *self.memory.shape), []
        for call in range(obs.shape[1]):
            if truncate and call % truncate == 0:
                memory = memory.detach()
            read, memory = self.memory(obs[:, call], memory, fresh[:, call])
            reads.append(read)
        return torch.stack(reads, 1)

    def loss(
        self, cond: Tensor, actions: Tensor, is_pad: Tensor | None, generator: Generator | None
    ) -> Tensor:
        """Mean squared error of the prediction over the actions that are not padding.

        Args:
            cond: (B, cond_dim).
            actions: (B, K, A) in [-1, 1].
            is_pad: (B, K) bool.
            generator: of steps and noise; torch's default if none (LeRobot's trainer).
        """
        noisy, steps, target = self.corrupt(actions, generator)
        if is_pad is None:
            is_pad = torch.zeros_like(actions[..., 0], dtype=torch.bool)
        return self.errors(cond, noisy, steps, target, is_pad) / ((~is_pad).sum() * self.action_dim)

    def errors(self, cond: Tensor, noisy: Tensor, steps: Tensor, target: Tensor, is_pad: Tensor) -> Tensor:
        """Sum of the squared errors over the actions that are not padding, of what `corrupt` gave."""
        error = (self.denoiser(noisy, steps, cond).float() - target) ** 2
        return (error * (~is_pad)[..., None]).sum()

    def corrupt(self, actions: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy chunks (B, K, A) at random levels (B,), and what the denoiser should predict (B, K, A)."""
        return self.process.corrupt(actions, generator)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        cond = self._last_of_a_row(batch) if self.memory else self.condition(batch)
        return self.loss(cond, batch[ACTION], batch.get("action_is_pad"), None), None

    def _last_of_a_row(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, cond_dim) of the last of the calls in a row that LeRobot's loader gives, side by side."""
        shape = (-1, self.config.n_obs_steps)
        obs = torch.cat(self.observed(batch), -1).unflatten(1, shape)
        pad = batch.get(f"{self.keys[0]}_is_pad")
        # What lies before the first observation of the episode is a copy of it.
        fresh = torch.zeros(obs.shape[:2], dtype=torch.bool, device=obs.device)
        if pad is not None:
            fresh[:, 1:] = pad.unflatten(1, shape)[:, :-1, -1]
        fresh[:, 0] = True
        return self.recall(obs, fresh)[:, -1]

    def denoise(self, cond: Tensor, noise: Tensor, known: Known | None = None) -> Tensor:
        """(B, K, A) normalised chunk for noise (B, K, A), of which some may be known.

        Where what it is told counts for more or less than in training, guidance is classifier-free (Ho and
        Salimans 2022, eq. 6).
        """
        weight = self.config.guidance
        if not self.task or weight == 1:
            return self.process.restore(lambda x, level: self.denoiser(x, level, cond), noise, known)
        untold = torch.cat([cond[:, : -self.task.size], torch.zeros_like(cond[:, -self.task.size :])], -1)

        def network(x: Tensor, level: Tensor) -> Tensor:
            return torch.lerp(self.denoiser(x, level, untold), self.denoiser(x, level, cond), weight)

        return self.process.restore(network, noise, known)

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """(B, K, A) normalised chunk; `noise` (B, K, A) makes it reproducible and steerable.

        A policy with memory writes into it: one call per chunk, `reset` in between episodes.
        """
        if self.memory:
            obs = torch.cat(self.observed(batch), -1)
            before = self._remembered
            fresh = torch.full((len(obs),), before is None, device=obs.device)
            before = obs.new_zeros(len(obs), *self.memory.shape) if before is None else before
            cond, self._remembered = self.memory(obs, before, fresh)
        else:
            cond = self.condition(batch)
        noise = kwargs.get("noise")
        if noise is None:
            noise = torch.randn(len(cond), self.config.horizon, self.action_dim, device=cond.device)
        return self.denoise(cond, noise)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """(B, A) next action; queries the denoiser when the queue of actions is empty."""
        for key in (*self.keys, *self.cameras):
            seen = self._seen.setdefault(key, deque(maxlen=self.config.n_obs_steps))
            seen.extend([batch[key]] * (1 if seen else self.config.n_obs_steps))
        if not self._actions:
            history: dict[str, Any] = {k: torch.stack(list(v), 1) for k, v in self._seen.items()}
            if self.task:
                history["task"] = batch["task"]
            chunk = self.predict_action_chunk(history, noise=kwargs.get("noise"))
            self._actions.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._actions.popleft()


def make_denoiser(config: ChunkDiffusionConfig, action_dim: int, cond_dim: int) -> nn.Module:
    """The network that `config.denoiser` names."""
    size = (config.horizon, action_dim, cond_dim)
    if config.denoiser == "unet":
        return UnetDenoiser(*size, config.channels)
    if config.denoiser == "transformer":
        return TransformerDenoiser(*size, config.width, config.blocks)
    levels = config.num_train_timesteps if config.process == "ddim" else 0
    return MlpDenoiser(*size, config.width, config.blocks, levels)
