"""Which episodes begin where: for demonstrations given under other conditions than those of the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from robopolicy.errors import BadInput
from robopolicy.protocols import ChunkEnv
from robopolicy.spec import Spec

# A condition that this many starts in a row fail is one that none meets.
_PATIENCE = 500


def condition(text: str, spec: Spec) -> Callable[[np.ndarray], np.ndarray]:
    """What `text`, such as "cube_x < 0.02", says of states (..., D), as a function to (...) bool.

    Raises:
        BadInput: if it is not a name of the Spec's state, "<" or ">", and a finite number.
    """
    names = spec.state_names
    match text.split():
        case [name, ("<" | ">") as sign, number] if name in names and _is_number(number):
            column, limit = names.index(name), float(number)
            return lambda states: (states[..., column] < limit) == (sign == "<")
    raise BadInput("where", f"NAME < NUMBER or NAME > NUMBER, NAME one of {list(names)}", repr(text))


def indices_where(text: str, env: ChunkEnv, seed_of: Callable[[int], int], count: int) -> list[int]:
    """The first `count` indices whose episode starts where `text` says.

    Args:
        text: see `condition`.
        env: real simulator; it is reset only.
        seed_of: environment seed of an index.
        count: how many are wanted.

    Raises:
        BadInput: if hardly any start meets the condition.
    """
    meets, found, failed = condition(text, env.spec), [], 0
    for block in itertools.batched(itertools.count(), env.num_envs):
        obs, _ = env.reset(seed=[seed_of(i) for i in block])
        for i, met in zip(block, meets(obs[:, -1]), strict=True):
            failed = 0 if met else failed + 1
            found += [i] if met else []
        if len(found) >= count:
            return found[:count]
        if failed >= _PATIENCE:
            raise BadInput("where", "a condition that some starts meet", f"{text!r}: none of {failed} do")
    raise AssertionError  # there is no last index


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
