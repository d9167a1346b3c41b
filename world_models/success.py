"""Learns from recorded states what success is.

What counts as success is nearly always said in few of a state's numbers ("the cube is 4 cm up"), but in
recorded episodes many others go along with it (the hand is high, the gripper is shut). A network that may use
them all takes a raised hand and a cube that imagination let slip for success, and a learner that practises
there will find it. So inputs have to earn their place: group lasso on the first layer, by its proximal step
(Yuan & Lin 2006; Scardapane et al. 2017, arXiv 1607.00485).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from robopolicy.errors import BadInput
from robopolicy.train import fit, load_optimizer_state, optimizer_state
from world_models.state import StateWorldModel
from world_models.windows import Windows

_BATCH = 256
_LR = 2e-3
# Whether objects alone may be looked at, and how sparsely, in the order in which it is tried.
_RUNGS = ((True, 1.0), (True, 0.3), (False, 1.0), (False, 0.3), (False, 0.1))
_WRONG = 0.02  # share of the episodes that a head may judge wrongly and still do
_LATE = 2  # steps by which its verdict may come at another time than the recorded one


def fit_success(model: StateWorldModel, data: Windows, seed: int, quiet: bool = False) -> dict[str, Any]:
    """Trains the success head of `model`: the first of ever richer ones that does, else the best of them.

    Args:
        model: its statistics must have been fitted.
        data: windows of training episodes.
        seed: of every random draw.
        quiet: show no progress bar.

    Returns:
        "curve", share of the episodes judged "wrong"ly, inputs "used".
    """
    config, begun = model.config, {k: v.clone() for k, v in model.success_head.state_dict().items()}
    rungs = _RUNGS if config.success_sparsity else ((False, 0.0),)
    tried: list[tuple[float, dict[str, Tensor], list[dict[str, float]]]] = []
    for objects_only, share in rungs:
        if objects_only and not (config.objects_first and model.spec.objects):
            continue
        model.success_head.load_state_dict(begun)
        learner = success_learner(model, data, objects_only, share * config.success_sparsity)
        curve = fit(learner, config.success_steps, seed, "success head", quiet=quiet)
        head = {k: v.clone() for k, v in model.success_head.state_dict().items()}
        tried.append((judged_wrongly(model, data), head, curve))
        if tried[-1][0] <= _WRONG:
            break
    wrong, head, curve = min(tried, key=lambda x: x[0])
    model.success_head.load_state_dict(head)
    return {"curve": curve, "wrong": wrong, "used": inputs_used(model)}


def success_learner(
    model: StateWorldModel, data: Windows, objects_only: bool, sparsity: float
) -> SuccessLearner:
    """What trains the success head of `model` on `data`."""
    allowed = about_objects(model) if objects_only else None
    return SuccessLearner(model, data.future, data.mask, data.success, sparsity, allowed)


def about_objects(model: StateWorldModel) -> Tensor:
    """(S,) 1 where an input of the success head is said of objects alone, goals among them."""
    spec, objects = model.spec, {f.name for f in model.spec.objects}
    own = [i >= spec.proprio_dim for i in range(spec.state_dim)]
    pairs = [name.split(": ")[0].split(" - ") for name in model.geometry.relation_names]
    return torch.tensor([*own, *(objects.issuperset(pair) for pair in pairs)]).float()


@torch.no_grad()
def judged_wrongly(model: StateWorldModel, data: Windows) -> float:
    """Share of the episodes that the success head takes for what they are not, or much too early or late."""
    real = data.success[:, 0] > 0
    said = model.success_logit(data.future[:, 0]) > 0
    step, count = torch.arange(len(data)).float(), int(data.episode.max()) + 1

    def first(flag: Tensor) -> Tensor:
        never = torch.full((count,), torch.inf)
        return never.scatter_reduce(0, data.episode[flag], step[flag], "amin")

    a, b = first(said), first(real)
    wrong = (a.isinf() != b.isinf()) | ((a - b).abs() > _LATE)  # never and never differ by NaN: not wrong
    return float(wrong[data.episode.unique()].float().mean())


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
        allowed: (S,) 1 for the inputs that it may look at; all of them by default.

    Raises:
        BadInput: if the data shows no success, or nothing else.
    """

    def __init__(
        self,
        model: StateWorldModel,
        states: Tensor,
        mask: Tensor,
        success: Tensor,
        sparsity: float,
        allowed: Tensor | None = None,
    ):
        self.model, self.sparsity = model, sparsity
        seen = mask > 0
        won = (success > 0) & seen
        changing = (won.any(-1) & (seen & ~won).any(-1))[:, None].expand_as(seen)[seen]
        self.inputs, self.labels = model.success_inputs(states[seen]), success[seen]
        if allowed is not None:
            self.inputs = self.inputs * allowed
            with torch.no_grad():  # what is never seen is never learned: these weights stay zero
                first_layer(model).mul_(allowed)
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
