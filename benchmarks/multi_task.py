"""One world model for several tasks of the same robot against one for each, on the data of finished units.

    python -m benchmarks.multi_task --runs runs/truth --units push-38 coffee-pull-38 soccer-38

The states get a number per task that is 1 for the task at hand. Every world model is asked about the same
fresh real episodes; see `world_models.diagnose`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.truth.worlds import DATA, FRESH, fitted
from robopolicy.checkpoint import read_json, write_json
from robopolicy.config import WORLD_PRESETS
from robopolicy.data.episodes import load_episodes
from robopolicy.results import RESULT, hardware, versions
from robopolicy.spec import Field, Spec
from robopolicy.types import Episode
from world_models.diagnose import diagnose
from world_models.load import freeze, load_state_world
from world_models.state import StateWorldModel
from world_models.statistics import calibrate
from world_models.windows import split, windows

RESULTS = Path(__file__).parent / "results" / "multi-task.json"


def main() -> None:
    """Trains the shared models, for as long as that of one task and as those of all, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--units", nargs="+", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [args.runs / unit for unit in args.units]
    first = read_json(runs[0] / RESULT)
    seed, config = first["master_seed"], WORLD_PRESETS[first["preset"]]
    worlds = [load_state_world(run / "world") for run in runs]
    spec = shared_spec([w.spec for w in worlds])
    recorded = [tagged(load_episodes([run / f for f in DATA]), i, len(runs)) for i, run in enumerate(runs)]
    fresh = [load_episodes([run / f for f in FRESH]) for run in runs]
    rows = {"one each": [_said(w, e, seed) for w, e in zip(worlds, fresh, strict=True)]}
    train, held_out = split([e for one in recorded for e in one], config.held_out, seed)
    for name, factor in (("shared", 1), ("shared, trained longer", len(runs))):
        longer = {k: factor * getattr(config, k) for k in ("steps", "error_steps", "success_steps")}
        model = fitted(train, dataclasses.replace(config, **longer), spec, seed, name)
        calibrate(freeze(model), windows(held_out, spec), seed)
        rows[name] = [_said(model, tagged(e, i, len(runs)), seed) for i, e in enumerate(fresh)]
        print(name, rows[name], flush=True)
    result = {
        "schema": 1,
        "units": args.units,
        "models": {name: dict(zip(args.units, found, strict=True)) for name, found in rows.items()},
        "versions": versions(),
        "hardware": hardware(),
    }
    write_json(RESULTS, result)


def shared_spec(specs: Sequence[Spec]) -> Spec:
    """What the tasks have in common, and which of them it is."""
    tag = Field("is_task", len(specs), "1", -0.01, 1.01, "other", tuple(f"is_{s.task}" for s in specs))
    plain = {dataclasses.replace(s, task="shared", horizon=max(s.horizon for s in specs)) for s in specs}
    (common,) = plain
    return dataclasses.replace(common, objects=(*common.objects, tag))


def tagged(episodes: Sequence[Episode], index: int, count: int) -> list[Episode]:
    """`episodes` of task number `index` of `count`, their states extended by which it is."""
    tag = np.eye(count, dtype=np.float32)[index]
    return [
        dataclasses.replace(e, states=np.concatenate([e.states, np.tile(tag, (len(e.states), 1))], 1))
        for e in episodes
    ]


def _said(world: StateWorldModel, episodes: Sequence[Episode], seed: int) -> dict[str, Any]:
    found = diagnose(world, episodes, seed)
    return {"replay": found["replay"], "doubt_spearman": found["doubt"]["spearman"], "onset": found["onset"]}


if __name__ == "__main__":
    main()
