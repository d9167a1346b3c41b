"""`robopolicy merge`: a policy between two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from robopolicy.cli.common import Result, need, positive, run
from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from robopolicy.policies.load import ChunkPolicy
    from robopolicy.protocols import ChunkEnv

_BATCH = 256  # episodes imagined at the same time
_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Merge:
    """Mix a policy with one that was trained on from it.

    What was learned anew stays, and so does what the base can do elsewhere. Instead of --weight, a --world
    can be given: then the weight is the one with which it imagines most success, the least of equals.
    Next: robopolicy evaluate with all three.

    Example: robopolicy merge --policy runs/policy runs/tuned --weight 0.5 --out runs/merged

    Attributes:
        policy: the base, and what "robopolicy train --init BASE" made of it.
        out: folder of the merged policy.
        weight: from 0 for the base to 1 for the other.
        group: a weight of their own for parameters whose names begin with NAME, as NAME=WEIGHT, such as
            denoiser.cond=1.0; the longest name counts.
        world: world model that the weight is chosen in.
        episodes: imagined per weight.
        seed: of the imagined episodes.
    """

    policy: tuple[Path, Path]
    out: Path
    weight: float | None = None
    group: tuple[str, ...] = ()
    world: Path | None = None
    episodes: int = 512
    seed: int = 0


def merge(args: Merge) -> Result:
    """Merges two policies; see `Merge`."""
    return run("merge", args, None, lambda: _merge(args))


def _merge(args: Merge) -> Result:
    from robopolicy.checkpoint import folder_hash, load_tensors
    from robopolicy.policies import merge as merging
    from robopolicy.policies.load import ChunkPolicy, load_policy
    from robopolicy.policies.proof import PROOF, proof
    from robopolicy.policies.train import save_policy

    positive(episodes=args.episodes)
    groups = dict(_group(one) for one in args.group)
    base, tuned = (load_policy(folder) for folder in need("policy", args.policy))
    for folder, policy in zip(args.policy, (base, tuned), strict=True):
        if not isinstance(policy, ChunkPolicy):
            raise BadInput("policy", "one that robopolicy trained", folder)
    assert isinstance(base, ChunkPolicy)
    assert isinstance(tuned, ChunkPolicy)
    if (args.weight is None) == (args.world is None):
        raise BadInput(
            "weight", "either --weight or a --world to choose it in", f"{args.weight}, {args.world}"
        )
    found: Result = {"weight": args.weight, "imagined": []}
    if args.world is not None:
        found = _chosen(args.world, {w: merging.merge(base, tuned, w, groups) for w in _WEIGHTS}, args)
    merged = merging.merge(base, tuned, found["weight"], groups)
    kept = next((f / PROOF for f in args.policy if (f / PROOF).is_file()), None)
    save_policy(merged, args.out, answers=proof(merged, load_tensors(kept)[0]["obs"]) if kept else None)
    return {**found, "groups": groups, "hash": folder_hash(args.out)}


def _chosen(world_folder: Path, made: Mapping[float, ChunkPolicy], args: Merge) -> Result:
    """The weight with the most imagined successes, and what all of them came to."""
    from robopolicy.cli.judge import TRUSTED
    from robopolicy.rollout import PriorSteerer
    from robopolicy.steering.steer import imagined_success, trusted_doubt
    from world_models import load

    (folder,) = need("world", [world_folder])
    world = load.load_world(folder)
    base = made[_WEIGHTS[0]]
    world.spec.require(base.spec, "policy")
    _, starts = load.start_states(world_folder)
    count = (args.episodes, args.seed)

    def imagination(limit: float) -> ChunkEnv:
        # gymnasium means something else by `spec`, so its type hides ours.
        return cast("ChunkEnv", load.imagination(world, starts, min(_BATCH, args.episodes), limit))

    env = imagination(trusted_doubt(imagination(float("inf")), base, *count, TRUSTED))
    rates = {w: imagined_success(env, policy, *count)(PriorSteerer()) for w, policy in made.items()}
    best = max(rates, key=lambda w: (rates[w].rate, -w))
    return {"weight": best, "imagined": [{"weight": w, **rate.to_dict()} for w, rate in rates.items()]}


def _group(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise BadInput("group", "NAME=WEIGHT", text) from None
