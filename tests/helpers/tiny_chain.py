"""A whole chain of tiny artefacts, made by the verbs themselves from made-up episodes."""

import dataclasses
from pathlib import Path

import numpy as np

from robopolicy.cli import main
from robopolicy.data.writer import EpisodeWriter
from robopolicy.seeding import stream
from robopolicy.spec import Spec
from robopolicy.types import Episode
from sim.tasks import LIFT

TRAINED = "train --dataset data --preset tiny --steps 5 --out policy"
OTHER = dataclasses.replace(LIFT, robot="ur5", horizon=32)


def record(root, spec: Spec, count: int) -> None:
    """Episodes of made-up numbers in the Spec's range; every other one succeeds."""
    with EpisodeWriter(root, spec, spec.task, {"source": "toy"}) as writer:
        for seed in range(count):
            rng = stream(seed, "toy")
            low, high = spec.state_range
            states = rng.uniform(0.3 * low, 0.3 * high, (17, spec.state_dim)).astype(np.float32)
            actions = rng.uniform(*spec.action_range, (16, spec.action_dim)).astype(np.float32)
            writer.add(
                Episode(
                    seed,
                    states,
                    actions,
                    success=seed % 2 == 0,
                    terminated=seed % 2 == 0,
                    truncated=seed % 2 == 1,
                    noise=rng.standard_normal((2, spec.chunk, spec.action_dim)).astype(np.float32),
                    chunk_starts=np.array([0, 8]),
                    doubt=np.zeros(2, np.float32),
                    source="toy",
                )
            )


def forge(root: Path) -> None:
    """Fills the working directory `root`; another robot's policy and data are there too."""
    record(root / "data", LIFT, 8)
    record(root / "other-data", OTHER, 4)
    steps = [
        TRAINED,
        "train --dataset data --preset tiny --steps 3 --out third",
        "train --dataset other-data --preset tiny --steps 2 --out other",
        "train-world --dataset data --preset tiny --steps 5 --processes 1 --out world",
        "steer --world world --policy policy --dataset data --preset tiny --out steerer",
    ]
    for line in steps:
        assert main(line.split()) == 0, line
