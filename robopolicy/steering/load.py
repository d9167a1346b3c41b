"""Opens a saved steerer, for the policy it was trained with and no other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from robopolicy.checkpoint import load_strict, load_tensors, open_sealed, read_json
from robopolicy.errors import BadInput
from robopolicy.protocols import Policy
from robopolicy.steering.actors import ActorConfig
from robopolicy.steering.steerer import CONFIG, MODEL, NoiseSteerer, policy_hash

_KEYS = {f.name for f in dataclasses.fields(ActorConfig)} | {"policy_hash", "world_hash"}


def load_steerer(folder: Path, policy: Policy) -> NoiseSteerer:
    """Loads the steerer in `folder`.

    Raises:
        BadInput: if it is damaged, or was trained for another policy or Spec.
    """
    spec = open_sealed(folder, "steerer")
    policy.spec.require(spec, "steerer")
    config = read_json(folder / CONFIG)
    if set(config) != _KEYS:
        raise BadInput(f"{folder / CONFIG}", f"the keys {sorted(_KEYS)}", sorted(config))
    if (own := policy_hash(policy)) != config["policy_hash"]:
        raise BadInput("steerer policy", f"the policy {config['policy_hash'][:12]} it steers", own[:12])
    actor = ActorConfig(**{k: v for k, v in config.items() if not k.endswith("_hash")})
    steerer = NoiseSteerer(actor, spec, torch.Generator().manual_seed(0), policy)
    load_strict(steerer, load_tensors(folder / MODEL)[0], str(folder / MODEL))
    return steerer.eval()
