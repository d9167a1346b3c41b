"""Who may know whom (README, "Rooms"), and what no file may call."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable

import pytest

from source_tree import ROOMS, ROOT, Import, Module, calls, dotted, keyword, modules, target, within

MAX_LINES = 400

# Inside robopolicy a module imports its own floor and those below. Names are modules or whole packages.
FLOORS = (
    ("errors", "types", "spec"),
    ("protocols", "config", "seeding", "stats", "ranking", "progress", "wire", "processes", "backends"),
    ("keys",),
    ("checkpoint", "devices"),
    ("train",),
    ("data", "nets"),
    ("policies", "eye"),
    ("rollout", "realtime"),
    ("steering", "refine"),
    ("evaluate", "latency", "results", "report", "serve"),
    ("cli",),
)

TORCH_FREE = (
    "robopolicy.errors",
    "robopolicy.types",
    "robopolicy.spec",
    "robopolicy.config",
    "robopolicy.wire",
    "robopolicy.keys",
    "robopolicy.policies.chunking",
)
# Libraries that import torch themselves.
BRINGS_TORCH = (
    "torch",
    "torchvision",
    "torchcodec",
    "lerobot",
    "diffusers",
    "accelerate",
    "safetensors.torch",
)

# Libraries with one room each.
ONLY_IN = {
    "rclpy": "ros_nodes",
    "sensor_msgs": "ros_nodes",
    "std_msgs": "ros_nodes",
    "std_srvs": "ros_nodes",
    "trajectory_msgs": "ros_nodes",
    "geometry_msgs": "ros_nodes",
    "diagnostic_msgs": "ros_nodes",
    "builtin_interfaces": "ros_nodes",
    "launch": "ros_nodes",
    "launch_ros": "ros_nodes",
    "mujoco": "sim",
    "robosuite": "sim",
}
PICKLERS = ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
WALL_CLOCK = ("time.time", "time.time_ns")
# What numpy.random offers without touching its global state.
LOCAL_RANDOM = ("default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox")


def _floor(name: str) -> int | None:
    if name == "robopolicy":
        return 0
    part = name.split(".")[1]
    return next((i for i, floor in enumerate(FLOORS) if part in floor), None)


def _is_cli(module: Module) -> bool:
    return within(module.name, ["robopolicy.cli"])


def _called(wanted: Callable[[Module, ast.Call, str], bool]) -> list[str]:
    return [
        f"{module.at(call.lineno)} calls {name}"
        for module in modules().values()
        for call, name in calls(module)
        if wanted(module, call, name)
    ]


def _imported(wanted: Callable[[Module, Import], bool]) -> list[str]:
    return [
        f"{module.at(one.line)} imports {one.name}"
        for module in modules().values()
        for one in module.imports
        if wanted(module, one)
    ]


def _check(violations: Iterable[str], rule: str) -> None:
    listed = list(violations)
    assert not listed, "\n  ".join([rule, *listed])


# --- rooms and floors


def test_core_knows_no_other_room() -> None:
    others = [r for r in ROOMS if r != "robopolicy"]
    _check(
        _imported(
            lambda m, i: m.room == "robopolicy" and within(i.name, others) and not (_is_cli(m) and i.lazy)
        ),
        "robopolicy imports no other room, except robopolicy.cli inside functions:",
    )


def test_outer_rooms_never_know_each_other() -> None:
    _check(
        _imported(
            lambda m, i: m.room != "robopolicy" and within(i.name, set(ROOMS) - {m.room, "robopolicy"})
        ),
        "world_models, sim and ros_nodes import robopolicy and never each other:",
    )


def test_outer_rooms_never_know_the_command_line() -> None:
    _check(
        _imported(lambda m, i: m.room != "robopolicy" and within(i.name, ["robopolicy.cli"])),
        "robopolicy.cli composes the rooms, so no room imports it:",
    )


def test_every_core_module_has_a_floor() -> None:
    _check(
        (m.at(1) for m in modules().values() if m.room == "robopolicy" and _floor(m.name) is None),
        "give these a floor in FLOORS:",
    )


def test_core_imports_only_downwards() -> None:
    def rises(module: Module, one: Import) -> bool:
        reached = target(one.name) or ""
        if module.room != "robopolicy" or not within(reached, ["robopolicy"]):
            return False
        own, other = _floor(module.name), _floor(reached)
        return own is not None and other is not None and other > own

    _check(
        _imported(rises),
        "inside robopolicy imports go down: " + " < ".join("/".join(floor) for floor in FLOORS),
    )


def test_no_import_cycles() -> None:
    graph = {
        name: {t for i in module.imports if (t := target(i.name)) and t != name}
        for name, module in modules().items()
    }
    done: set[str] = set()
    cycles: list[str] = []

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            cycles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for reached in sorted(graph[name]):
                walk(reached, [*path, name])
            done.add(name)

    for name in graph:
        walk(name, [])
    _check(cycles, "no module imports itself through others, lazily or not:")


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_stays_in_its_room(library: str) -> None:
    _check(
        _imported(lambda m, i: m.room != ONLY_IN[library] and within(i.name, [library])),
        f"only {ONLY_IN[library]} imports {library}:",
    )


# --- the torch-free side


def _torch_free() -> list[str]:
    # Files that only ROS tools read are no modules.
    own = (m for m in modules() if m in TORCH_FREE or within(m, ["ros_nodes"]))
    return [m for m in own if not within(m, ["ros_nodes.launch", "ros_nodes.setup"])]


def _reach(name: str) -> dict[str, str]:
    """Every module of ours that importing and running `name` may import, with the way there."""
    ways = {name: name}
    todo = [name]
    while todo:
        current = todo.pop()
        for one in modules()[current].imports:
            reached = target(one.name)
            if reached and not one.typing_only and reached not in ways:
                ways[reached] = f"{ways[current]} -> {reached}"
                todo.append(reached)
    return ways


@pytest.mark.parametrize("name", _torch_free())
def test_robot_side_has_no_way_to_torch(name: str) -> None:
    _check(
        (
            f"{way} -> {one.name}"
            for module, way in _reach(name).items()
            for one in modules()[module].imports
            if not one.typing_only and within(one.name, BRINGS_TORCH)
        ),
        f"{name} runs on the robot, which has no torch:",
    )


_IMPORT_WITHOUT_TORCH = """
import importlib, json, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not for the robot side")

