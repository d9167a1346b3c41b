"""That a policy computes where it is used what it computed where it was made."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from robopolicy.checkpoint import load_tensors
from robopolicy.errors import BadInput
from robopolicy.policies.load import ChunkPolicy
from robopolicy.protocols import Policy
from robopolicy.seeding import torch_seed

PROOF = "proof.safetensors"
# Of each action's range. Rounding differs between machines and compilers by less, half the precision by more.
_TOLERANCE = 1e-3


def proof(policy: ChunkPolicy, obs: Tensor) -> dict[str, Tensor]:
    """Observations (B, T, D), a "noise" for each, and the "actions" (B, K, A) that the policy answers."""
    generator = torch.Generator().manual_seed(torch_seed(0, "proof"))
    noise = torch.randn(len(obs), policy.spec.chunk, policy.spec.action_dim, generator=generator)
    actions, _ = policy.sample(obs, policy.initial(range(len(obs))), noise)
    return {"obs": obs, "noise": noise, "actions": actions}


def check_proof(policy: Policy, folder: Path) -> None:
    """Compares the answers of the policy in `folder` with those kept there; one that kept none is let pass.

    Raises:
        BadInput: if they differ by more than a thousandth of the action's range.
    """
    if not (folder / PROOF).is_file():  # of a sealed folder, no file is missing that belongs there
        return
    kept, _ = load_tensors(folder / PROOF)
    actions, _ = policy.sample(kept["obs"], policy.initial(range(len(kept["obs"]))), kept["noise"])
    low, high = (torch.from_numpy(bound) for bound in policy.spec.action_range)
    off = float(((actions - kept["actions"]).abs() / (high - low)).max())
    if not off <= _TOLERANCE:
        wanted = f"the actions of where it was made, to {_TOLERANCE:g} of their range"
        raise BadInput(f"{folder / PROOF}", wanted, f"others, by {off:.3g}")
