"""Pixels: the whole chain on pictures, how fast they are imagined, and how actions are best told.

    python -m benchmarks.pixels [--parts speed codes chain] [--tasks lift] [--seeds 45] [--chains latent]

"speed": pictures per second of our denoiser, which imagines several at once, and of one in the shape of
DIAMOND's (arXiv 2405.12399: one picture from four, three steps), both U-Nets of the same width, in turns;
then of ours in half precision and compiled; and of the simulator's renderer.
"codes": the same training with each code of actions (`world_models.pixels.two_hot`). "chain": `robopolicy
demo` on pictures alone, what is imagined being what an eye sees ("latent"; of two cameras, "latent2"),
pictures that policies see through an eye ("pixel"), or pictures that they read themselves ("read"); then
policies of several ages judged in imagination and in the simulator. Results are in pixels-cpu.json, or
pixels-gpu.json where there is a graphics processor; what is there is not run again, but for the speed.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Env

from benchmarks.policies.common import save
from robopolicy.checkpoint import read_json
from robopolicy.cli import chain
from robopolicy.cli.collect import Collect, collect
from robopolicy.cli.demo import Demo
from robopolicy.cli.judge import Evaluate, Imagine, evaluate, imagine
from robopolicy.cli.learn import Train, train
from robopolicy.config import POLICY_PRESETS
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.results import RESULT, PeakMemory, hardware, versions
from robopolicy.spec import Camera
from robopolicy.train import fit, seeded_init
from sim.rendering import gl_backend, picture, require_rendering
from sim.tasks import find_task
from world_models.denoiser import euler_sample, karras_levels
from world_models.pixels.config import PIXEL_PRESETS, PixelConfig
from world_models.pixels.denoiser import PixelDenoiser
from world_models.pixels.learners import DenoiserLearner, PixelSuccessLearner
from world_models.pixels.model import PixelWorldModel
from world_models.pixels.quality import quality
from world_models.pixels.train import fit_statistics
from world_models.pixels.two_hot import code_size
from world_models.pixels.windows import PixelWindows

_GPU = torch.cuda.is_available()
RESULTS = Path(__file__).parent / "results" / f"pixels-{'gpu' if _GPU else 'cpu'}.json"
SEED = 45  # nothing was chosen on it
PARTS = ("speed", "codes", "chain")
CHAINS: dict[str, Any] = {
    "latent": {"world": "latent"},
    "latent2": {"world": "latent", "cameras": ("scene", "wrist")},
    "pixel": {"world": "pixel"},
    "read": {"world": "pixel", "eye": "pixels"},
}
CODES = ("two-hot", "one-hot", "linear")
# What our denoiser can be made faster with; CUDA graphs where there is a graphics processor.
VARIANTS: dict[str, dict[str, str]] = {
    "half precision": {"precision": "bf16"},
    "compiled": {"compiler": "inductor"},
    "both": {"precision": "bf16", "compiler": "inductor"},
    **({"half precision, cuda graphs": {"precision": "bf16", "compiler": "cudagraphs"}} if _GPU else {}),
}
_PAST, _STEPS = 4, 3  # DIAMOND's
_AGES = (2, 5, 10, 25, 50)  # per cent of a policy's training
_TURNS = 5
_SIDES = (32, 64, 128, 256)


def main() -> None:
    """Runs what is asked for and missing; writes the results after each part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--parts", nargs="+", choices=("speed", "codes", "chain"), default=["speed", "codes", "chain"]
    )
    parser.add_argument("--tasks", nargs="+", default=["lift"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED])
    parser.add_argument("--chains", nargs="+", choices=tuple(CHAINS), default=list(CHAINS))
    parser.add_argument("--preset", default="full" if _GPU else "quick", choices=tuple(PIXEL_PRESETS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/pixels"))
    args = parser.parse_args()
    config, size = PIXEL_PRESETS[args.preset], chain.PICTURES[args.preset]
    found: dict[str, Any] = read_json(RESULTS) if RESULTS.is_file() else {"schema": 1}

    def keep(**part: Any) -> None:
        found.update(part, versions=versions(), hardware=hardware())
        save(RESULTS, found)

    if "speed" in args.parts:
        keep(speed=speed(config, size), rendering=rendering(), preset=args.preset)
    if "codes" in args.parts and "codes" not in found:
        keep(codes={kind: coded(kind, config, size, args.runs / "codes") for kind in CODES})
    if "chain" in args.parts:
        for task, seed, kind in itertools.product(args.tasks, args.seeds, args.chains):
            name = f"{kind}-{task}-{seed}"
            if "ranking" not in found.get("chain", {}).get(name, {}):
                unit, out = {}, args.runs / name
                for part in (chained, ranked):
                    unit |= part(kind, task, seed, args.preset, out, args.processes)
                    keep(chain={**found.get("chain", {}), name: unit})
    print({k: found[k] for k in args.parts if k in found})


def speed(config: PixelConfig, size: int, batch: int = 16) -> dict[str, Any]:
    """Pictures per second of one camera, and the memory that took."""
    device, spec = torch.device("cuda" if _GPU else "cpu"), find_task("lift").spec

    def made(precision: Any = "fp32", compiler: str = "") -> PixelWorldModel:
        own = replace(config, precision=precision)
        model = PixelWorldModel(spec, (Camera("scene", size, size),), own).to(device).eval()
        model.compile_denoisers(compiler)
        return model

    model = made()
    code = spec.action_dim * code_size(config.action_code)
    diamond = PixelDenoiser(model.size, 0, _PAST, 1, _PAST * code, config).to(device).eval()
    obs = torch.rand(batch, spec.obs_steps, model.spec.state_dim).clamp(0, 1) * 0.1
    actions = torch.zeros(batch, spec.chunk, spec.action_dim)
    noise = torch.randn(batch, spec.chunk, model.spec.state_dim)
    seen = torch.randn(batch, _PAST * model.size[0], size, size, device=device)
    told, levels = torch.zeros(batch, _PAST * code, device=device), karras_levels(_STEPS)

    def theirs() -> int:
        start = torch.randn(batch, diamond.dim, device=device)
        euler_sample(lambda x, s: diamond(x, s, seen, told), start, levels).cpu()
        return batch

    def imagines(model: PixelWorldModel) -> Callable[[], int]:
        def ours() -> int:
            model.predict(obs, actions, noise)
            return batch * spec.chunk

        return ours

    with torch.no_grad():
        with PeakMemory() as memory:
            per_s = _rates({"ours": imagines(model), "diamond": theirs})
        gpu_memory = torch.cuda.max_memory_allocated() / 1e6 if _GPU else None
        variants = _rates({"plain": imagines(model), **{k: imagines(made(**v)) for k, v in VARIANTS.items()}})
    return {
        "variants": {k: v / variants["plain"] for k, v in variants.items() if k != "plain"},
        "frames_per_s": per_s["ours"],
        "diamond_frames_per_s": per_s["diamond"],
        "ratio": per_s["ours"] / per_s["diamond"],
        "imagined_s_per_s": per_s["ours"] / spec.fps,
        "parameters": sum(p.numel() for p in model.members[0].parameters()),
        "diamond_parameters": sum(p.numel() for p in diamond.parameters()),
        "pixels": size,
        "batch": batch,
        "memory_mb": memory.mb,
        "gpu_memory_mb": gpu_memory,
    }


def rendering() -> dict[str, Any]:
    """Pictures per second that the simulator of `lift` takes, by their side in pixels."""
    require_rendering()
    taken: dict[str, Callable[[], int]] = {}
    envs = {side: find_task("lift").make(side) for side in _SIDES}
    for side, env in envs.items():
        env.reset(seed=SEED)

        def take(env: Env = env) -> int:
            for camera in ("scene", "wrist"):
                picture(env, camera)
            return 2

        taken[str(side)] = take
    per_s = _rates(taken)
    for env in envs.values():
        env.close()
    return {"frames_per_s": per_s, "backend": gl_backend()}


def _rates(works: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Pictures per second of each, all in turns."""
    rates = [{k: _rate(work) for k, work in works.items()} for _ in range(_TURNS)]
    return {k: float(np.median([r[k] for r in rates])) for k in works}


def _rate(work: Callable[[], int]) -> float:
    """Pictures per second, the first call not counted."""
    work()
    began, count = time.perf_counter(), sum(work() for _ in range(_TURNS))
    return count / (time.perf_counter() - began)


def coded(kind: Any, config: PixelConfig, size: int, out: Path) -> dict[str, Any]:
    """Quality of one denoiser that is told of actions in this way, on held-out episodes of `lift`."""
    collect(Collect(out / "filmed", seed=SEED, pictures=size, processes=1))
    spec = dataset_info(out / "filmed")[0]
    episodes = load_episodes([out / "filmed"])
    cut, base = max(1, len(episodes) // 10), replace(spec, cameras=())
    with seeded_init(SEED):
        model = PixelWorldModel(base, spec.cameras, replace(config, members=1, action_code=kind))
    data = PixelWindows(episodes[cut:], base, spec.cameras, model.steps)
    fit_statistics(model, data, SEED)
    learner = DenoiserLearner(model.to("cuda" if _GPU else "cpu"), 0, data)
    fit(learner, config.steps, SEED, f"pixel world model ({kind})", out / f"{kind}.safetensors")
    model.members[0].load_state_dict(learner.ema.average)
    fit(PixelSuccessLearner(model, data), config.success_steps, SEED, "success in pictures")
    found = quality(model.eval(), episodes[:cut], SEED)
    return {k: found[k] for k in ("chunk", "action_error_ratio", "frechet", "success")}


def chained(kind: str, task: str, seed: int, preset: str, out: Path, processes: int) -> dict[str, Any]:
    """The whole chain on pictures."""
    chain.run(Demo(out, task, preset=preset, seed=seed, processes=processes, **CHAINS[kind]))
    demo = read_json(out / RESULT)
    kept = ("base", "steered", "paired_difference", "gap", "promotion", "speed", "wall_clock_s")
    return {
        **{k: demo[k] for k in (*kept, "peak_memory_mb")},
        "eye_psnr_db": read_json(out / "eye" / RESULT)["psnr_db"],
        "world": read_json(out / "world" / RESULT)["held_out"],
    }


def ranked(kind: str, task: str, seed: int, preset: str, out: Path, processes: int) -> dict[str, Any]:
    """How the imagination of that chain ranks policies of several ages."""
    recipe, steps = chain.RECIPES[preset], POLICY_PRESETS[preset].steps
    policies = [out / "policy"]
    for age in _AGES:
        policies.append(out / f"aged-{age}")
        train(Train((out / "demos",), policies[-1], preset=preset, steps=-(-steps * age // 100), seed=seed))
    common: dict[str, Any] = {"steerer": (out / "steerer",), "seed": seed, "processes": processes}
    given, real = (tuple(policies), out / "ranked-real"), out / "ranked-real" / RESULT
    evaluate(Evaluate(*given, task=str(out / "eye"), episodes=recipe.episodes, **common))
    found = imagine(
        Imagine(out / "world", given[0], out / "ranked", episodes=recipe.imagined, real=real, **common)
    )
    return {k: found[k] for k in ("ranking", "real_minus_imagined", "refused")}


if __name__ == "__main__":
    main()