sys.meta_path.insert(0, NoTorch())
failed = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""


def test_robot_side_imports_without_torch() -> None:
    names = _torch_free()
    if importlib.util.find_spec("rclpy") is None:
        names = [
            n
            for n in names
            if not any(within(i.name, ["rclpy"]) for m in _reach(n) for i in modules()[m].imports)
        ]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_WITHOUT_TORCH, json.dumps(names)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    failed = json.loads(done.stdout.splitlines()[-1])
    _check((f"{n}: {why}" for n, why in failed.items()), "these do not import where torch is absent:")


# --- banned calls


def test_no_pickle() -> None:
    _check(
        _imported(lambda m, i: within(i.name, PICKLERS))
        + _called(
            lambda m, call, name: (
                name in ("torch.load", "torch.save", "pandas.read_pickle")
                or (name == "numpy.load" and keyword(call, "allow_pickle") is True)
            )
        ),
        "files hold data, never code; use safetensors, JSON or msgpack:",
    )


def test_no_eval_or_exec() -> None:
    _check(
        _called(lambda m, call, name: name in ("eval", "exec", "builtins.eval", "builtins.exec")),
        "text is never run as code:",
    )


def test_yaml_is_loaded_safely() -> None:
    unsafe = ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load")
    _check(_called(lambda m, call, name: name in unsafe), "use yaml.safe_load:")


def test_no_nan_to_num() -> None:
    _check(
        _called(lambda m, call, name: name.endswith("nan_to_num") or name.endswith("nan_to_num_")),
        "a number that is not finite is an error to report, not to paint over:",
    )


def test_weights_load_strictly() -> None:
    def lax(module: Module, call: ast.Call, name: str) -> bool:
        method = name.rpartition(".")[2]
        second = call.args[1] if method == "load_state_dict" and len(call.args) > 1 else None
        return method in ("load_state_dict", "from_pretrained", "load_model") and (
            keyword(call, "strict") is False or (isinstance(second, ast.Constant) and second.value is False)
        )

    _check(_called(lax), "weights that do not fit must not load (strict=False):")


def test_no_catch_all() -> None:
    def catches_all(handler: ast.ExceptHandler) -> bool:
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        names = {dotted(c) if c is not None else "everything" for c in caught}
        last = handler.body[-1]
        # Cleaning up on the way out, Ctrl-C included, is what BaseException with a bare raise is for.
        tidies = names == {"BaseException"} and isinstance(last, ast.Raise) and last.exc is None
        return bool(names & {"everything", "Exception", "BaseException"}) and not tidies

    _check(
        (
            m.at(node.lineno)
            for m in modules().values()
            if m.name != "robopolicy.cli"
            for node in ast.walk(m.tree)
            if isinstance(node, ast.ExceptHandler) and catches_all(node)
        ),
        "catch what you can handle; only robopolicy/cli/__init__.py catches everything:",
    )


# --- clocks, randomness, size


def test_no_wall_clock() -> None:
    _check(
        _called(lambda m, call, name: name in WALL_CLOCK),
        "the wall clock jumps; use time.monotonic, or take a clock as an argument:",
    )


def test_no_global_numpy_randomness() -> None:
    def draws(module: Module, call: ast.Call, name: str) -> bool:
        head, _, function = name.rpartition(".")
        # robosuite itself draws from numpy's global stream, so it has to be seeded there.
        allowed = module.name == "sim.robosuite_env" and function in ("seed", "get_state", "set_state")
        return head == "numpy.random" and function not in LOCAL_RANDOM and not allowed

    _check(
        _called(draws) + _imported(lambda m, i: within(i.name, ["random"])),
        "randomness comes from robopolicy.seeding, passed as an argument:",
    )


def test_torch_is_seeded_in_one_place() -> None:
    def inside(module: Module) -> set[int]:
        if module.name != "robopolicy.train":
            return set()
        return {
            node.lineno
            for function in ast.walk(module.tree)
            if isinstance(function, ast.FunctionDef) and function.name == "seeded_init"
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
        }

    _check(
        _called(
            lambda m, call, name: (
                name
                in (
                    "torch.manual_seed",
                    "torch.seed",
                    "torch.random.manual_seed",
                    "torch.cuda.manual_seed_all",
                )
                and call.lineno not in inside(m)
            )
        ),
        "only robopolicy.train.seeded_init touches torch's global generator:",
    )


def test_files_stay_short() -> None:
    lines = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for folder in (*ROOMS, "benchmarks", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    _check(
        (f"{path.relative_to(ROOT)}: {n} lines" for path, n in lines.items() if n > MAX_LINES),
        f"a file has at most {MAX_LINES} lines:",
    )


def test_every_package_is_installed() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        listed = set(tomllib.load(file)["tool"]["setuptools"]["packages"])
    there = {m.name for m in modules().values() if m.path.name == "__init__.py"}
    _check(sorted(listed ^ there), "pyproject.toml lists exactly the packages there are; these differ:")
