"""Rules for names and imports in the three packages (CONTRIBUTING.md)."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("bot", "trainer", "personas")


@cache
def sources() -> dict[str, ast.Module]:
    """Maps each Python file of the packages, as a path relative to the root, to its syntax tree."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def module_name(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield path, node


@cache
def imports() -> dict[str, set[str]]:
    """Maps each module to the modules of the packages that it imports anywhere, for types alone too."""
    modules = {module_name(path) for path in sources()}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for path, node in nodes(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            found = {alias.name for alias in node.names}
        else:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found = (full & modules) | ({node.module or ""} if full - modules else set())
        graph[module_name(path)] |= found & modules - {module_name(path)}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def repeated(names: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name, place in names:
        found[name].append(place)
    return {name: places for name, places in found.items() if len(places) > 1}


def test_a_public_class_name_is_unique_in_the_project():
    assert not repeated((node.name, path) for path, node in nodes(ast.ClassDef) if not node.name.startswith("_"))


def test_no_module_imports_itself_through_others():
    assert not circle(imports())


def test_no_folder_imports_itself_through_its_siblings():
    """Takes each folder's children as one node each, whatever lies below them."""
    packages = {module_name(path) for path in sources() if path.endswith("/__init__.py")}
    for package in sorted(packages):
        below = re.compile(rf"{re.escape(package)}\.(\w+)")
        graph: dict[str, set[str]] = defaultdict(set)
        for module, imported in imports().items():
            if child := below.match(module):
                graph[child[1]] |= {other[1] for name in imported if (other := below.match(name))} - {child[1]}
        assert not circle(graph), package
