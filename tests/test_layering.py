"""Checks the imports: bot → personas ← trainer, the floors of the bot's features, no cycles,
start-up without torch.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bot", "personas", "sandbox", "trainer")


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Returns every import of a file, at its top or inside a function."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(path: Path) -> set[str]:
    """Returns every module of the project that a file imports."""
    names = set()
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module)
    return {
        name for name in names if name.split(".")[0] in (*PACKAGES, "benchmarks", "tools", "tests")
    }


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("personas", ("personas",)),
        ("trainer", ("trainer", "personas")),
        ("bot", ("bot", "personas", "sandbox")),
    ],
)
def test_packages_import_only_downwards(package, allowed):
    for path in files(package):
        wrong = {name for name in imports_of(path) if name.split(".")[0] not in allowed}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_sandbox_imports_nothing_of_the_project():
    for path in files("sandbox"):
        wrong = {name for name in imports_of(path) if name.split(".")[0] != "sandbox"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_only_the_composition_root_and_the_demo_know_the_sandbox():
    knowing = {
        path.relative_to(ROOT).as_posix()
        for path in files("bot")
        if any(name.split(".")[0] == "sandbox" for name in imports_of(path))
    }
    assert knowing == {"bot/app.py", "bot/demo.py", "bot/demo_guild.py"}


LOADED_BY_IMPORTS = """
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    print(module, *(name for name in {unwanted} if name in sys.modules))
"""


def test_importing_loads_no_model_library():
    """Help texts and errors in settings are printed at once; models are loaded where they are
    needed.

    Nothing for several machines is imported unless a setting names it.
    """
    modules = [
        "personas.card.card_cli",
        "trainer.cli.main",
        "bot.cli.ask",
        "bot.demo",
        "bot.cli.run",
    ]
    unwanted = ("torch", "transformers", "pandas", "personas.engine.remote")
    code = LOADED_BY_IMPORTS.format(modules=modules, unwanted=unwanted)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines() == modules


def test_settings_are_read_before_the_bot_is_imported():
    """A wrong setting is reported without the seconds that the bot takes to import."""
    code = "import sys, bot.cli.run; print({'bot.app', 'discord', 'numpy'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "set()"


def module_name(path: Path) -> str:
    return (
        path.relative_to(ROOT)
        .as_posix()
        .removesuffix(".py")
        .replace("/", ".")
        .removesuffix(".__init__")
    )


@cache
def import_graph() -> dict[str, set[str]]:
    """Maps each module to the modules of the project that it imports anywhere, for types alone
    too.
    """
    paths = {module_name(path): path for package in PACKAGES for path in files(package)}
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        imported = set()
        for node in import_statements(path):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            else:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= names & paths.keys()
                imported |= {node.module} if names - paths.keys() else set()
        graph[module] = imported & paths.keys() - {module}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_through_others():
    assert not circle(import_graph())


@pytest.mark.parametrize("package", ["personas", "sandbox", "trainer"])
def test_no_folder_imports_itself_through_its_siblings(package):
    """Takes each folder's children as one node each, whatever lies below them."""
    folders = [module_name(path) for path in files(package) if path.name == "__init__.py"]
    assert folders
    for folder in folders:
        graph: dict[str, set[str]] = defaultdict(set)
        for module, imported in import_graph().items():
            if module.startswith(f"{folder}."):
                child = module.removeprefix(f"{folder}.").split(".")[0]
                siblings = {name for name in imported if name.startswith(f"{folder}.")}
                graph[child] |= {
                    name.removeprefix(f"{folder}.").split(".")[0] for name in siblings
                } - {child}
        assert not circle(graph), folder


EDGE = "discord and web"


def room(module: str) -> str:
    """Name the room of a module of the bot: a feature's store, the feature, or the edge.

    The edge (`discord*.py`, `web/`, and their kits) is one room, because its parts show one
    another's views: the page of a persona shows its versions. Command lines and the files at the
    root stand above it.
    """
    parts = module.split(".")
    if "cli" in parts:
        return "command lines"
    if len(parts) == 2:
        return module
    if {"web", "web_kit", "discord_kit"} & set(parts) or parts[-1].startswith("discord"):
        return EDGE
    if "store" in parts:
        return ".".join(parts[: parts.index("store") + 1])
    return module if (ROOT.joinpath(*parts) / "__init__.py").exists() else ".".join(parts[:-1])


def room_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = defaultdict(set)
    for module, imported in import_graph().items():
        if module.startswith("bot."):
            graph[room(module)] |= {room(name) for name in imported if name.startswith("bot.")} - {
                room(module)
            }
    return graph


def test_a_feature_has_three_floors_without_a_circle():
    """A store knows no feature, a feature no button or page, and no two features each other."""
    graph = room_graph()
    assert {"bot.chat", "bot.chat.store", EDGE} <= graph.keys()
    assert not circle(graph)


def test_a_store_imports_only_stores_and_the_platform():
    for name, imported in room_graph().items():
        if name.endswith(".store"):
            wrong = {
                other
                for other in imported
                if not other.endswith(".store") and not other.startswith("bot.platform")
            }
            assert not wrong, f"{name} imports {wrong}"


def test_only_entry_points_import_the_composition_root():
    importers = {module for module, imported in import_graph().items() if "bot.app" in imported}
    assert importers == {"bot.cli.serve", "bot.demo"}
