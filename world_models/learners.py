"""What trains the networks of a world model; each a `robopolicy.train.Learner`."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from robopolicy.config import WorldConfig
from robopolicy.train import descend, load_optimizer_state, optimizer_state, warm_cosine
from world_models.regressor import Regressor
from world_models.state import StateWorldModel
from world_models.statistics import fit_errors, folds, targets
from world_models.windows import Windows

_EMA = 0.999


class _NetLearner:
    """AdamW with warm-up and cosine decay; keeps the moving average of the weights."""

    def __init__(self, net: nn.Module, near: Tensor, rows: Tensor, steps: int, config: WorldConfig):
        self.net, self.config, self.steps = net, config, steps
        self.rows, self.near = rows, rows[near[rows]]
        self.average = {k: v.clone() for k, v in net.state_dict().items()}
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=1e-2, fused=True)

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of some windows."""
        raise NotImplementedError

    def step(self, index: int, generator: torch.Generator) -> dict[str, float]:
        near = int(self.config.batch_size * self.config.contact_share) if len(self.near) else 0
        everywhere = torch.randint(len(self.rows), (self.config.batch_size - near,), generator=generator)
        picked = torch.randint(max(1, len(self.near)), (near,), generator=generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * warm_cosine(index / self.steps)
        loss = self.loss(torch.cat([self.rows[everywhere], self.near[picked]]), generator)
        self.optimizer.zero_grad()
        loss.backward()
        descend(self.optimizer, self.net.parameters())
        decay = min(_EMA, (1 + index) / (10 + index))
        own = self.net.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [own[k] for k in self.average], 1 - decay)
        return {"loss": float(loss.detach())}

    def blurred(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Features with noise: imagination will not be where the data is to the micrometre."""
        return features + self.config.feature_noise * torch.randn(features.shape, generator=generator)

    def state(self) -> dict[str, Tensor]:
        net = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        average = {f"average.{k}": v for k, v in self.average.items()}
        return {**net, **average, **optimizer_state(self.optimizer, "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
        self.average = {k[8:]: v.clone() for k, v in tensors.items() if k.startswith("average.")}
        load_optimizer_state(self.optimizer, "optimizer", tensors)


class MemberLearner(_NetLearner):
    """Trains one regressor of the ensemble on all episodes but those of its fold.

    Args:
        model: whose member is trained; its statistics must have been fitted.
        member: index.
        data: windows of `model.steps` steps.
        config: sizes and numbers of steps.
    """

    def __init__(self, model: StateWorldModel, member: int, data: Windows, config: WorldConfig):
        rows = torch.nonzero(folds(data, len(model.members)) != member)[:, 0]
        net = cast(Regressor, model.members[member])
        super().__init__(net, model.geometry.contact(data.obs), rows, config.steps, config)
        self.regressor, self.cond = net, model.condition(data.obs, data.actions)
        self.target, self.known = targets(model, data)

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        cond = self.blurred(self.cond[rows], generator)
        return self.regressor.loss(cond, self.target[rows], self.known[rows])


class ErrorLearner(_NetLearner):
    """Trains the denoiser of the regressors' errors.

    Args:
        model: whose members are trained.
        data: windows of `model.steps` steps.
        config: sizes and numbers of steps.
    """

    def __init__(self, model: StateWorldModel, data: Windows, config: WorldConfig):
        everything = torch.arange(len(data))
        near = model.geometry.contact(data.obs)
        super().__init__(model.denoiser, near, everything, config.error_steps, config)
        self.denoiser = model.denoiser
        self.latent, self.cond = fit_errors(model, data)

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.denoiser.loss(self.latent[rows], self.blurred(self.cond[rows], generator), generator)
