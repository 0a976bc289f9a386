"""The house: which room may import which, that nothing goes in circles, and that files stay small."""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mismatchscope"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# From the roof to the ground: a room imports itself and rooms of lower floors, never its own floor's others.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("commands", "integrations"),
    ("__init__",),
    ("api",),
    ("probes", "doctor", "analysis"),
    ("collection", "comparison"),
    ("config",),
    ("environments",),
    ("engines", "alignment", "gate"),
    ("traces", "reports", "logs", "diagnosis"),
    ("demo", "prompts", "defaults", "machine", "processes", "ray_connection"),
    ("measures", "records", "progress", "parquet_files"),
    ("composition", "transforms", "input_files", "parquet_pages", "durable", "temporary"),
    ("locking", "file_errors"),
    ("errors",),
    ("foreign_text", "ownership", "credentials", "supervisor"),
)

# Rooms that see less than their floor allows: modules, or whole rooms.
ONLY = {
    "measures": ("ownership", "temporary", "errors", "foreign_text"),
    "reports": ("measures", "input_files", "errors", "foreign_text"),
    "gate": ("reports", "measures", "errors"),
    "diagnosis": ("measures", "errors", "foreign_text"),
}

# What an engine's interpreter has. When it is imported, a file may also need its own engine; one that talks to a
# server runs in our interpreter and may need a client.
ENGINE_PACKAGES = {"numpy", "safetensors", "torch"}
SERVER_PACKAGES = {"httpx"}

MAX_LINES = 300
MEDIAN_LINES = 130


def module_name(path: Path) -> str:
    """The dotted name below the package: `engines.vllm.engine`, and `engines` for its `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    return module.partition(".")[0]


@cache
def imports(module: str) -> frozenset[str]:
    """The package's modules that a module imports, at its top or inside a function; not those for annotations."""
    return frozenset(_resolved(module, ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def _resolved(module: str, tree: ast.Module) -> Iterator[str]:
    for node in _run_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _ours(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                yield from _ours(f"{base}.{alias.name}") or _ours(base)


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, without the body of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for statement in child.orelse:
                yield statement
                yield from _run_nodes(statement)
            continue
        yield child
        yield from _run_nodes(child)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """`from ..errors import X` in `engines.spec` comes from `mismatchscope.errors`."""
    if not node.level:
        return node.module or ""
    package = ["mismatchscope", *(() if module == "__init__" else module.split("."))]
    if MODULES[module].name != "__init__.py":
        package.pop()
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _ours(name: str) -> list[str]:
    """The module of ours that a dotted name is or is in; the package itself, which has the version, is no edge."""
    head, _, rest = name.partition(".")
    return [rest] if head == "mismatchscope" and rest in MODULES else []


def edges() -> list[tuple[str, str]]:
    return [(module, imported) for module in MODULES for imported in sorted(imports(module))]


def test_every_room_has_a_floor() -> None:
    placed = [name for floor in FLOORS for name in floor]
    assert sorted(placed) == sorted(set(placed)), "a room on two floors"
    assert {room(module) for module in MODULES} <= set(placed)


def test_imports_point_down() -> None:
    floor_of = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    upward = [
        f"{module} imports {imported}"
        for module, imported in edges()
        if room(module) != room(imported) and floor_of[room(imported)] <= floor_of[room(module)]
    ]
    assert not upward


@pytest.mark.parametrize("name", ONLY)
def test_a_room_sees_only_what_it_needs(name: str) -> None:
    allowed = (name, *ONLY[name])
    beyond = [
        f"{module} imports {imported}"
        for module, imported in edges()
        if room(module) == name and not any(imported == a or imported.startswith(f"{a}.") for a in allowed)
    ]
    assert not beyond


def test_an_engine_imports_where_only_the_engine_is_installed() -> None:
    beyond = []
    for module, path in MODULES.items():
        if room(module) not in ("engines", "records", "machine", "errors", "foreign_text", "credentials"):
            continue
        own = set(module.split(".")[1:2]) | (SERVER_PACKAGES if module.startswith("engines.server.") else set())
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"mismatchscope"}
            beyond += [f"{module} imports {package}" for package in packages - ENGINE_PACKAGES - own]
    assert not beyond


def test_no_import_goes_in_a_circle() -> None:
    """Strongly connected components (Tarjan 1972, "Depth-first search and linear graph algorithms")."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in sorted(imports(module)):
            if imported not in index:
                visit(imported)
            if imported in stack:
                low[module] = min(low[module], low[imported])
        if low[module] == index[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1 or module in imports(module):
                circles.append(sorted(component))

    for module in MODULES:
        if module not in index:
            visit(module)
    assert not circles


def test_the_page_shows_every_room() -> None:
    tree = PAGE.partition("## Rooms")[2].partition("\n\nTests")[0]
    shown = {entry.rstrip("/") for entry in re.findall(r"^ {4,8}([\w/.]+)  +\S", tree, re.MULTILINE)}
    rooms = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__main__.py"} <= shown


def test_the_page_names_functions_that_exist() -> None:
    steps = re.findall(r"^\|[^|]+\| `([\w/]+\.py)` \| (.+) \|$", PAGE, re.MULTILINE)
    assert len(steps) > 8
    for file, names in steps:
        tree = ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8")))
        defined = {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert set(re.findall(r"`(\w+)`", names)) <= defined, file
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE):
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_long() -> None:
    sources = [
        path
        for folder in ("mismatchscope", "tests", "benchmarks", "scripts")
        for suffix in ("*.py", "*.c")
        for path in (ROOT / folder).rglob(suffix)
    ]
    assert {path.relative_to(ROOT).as_posix(): lines(path) for path in sources if lines(path) > MAX_LINES} == {}


def test_the_median_file_is_short() -> None:
    sizes = [lines(path) for path in MODULES.values() if path.name != "__init__.py"]
    assert statistics.median(sizes) < MEDIAN_LINES


def test_the_imports_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instrument itself: a module with every kind of import, and what must be seen of it."""
    source = """
from __future__ import annotations
import mismatchscope.records
from typing import TYPE_CHECKING
from mismatchscope import __version__, errors
from ..traces import store
from .base import Engine
if TYPE_CHECKING:
    from ..config import Settings
def late():
    from ..reports.document import Report
    import numpy
"""
    path = PACKAGE / "engines" / "probe.py"
    monkeypatch.setitem(MODULES, "engines.probe", path)
    found = set(_resolved("engines.probe", ast.parse(source)))
    assert found == {"records", "errors", "traces.store", "engines.base", "reports.document"}
