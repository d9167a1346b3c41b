"""What trains the networks of a pixel world model; each a `robopolicy.train.Learner`."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from robopolicy.devices import Devices
from robopolicy.errors import BadInput
from robopolicy.nets.ema import Ema
from robopolicy.train import descend, load_optimizer_state, optimizer_state, warm_cosine
from world_models.pixels.denoiser import PixelDenoiser
from world_models.pixels.model import PixelWorldModel
from world_models.pixels.windows import PixelWindows

_EMA = 0.999
_SUCCESS_BATCH, _SUCCESS_LR = 64, 1e-3


class DenoiserLearner:
    """Trains one denoiser of the ensemble.

    Of several processes, each works on its own rows of a batch that holds so many for each.

    Args:
        model: whose denoiser; its statistics must have been fitted.
        member: index.
        data: windows of `model.steps` steps.
        devices: whose device the model is on.
    """

    def __init__(
        self, model: PixelWorldModel, member: int, data: PixelWindows, devices: Devices | None = None
    ):
        self.model, self.data, self.config = model, data, model.config
        self.devices = devices or Devices()
        self.net = cast(PixelDenoiser, model.members[member])
        self.ema = Ema(self.net, _EMA)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.config.lr, weight_decay=1e-2)

    def step(self, index: int, generator: torch.Generator) -> dict[str, float]:
        each = self.config.batch_size
        total, own = each * self.devices.count, self.devices.own(each)
        rows = torch.randint(len(self.data), (total,), generator=generator)
        obs, actions, future, _ = self.data[rows[own]]
        # Imagination goes on from pictures that are not quite those of a camera.
        much = self.config.history_noise * torch.rand(total, 1, 1, generator=generator)[own]
        much = much * (torch.arange(obs.shape[-1]) >= self.data.own)
        obs = obs + much * torch.randn(total, *obs.shape[1:], generator=generator)[own]
        level = torch.randn(total, 1, generator=generator)[own]
        noise = torch.randn(total, self.net.dim, generator=generator)[own]
        given = obs, actions, future, level, noise
        obs, actions, future, level, noise = (x.to(self.model.device) for x in given)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * warm_cosine(index / self.config.steps)
        change = self.model.encode(obs[:, -1], future)
        loss = self.net.loss(change, self.model.seen(obs), self.model.code(actions), level, noise)
        self.optimizer.zero_grad()
        (loss / self.devices.count).backward()
        whole = loss.detach() / self.devices.count
        self.devices.add_up([p.grad for p in self.net.parameters() if p.grad is not None] + [whole])
        descend(self.optimizer, self.net.parameters())
        self.ema.update(self.net)
        return {"loss": float(whole)}

    def state(self) -> dict[str, Tensor]:
        net = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        return {**net, **self.ema.state("ema"), **optimizer_state(self.optimizer, "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        self.ema.load_state("ema", tensors)
        load_optimizer_state(self.optimizer, "optimizer", tensors)


class PixelSuccessLearner:
    """Trains the success head; half of each batch are states in which the task is achieved.

    Pictures are blurred with the noise of the history, for it will judge imagined ones.

    Args:
        model: whose head; its statistics must have been fitted.
        data: windows.

    Raises:
        BadInput: if the data shows no success, or nothing else.
    """

    def __init__(self, model: PixelWorldModel, data: PixelWindows):
        self.model, self.data = model, data
        self.pools = [data.rows(True), data.rows(False)]
        if not all(len(p) for p in self.pools):
            wanted = "pictures of successes and of failures"
            raise BadInput("world data", wanted, f"{len(self.pools[0])} successful states")
        self.parts = nn.ModuleList([model.eyes, model.success_head])
        self.optimizer = torch.optim.AdamW(self.parts.parameters(), lr=_SUCCESS_LR)

    def step(self, index: int, generator: torch.Generator) -> dict[str, float]:
        half = _SUCCESS_BATCH // 2
        rows = torch.cat([p[torch.randint(len(p), (half,), generator=generator)] for p in self.pools])
        states = self.data.states(rows)
        noise = self.model.config.history_noise * torch.randn(states.shape, generator=generator)
        states = states + noise * (torch.arange(states.shape[-1]) >= self.data.own)
        label = torch.arange(2 * half, device=self.model.device) < half
        logit = self.model.success_logit(states.to(self.model.device))
        loss = nn.functional.binary_cross_entropy_with_logits(logit, label.float())
        for group in self.optimizer.param_groups:
            group["lr"] = _SUCCESS_LR * warm_cosine(index / self.model.config.success_steps)
        self.optimizer.zero_grad()
        loss.backward()
        descend(self.optimizer, self.parts.parameters())
        return {"loss": float(loss.detach())}

    def state(self) -> dict[str, Tensor]:
        own = {f"parts.{k}": v for k, v in self.parts.state_dict().items()}
        return {**own, **optimizer_state(self.optimizer, "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.parts.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("parts.")})
        load_optimizer_state(self.optimizer, "optimizer", tensors)
