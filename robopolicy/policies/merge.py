"""Merging of a policy with one that was trained on from it (RETAIN, arXiv 2512.08333).

theta = (1 - weight) theta_base + weight theta_tuned, with a weight of its own for each group of parameters.
What was learned anew stays, and so does what the base could do elsewhere.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from robopolicy.errors import BadInput
from robopolicy.policies.load import ChunkPolicy, different_make


def merge(
    base: ChunkPolicy, tuned: ChunkPolicy, weight: float, groups: Mapping[str, float] | None = None
) -> ChunkPolicy:
    """A policy between `base` (weight 0) and `tuned` (weight 1).

    Args:
        base: what was trained on from.
        tuned: what came of it: same network, same statistics.
        weight: of every parameter that no group names.
        groups: weights by the beginning of a parameter's name, such as "denoiser.cond"; the longest counts.

    Raises:
        BadInput: if the two do not fit together, a weight is not in [0, 1], or a group names no parameter.
    """
    weights = {"": weight, **(groups or {})}
    for name, one in weights.items():
        if not 0 <= one <= 1:
            raise BadInput(f"weight {name}".strip(), "a number in [0, 1]", one)
    base.spec.require(tuned.spec, "tuned policy")
    mine, theirs = base.state_dict(), tuned.state_dict()
    if differing := different_make(base, tuned):
        raise BadInput("tuned policy", "the same make as the base's", f"other {', '.join(differing)}")
    for name in ("mean", "std", "low", "high"):
        if not torch.equal(mine[name], theirs[name]):
            wanted = "statistics of the base (train it with --init)"
            raise BadInput(f"tuned policy {name}", wanted, "other ones")
    own = base.core.state_dict()
    for group in groups or {}:
        if not any(_in(name, group) for name in own):
            raise BadInput(
                "group", f"the beginning of a parameter's name, such as {next(iter(own))!r}", group
            )
    tuned_core = tuned.core.state_dict()
    merged = copy.deepcopy(base)
    merged.core.load_state_dict(
        {
            k: torch.lerp(v, tuned_core[k], _weight(k, weights)) if v.is_floating_point() else v
            for k, v in own.items()
        }
    )
    return merged


def _in(name: str, group: str) -> bool:
    return not group or name == group or name.startswith(group + ".")


def _weight(name: str, weights: Mapping[str, float]) -> float:
    return weights[max((group for group in weights if _in(name, group)), key=len)]
