"""Learns from recorded states what success is.

What counts as success is nearly always said in few of a state's numbers ("the cube is 4 cm up"), but in
recorded episodes many others go along with it (the hand is high, the gripper is shut). A network that may use
them all takes a raised hand and a cube that imagination let slip for success, and a learner that practises
there will find it. So inputs have to earn their place: group lasso on the first layer, by its proximal step
(Yuan & Lin 2006; Scardapane et al. 2017, arXiv 1607.00485).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from robopolicy.errors import BadInput
from robopolicy.train import load_optimizer_state, optimizer_state
from world_models.state import StateWorldModel

_BATCH = 256
_LR = 2e-3


class SuccessLearner:
    """Trains a model's success head; a `robopolicy.train.Learner`.

    Each batch is half success, half not, and each half is half from the steps around a change, which decide
    where the boundary lies.

    Args:
        model: whose head is trained; its statistics must have been fitted.
        states: (M, K, D) what followed a state.
        mask: (M, K) 1 where `states` was really seen.
        success: (M, K) 1 where the task was achieved.
        sparsity: strength of the group lasso.

    Raises:
        BadInput: if the data shows no success, or nothing else.
    """

    def __init__(
        self, model: StateWorldModel, states: Tensor, mask: Tensor, success: Tensor, sparsity: float
    ):
        self.model, self.sparsity = model, sparsity
        seen = mask > 0
        won = (success > 0) & seen
        changing = (won.any(-1) & (seen & ~won).any(-1))[:, None].expand_as(seen)[seen]
        self.inputs, self.labels = model.success_inputs(states[seen]), success[seen]
        self.pools = [torch.nonzero(self.labels == label)[:, 0] for label in (1, 0)]
        if not all(len(p) for p in self.pools):
            raise BadInput("world data", "successes and failures", f"{len(self.pools[0])} successful states")
        near = [pool[changing[pool]] for pool in self.pools]
        self.pools += [n if len(n) else p for n, p in zip(near, self.pools, strict=True)]
        self.optimizer = torch.optim.AdamW(model.success_head.parameters(), lr=_LR, fused=True)

    def step(self, index: int, generator: torch.Generator) -> dict[str, float]:
        size = (_BATCH // len(self.pools),)
        rows = torch.cat([p[torch.randint(len(p), size, generator=generator)] for p in self.pools])
        logit = self.model.success_head(self.inputs[rows]).squeeze(-1)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, self.labels[rows])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        shrink_inputs(first_layer(self.model), _LR * self.sparsity)
        return {"loss": float(loss.detach())}

    def state(self) -> dict[str, Tensor]:
        head = {f"head.{k}": v for k, v in self.model.success_head.state_dict().items()}
        return {**head, **optimizer_state(self.optimizer, "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        head = {k[5:]: v for k, v in tensors.items() if k.startswith("head.")}
        self.model.success_head.load_state_dict(head)
        load_optimizer_state(self.optimizer, "optimizer", tensors)


def first_layer(model: StateWorldModel) -> Tensor:
    """(hidden, D) weights through which the success head sees a state."""
    return cast(nn.Linear, model.success_head[0]).weight


@torch.no_grad()
def shrink_inputs(weight: Tensor, amount: float) -> None:
    """Shortens each column of `weight` (out, in) by `amount`, in place; shorter ones become zero."""
    norms = weight.norm(dim=0).clamp_min(1e-12)
    weight *= (1 - amount / norms).clamp_min(0)


@torch.no_grad()
def inputs_used(model: StateWorldModel) -> list[str]:
    """Names of the numbers that the success head looks at, the weightiest first."""
    norms = first_layer(model).norm(dim=0)
    order = norms.argsort(descending=True).tolist()
    names = [*model.spec.state_names, *model.geometry.relation_names]
    return [names[i] for i in order if norms[i] > 0.05 * norms.max()]
