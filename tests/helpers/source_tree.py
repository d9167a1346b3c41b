"""The four rooms as syntax trees: which module imports and calls what, without running any of it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("robopolicy", "world_models", "sim", "ros_nodes")


class Import(NamedTuple):
    """`name` is the module imported, or an object of it; both readings are tried."""

    name: str
    line: int
    lazy: bool
    typing_only: bool


class Module(NamedTuple):
    name: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module, name: str, is_package: bool) -> Iterator[Import]:
    def visit(node: ast.AST, lazy: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = name.split(".")
                here = here[: len(here) - node.level + is_package]
                base = ".".join([*here, *([base] if base else [])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, lazy, typing_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, lazy, True)
            for child in node.orelse:
                yield from visit(child, lazy, typing_only)
        else:
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside, typing_only)

    yield from visit(tree, False, False)


@cache
def modules() -> dict[str, Module]:
    """Every Python file of the four rooms, by dotted name."""
    found = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = _module_name(path)
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            imports = tuple(_imports(tree, name, path.name == "__init__.py"))
            found[name] = Module(name, path, tree, imports)
    return found


def target(imported: str) -> str | None:
    """The module of ours that an import reaches, if any."""
    while imported:
        if imported in modules():
            return imported
        imported = imported.rpartition(".")[0]
    return None


def within(name: str, packages: Iterable[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in packages)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute chain; what is called or indexed in between reads as `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def _full_names(module: Module) -> dict[str, str]:
    """What the names that imports bind stand for: {"np": "numpy", "load": "torch.load"}."""
    bound = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            bound.update({a.asname: a.name for a in node.names if a.asname})
        elif isinstance(node, ast.ImportFrom) and not node.level:
            bound.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    return bound


def calls(module: Module) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the full name of what is called."""
    bound = _full_names(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            head, _, rest = dotted(node.func).partition(".")
            head = bound.get(head, head)
            yield node, f"{head}.{rest}" if rest else head


def keyword(call: ast.Call, name: str) -> object:
    value = next((k.value for k in call.keywords if k.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else None
