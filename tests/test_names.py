"""Rules for names, file sizes, imports and docstrings in the three packages (CONTRIBUTING.md)."""

import ast
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_ROOT_FILES = {"bot": 12, "trainer": 8, "personas": 8}
MAX_FILES = 460
MAX_FILE_LINES = 500
SMALL_FILE_LINES, SMALL_FILE_IMPORTERS, MAX_SMALL_FILES = 60, 4, 15
MAX_FUNCTION_LINES, MAX_MEDIAN_FUNCTION_LINES = 50, 10
MAX_CLAUSE_SHARE = 0.03
REPEATABLE_NAMES = {"__init__", "__main__", "schemas", "pages"}
CLAUSE = re.compile(r"^(What|Whether|Who|Whom|Whose|Where|How|Which|When|Why|That|If|As)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def sources() -> dict[str, ast.Module]:
    """Maps each Python file of the packages, as a path relative to the root, to its syntax tree."""
    paths = [path for package in MAX_ROOT_FILES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def line_count(path: str) -> int:
    return (ROOT / path).read_text(encoding="utf-8").count("\n")


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


@pytest.mark.parametrize("package", MAX_ROOT_FILES)
def test_a_file_name_is_unique_within_its_package(package):
    paths = [Path(path) for path in sources() if path.startswith(f"{package}/")]
    assert not repeated((path.stem, str(path)) for path in paths if path.stem not in REPEATABLE_NAMES)


def test_a_public_class_name_is_unique_in_the_project():
    assert not repeated((node.name, path) for path, node in nodes(ast.ClassDef) if not node.name.startswith("_"))


def test_docstrings_begin_with_a_verb_or_a_noun():
    documented = [(path, ast.get_docstring(node)) for path, node in nodes(Function, ast.ClassDef, ast.Module)]
    docstrings = [(path, text.partition("\n")[0]) for path, text in documented if text]
    clauses = [(path, text) for path, text in docstrings if CLAUSE.match(text)]
    assert len(clauses) <= MAX_CLAUSE_SHARE * len(docstrings), clauses


def test_packages_hold_their_files_in_folders():
    for package, most in MAX_ROOT_FILES.items():
        at_root = [path for path in sources() if re.fullmatch(rf"{package}/\w+\.py", path)]
        assert len(at_root) <= most, at_root
    assert len(sources()) <= MAX_FILES


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


def test_files_hold_one_whole_topic():
    importers = defaultdict(set)
    for module, imported in imports().items():
        for name in imported:
            importers[name].add(module)
    small = [
        path
        for path in sources()
        if not path.endswith("__.py")
        and line_count(path) < SMALL_FILE_LINES
        and len(importers[module_name(path)]) < SMALL_FILE_IMPORTERS
    ]
    assert len(small) <= MAX_SMALL_FILES, small
    assert not [path for path in sources() if line_count(path) > MAX_FILE_LINES]


def test_functions_are_short():
    lengths = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, node in nodes(Function)
        if isinstance(node, Function)
    }
    assert not {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES}
    assert statistics.median(lengths.values()) <= MAX_MEDIAN_FUNCTION_LINES
