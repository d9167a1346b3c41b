"""Who is judged: saved policies, each by itself, and saved steerers, each with the policy it is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from robopolicy.cli.common import need
from robopolicy.errors import BadInput

if TYPE_CHECKING:
    from robopolicy.protocols import Policy, Steerer
    from robopolicy.realtime import Foresight
    from robopolicy.spec import Spec


class Candidate(NamedTuple):
    """Who is judged: a name for it, what acts, what chooses its noise, and the hashes of their folders."""

    label: str
    policy: Policy
    steerer: Steerer | None
    hashes: dict[str, str]


def candidates(spec: Spec, policies: Sequence[Path], steerers: Sequence[Path]) -> list[Candidate]:
    """Every policy by itself, then every steerer with the policy it was trained for."""
    from robopolicy.checkpoint import folder_hash, read_json
    from robopolicy.policies.load import load_policy
    from robopolicy.steering.load import load_steerer
    from robopolicy.steering.steerer import policy_hash

    need("policy", policies)
    if steerers:
        need("steerer", steerers)
    labels = _labels([*policies, *steerers])
    found: list[Candidate] = []
    for folder in policies:
        policy = load_policy(folder, spec)
        spec.require(policy.spec, "policy")
        hashes = {"policy": folder_hash(folder)}
        found.append(Candidate(labels[folder], policy, None, hashes))
    plain, by_hash = list(found), {policy_hash(c.policy): c for c in found}
    for folder in steerers:
        config = read_json(folder / "config.json")
        # Where none fits, the loader says what is wrong with the first.
        own = by_hash.get(str(config.get("policy_hash")), plain[0])
        steerer = load_steerer(folder, own.policy)
        hashes = {**own.hashes, "steerer": folder_hash(folder)}
        found.append(Candidate(labels[folder], own.policy, steerer, hashes))
    return found


def delayed(candidate: Candidate, delay: int, foresight: Path | None = None) -> Policy:
    """The policy when each of its chunks takes so many control steps, with foresight or without."""
    from robopolicy.policies.load import ChunkPolicy
    from robopolicy.realtime import RealtimePolicy

    policy = candidate.policy
    if not delay:
        if foresight is not None:
            raise BadInput("foresight", "a delay, as nothing else is foreseen", "0 control steps")
        return policy
    if candidate.steerer or not isinstance(policy, ChunkPolicy):
        wanted = "0, but for a policy of ours without steerer that is told nothing"
        raise BadInput("delay", wanted, f"{delay} for {candidate.label}")
    most = policy.spec.chunk // 2
    if not 0 < delay <= most:
        raise BadInput("delay", f"0 to {most}, half of the policy's chunk", delay)
    made = policy if foresight is None else foreseeing(policy, foresight)
    return RealtimePolicy(made, policy.spec.chunk - delay, delay)


def foreseeing(policy: Policy, world: Path, steerer: Steerer | None = None) -> Foresight:
    """The policy with foresight by a saved world model."""
    from robopolicy.policies.load import ChunkPolicy
    from robopolicy.realtime import Foresight
    from world_models.load import load_state_world

    if steerer or not isinstance(policy, ChunkPolicy):
        raise BadInput("foresight", "none, but for a policy of ours without steerer", str(world))
    return Foresight(policy, load_state_world(world))


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """Folder names, or whole paths where names repeat."""
    if len(set(folders)) < len(folders):
        raise BadInput("policy, steerer", "different folders", [str(f) for f in folders])
    names = Counter(f.resolve().name for f in folders)
    return {f: f.resolve().name if names[f.resolve().name] == 1 else str(f) for f in folders}
