"""Task name -> Spec and environment. Ours are entries of `TASKS`; a user's are named "module:NAME"."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import gymnasium

from robopolicy.errors import BadInput
from robopolicy.spec import Spec
from sim.specs import BLOCKS, CAN, DOOR, LAMPS, LIFT, SIGNAL, STACK, THINGS, memory_spec, metaworld_spec

if TYPE_CHECKING:
    from robopolicy.protocols import Policy
    from sim.experts import ExpertSettings


class Instruct(Protocol):
    """Says in a sentence what is to be done."""

    def __call__(self, seed: int, familiar: bool = True) -> str: ...


@dataclass(frozen=True)
class Demonstrations:
    """What a task's demonstrations are like, and in which way they fall short of what is to be learned.

    Attributes:
        imperfection: "mixed" operators of differing skill, "few" though careful ones, or "shifted": given
            under other conditions than those of the test.
        episodes: how many.
        expert: who gives them; a name in `Task.experts`.
        where: condition on the start state, such as "cube_x < 0.02"; none if empty.
    """

    imperfection: Literal["mixed", "few", "shifted"] = "mixed"
    episodes: int = 60
    expert: str = "mixed"
    where: str = ""


@dataclass(frozen=True)
class Task:
    """A task users can name on the command line.

    Attributes:
        spec: what its numbers mean.
        demonstrations: those that a policy for it is learned from, if the user does not say otherwise.
        make: builds one step-level environment (observation (D,), action (A,), both physical), given
            the side of its pictures in pixels, 0 for none.
        experts: who may demonstrate, by name.
        expert: builds the scripted expert that one of `experts()` operates.
        instruct: the sentence that says what is to be done in the episode of a seed, where that differs from
            episode to episode; in a wording that demonstrations have, or in one that they never have.
    """

    spec: Spec
    demonstrations: Demonstrations
    make: Callable[..., gymnasium.Env]
    experts: Callable[[], Mapping[str, ExpertSettings]]
    expert: Callable[[Spec, ExpertSettings], Policy]
    instruct: Instruct | None = None


def _robosuite(spec: Spec, demonstrations: Demonstrations) -> Task:
    def make(camera: int = 0) -> gymnasium.Env:
        from sim.robosuite_tasks import ENVS

        return ENVS[spec.task](spec, camera)

    def experts() -> Mapping[str, ExpertSettings]:
        from sim.robosuite_experts import OPERATORS

        return OPERATORS[spec.task]

    def expert(spec: Spec, settings: ExpertSettings) -> Policy:
        from sim.robosuite_experts import EXPERTS

        return EXPERTS[spec.task](spec, settings)

    return Task(spec, demonstrations, make, experts, expert)


def _metaworld(name: str, horizon: int, demonstrations: Demonstrations) -> Task:
    spec = metaworld_spec(name, horizon)

    def make(camera: int = 0) -> gymnasium.Env:
        from sim.metaworld_env import MetaWorldEnv

        return MetaWorldEnv(spec, f"{name}-v3", camera)

    def experts() -> Mapping[str, ExpertSettings]:
        from sim.metaworld_expert import OPERATORS

        return OPERATORS[name]

    def expert(spec: Spec, settings: ExpertSettings) -> Policy:
        from sim.metaworld_expert import MetaWorldExpert

        return MetaWorldExpert(spec, settings, f"{name}-v3")

    return Task(spec, demonstrations, make, experts, expert)


def _memory(kind: str, spec: Spec, episodes: int = 200) -> Task:
    def make(camera: int = 0) -> gymnasium.Env:
        from sim.memory_env import ENVS

        return ENVS[kind](spec, camera)

    def experts() -> Mapping[str, ExpertSettings]:
        from sim.memory_expert import OPERATORS

        return OPERATORS

    def expert(spec: Spec, settings: ExpertSettings) -> Policy:
        from sim.memory_expert import EXPERTS

        return EXPERTS[kind](spec, settings)

    return Task(spec, Demonstrations("few", episodes, "careful"), make, experts, expert)


def _blocks() -> Task:
    spec = memory_spec("blocks", 80, BLOCKS)

    def make(camera: int = 0) -> gymnasium.Env:
        from sim.blocks import BlocksEnv

        return BlocksEnv(spec, camera)

    def experts() -> Mapping[str, ExpertSettings]:
        from sim.memory_expert import OPERATORS

        return OPERATORS

    def expert(spec: Spec, settings: ExpertSettings) -> Policy:
        from sim.blocks import BlocksExpert

        return BlocksExpert(spec, settings)

    def instruct(seed: int, familiar: bool = True) -> str:
        from sim.blocks import instruction

        return instruction(seed, familiar)

    return Task(spec, Demonstrations("few", 300, "careful"), make, experts, expert, instruct)


MANIPULATION = {
    "lift": _robosuite(LIFT, Demonstrations()),
    "stack": _robosuite(STACK, Demonstrations()),
    "can": _robosuite(CAN, Demonstrations()),
    "door": _robosuite(DOOR, Demonstrations()),
    "push": _metaworld("push", 56, Demonstrations(episodes=80)),
    "coffee-pull": _metaworld("coffee-pull", 80, Demonstrations(episodes=80)),
    "lever-pull": _metaworld("lever-pull", 80, Demonstrations("shifted", 50, "mixed", "object_x < 0.1")),
    "soccer": _metaworld("soccer", 80, Demonstrations("few", 160, "careful")),
}
# What cannot be done by what is seen now; the cue at three distances, counting to one, two and three, the way
# back, several things at once, and where each of two is kept.
MEMORY = {
    "cue-short": _memory("cue", memory_spec("cue-short", 84, LAMPS)),
    "cue-medium": _memory("cue", memory_spec("cue-medium", 140, LAMPS)),
    "cue-long": _memory("cue", memory_spec("cue-long", 212, LAMPS)),
    "count-once": _memory("count", memory_spec("count-once", 128, SIGNAL)),
    "count-twice": _memory("count", memory_spec("count-twice", 184, SIGNAL)),
    "count": _memory("count", memory_spec("count", 240, SIGNAL)),
    "return": _memory("return", memory_spec("return", 240, SIGNAL)),
    "tour": _memory("tour", memory_spec("tour", 252, LAMPS), 400),
    "errand": _memory("errand", memory_spec("errand", 180, THINGS), 400),
}
# What cannot be done without being told.
TOLD = {"blocks": _blocks()}
TASKS = MANIPULATION | MEMORY | TOLD


def find_task(name: str) -> Task:
    """The task called `name`: one of `TASKS`, or the `Task` that a module of the user holds, "module:NAME".

    The folder of an eye is the task that it was trained for, as it sees it (`sim.seen`). A user's module is
    looked for in the working folder too, and its code is run.

    Raises:
        BadInput: for an unknown name, with the nearest known one, and if there is no such `Task`.
    """
    if ":" in name:
        return _foreign(name)
    if (Path(name) / "eye.safetensors").is_file():
        return _seen(Path(name))
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        wanted = f"one of {sorted(TASKS)}, MODULE:NAME of your own, or the folder of an eye"
        raise BadInput("task", wanted, f"{name!r}{hint}")
    return TASKS[name]


def _seen(folder: Path) -> Task:
    """A task as an eye sees it; its demonstrations are converted, as no expert sees so."""
    from sim.seen import seen

    base = find_task(Spec.load(folder).task)
    spec, make = seen(folder, base.spec, base.make)
    return replace(base, spec=spec, make=make, experts=dict)


def _foreign(name: str) -> Task:
    module, _, attribute = name.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    wanted = "MODULE:NAME, a sim.tasks.Task in a module that can be imported"
    try:
        task = getattr(importlib.import_module(module), attribute, None)
    except (ModuleNotFoundError, ValueError) as e:
        raise BadInput("task", wanted, f"{name!r} ({e})") from e
    if not isinstance(task, Task):
        raise BadInput("task", wanted, repr(name))
    return task
