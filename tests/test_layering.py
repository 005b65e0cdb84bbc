"""Checks the imports between the packages: bot → personas ← trainer, the sandbox alone, start-up without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bot", "personas", "trainer")


def imports_of(path: Path) -> set[str]:
    """Returns every module of the project that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module)
    return {name for name in names if name.split(".")[0] in (*PACKAGES, "benchmarks", "tools", "tests")}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("personas", ("personas",)), ("trainer", ("trainer", "personas")), ("bot", ("bot", "personas"))],
)
def test_packages_import_only_downwards(package, allowed):
    for path in files(package):
        wrong = {name for name in imports_of(path) if name.split(".")[0] not in allowed}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_sandbox_imports_nothing_of_the_project():
    for path in files("bot/sandbox"):
        wrong = {name for name in imports_of(path) if not name.startswith("bot.sandbox")}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_only_the_composition_root_and_the_demo_guild_know_the_sandbox():
    knowing = {
        path.relative_to(ROOT).as_posix()
        for path in files("bot")
        if "sandbox" not in path.parts and any(name.startswith("bot.sandbox") for name in imports_of(path))
    }
    assert knowing == {"bot/app.py", "bot/demo_guild.py"}


@pytest.mark.parametrize(
    "module", ["bot.cli.run", "bot.demo", "bot.cli.ask", "trainer.cli.main", "personas.card.card_cli"]
)
def test_importing_loads_no_model_library(module):
    """Help texts and errors in settings are printed at once; models are loaded where they are needed.

    Nothing for several machines is imported unless a setting names it.
    """
    unwanted = ("torch", "transformers", "personas.engine.vllm")
    code = f"import sys, {module}; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_pages_import_no_routes_and_the_api_no_pages():
    pages, api = files("bot/web/pages"), files("bot/web/api")
    wrong = [(path.name, name) for path in pages for name in imports_of(path) if name.endswith("_routes")]
    wrong += [(path.name, name) for path in api for name in imports_of(path) if name.startswith("bot.web.pages")]
    assert pages and api and not wrong
