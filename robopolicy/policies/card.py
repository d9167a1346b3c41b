"""The README.md beside a saved policy: a model card of Hugging Face's, so that a Hub page says what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData

from robopolicy.policies.load import ChunkPolicy
from robopolicy.spec import Field

_TEXT = """---
{data}
---

# {task}: a {kind} policy

A LeRobot policy of type `{type}` for the robot `{robot}`, trained by robopolicy{told}. It says {chunk}
actions at {fps:g} Hz from the last {obs_steps} observations.

{training}

## What it sees and says

| | field | numbers | unit | range |
|---|---|---|---|---|
{rows}

## Use

```
robopolicy evaluate --policy FOLDER --task {task} --out runs/real
lerobot-train --policy.path=FOLDER --policy.discover_packages_path=robopolicy.policies.diffusion ...
```

How well it does is not said here: judge it where it is to be used.
"""


def card(policy: ChunkPolicy, trained: Mapping[str, Any] | None = None) -> str:
    """The text of the card.

    Args:
        policy: what it is about.
        trained: "episodes" and "windows" that it learned from, if that is known.
    """
    spec, config = policy.spec, policy.core.config
    kind = config.process if config.memory == "none" else f"{config.process} ({config.memory})"
    tags = ["robotics", "lerobot", "robopolicy", config.type, spec.task]
    data = ModelCardData(library_name="lerobot", pipeline_tag="robotics", tags=tags, model_name=spec.task)
    training = ""
    if trained:
        training = f"Learned from {trained['episodes']} episodes, {trained['windows']:,} windows of them."
    return _TEXT.format(
        data=data.to_yaml(),
        task=spec.task,
        kind=kind,
        type=config.type,
        robot=spec.robot,
        told=", which is told what to do" if config.task_size else "",
        chunk=spec.chunk,
        fps=spec.fps,
        obs_steps=spec.obs_steps,
        training=training,
        rows="\n".join([*_rows("state", spec.state), *_rows("action", spec.action)]),
    )


def _rows(what: str, fields: Sequence[Field]) -> list[str]:
    return [f"| {what} | {f.name} | {f.size} | {f.unit} | {f.low:g} to {f.high:g} |" for f in fields]
