"""Every way in by which a persona, a set of lore, an upload or a data set is created, replaced or
removed. They are found in the code, so that a new one is held to the same rules.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EDGES = sorted([*ROOT.glob("bot/*/discord*.py"), *ROOT.glob("bot/*/web/*.py")])
TEMPLATES = "".join(path.read_text() for path in ROOT.glob("bot/*/web/templates/**/*.html"))
REMOVALS = {
    ("removal", "remove"),
    ("lore_files", "remove_set"),
    ("data", "delete_upload"),
    ("data", "delete_dataset"),
}
"""Calls that remove: the service's name, and its function."""
STORAGE = {
    "bring_in": {"bot/personas/card_import.py", "bot/personas/creation.py"},
    "throw_away": {"bot/personas/registry.py", "bot/data/trash.py", "bot/data/actions.py",
                   "personas/home/lore_sets.py", "personas/home/trash.py",
                   "bot/personas/guild_lore.py", "bot/personas/discord_lore.py"},
    "readable_id": {"personas/card/toml_card.py", "personas/card/card_draft.py",
                    "trainer/sources/formats/character_card.py", "bot/personas/registry.py",
                    "personas/ids.py", "trainer/cli/create_job.py"},
}  # fmt: skip
"""Functions below the ways in, and the only modules that may call them."""


@dataclass(frozen=True)
class Door:
    """A function at an edge that removes or replaces, with the routes that lead to it."""

    module: str
    scope: str
    routes: tuple[str, ...]
    bases: tuple[str, ...]
    source: str


def _called(node: ast.AST) -> tuple[str, str]:
    """The name before the last dot of a call, and the one behind it."""
    if not isinstance(node, ast.Call):
        return "", ""
    if isinstance(node.func, ast.Name):
        return "", node.func.id
    if isinstance(node.func, ast.Attribute):
        owner = node.func.value
        name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        return name, node.func.attr
    return "", ""


def _changes(function: ast.AST) -> bool:
    for node in ast.walk(function):
        call = _called(node)
        if call in REMOVALS or (
            isinstance(node, ast.Call)
            and any(keyword.arg == "replacing" for keyword in node.keywords)
            and call[1] in ("import_card", "_import", "_import_card")
        ):
            return True
    return False


def _routes(function: ast.AsyncFunctionDef | ast.FunctionDef, names: dict[str, str]) -> list[str]:
    """The methods and paths of a function's decorators, with the module's constants filled in."""
    found = []
    for decorator in function.decorator_list:
        if not isinstance(decorator, ast.Call) or not decorator.args:
            continue
        text = ast.unparse(decorator.args[0]).removeprefix("f").strip("'\"")
        text = re.sub(r"(?<!\{)\{(\w+)\}(?!\})", lambda name: names.get(name[1], name[0]), text)
        found.append(text.replace("{{", "{").replace("}}", "}"))
    return found


def find_doors() -> list[Door]:
    doors = []
    for path in EDGES:
        tree = ast.parse(path.read_text())
        names = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = ast.unparse(node.value).removeprefix("f").strip("'\"")
                names[node.targets[0].id] = value.replace("{DASHBOARD}", "/dashboard")
        scopes = [(node, node) for node in tree.body]
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                scopes += [(node, inner) for inner in node.body]
        for scope, function in scopes:
            if not isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef):
                continue
            routes = tuple(_routes(function, names))
            is_helper = scope is function and not routes
            if is_helper or not _changes(function):
                continue  # a helper counts where it is called
            bases = tuple(map(ast.unparse, getattr(scope, "bases", ())))
            doors.append(
                Door(path.name, scope.name, routes, bases, ast.unparse(scope))  # type: ignore[attr-defined]
            )
    return doors


DOORS = find_doors()


def test_the_doors_are_found():
    scopes = {door.scope for door in DOORS}
    assert {
        "RemovePersonaButton", "ReplaceCardButton", "remove_persona_page", "replace_card_file",
        "post_remove_set", "delete_upload_page", "delete_dataset_page",
    } <= scopes  # fmt: skip


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.scope)
def test_nothing_is_removed_or_replaced_without_a_question(door):
    """On Discord by a red button of its own, in the browser by a page, a confirmation or a ticked
    box; a program says it by its method.
    """
    if any("Button" in base for base in door.bases):
        assert "ButtonStyle.danger" in door.source
        return
    assert door.routes, f"{door.scope} of {door.module} removes or replaces as a command or form"
    for route in door.routes:
        method, _, path = route.partition(" ")
        if not path.startswith(("/dashboard", "{")):  # a constant of another module
            assert method == "DELETE"
            continue
        last = path.rpartition("/")[2]
        asks_on_a_page = f'"GET {path}"' in _module(door) or path.endswith("/remove")
        form = re.search(rf'<form[^>]*/{last}"[^>]*>', TEMPLATES)
        is_confirmed = form is not None and "data-confirm" in form[0]
        is_ticked = "form.fields.get('replace')" in door.source
        assert asks_on_a_page or is_confirmed or is_ticked, route


def _module(door: Door) -> str:
    return next(path.read_text() for path in EDGES if path.name == door.module)


@pytest.mark.parametrize("function", STORAGE)
def test_only_these_modules_call_what_stores(function):
    call = re.compile(rf"(?<!def )\b{function}\(")
    calling = {
        path.relative_to(ROOT).as_posix()
        for package in ("bot", "personas", "trainer")
        for path in (ROOT / package).rglob("*.py")
        if call.search(path.read_text())
    }
    assert calling <= STORAGE[function]


def test_nothing_drops_letters_to_make_an_id():
    """Transliteration is in `personas/ids.py` alone."""
    for package in ("bot", "personas", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            if path != ROOT / "personas" / "ids.py":
                assert "import anyascii" not in text, path
                assert not re.search(r"encode\(\s*[\"']ascii[\"'],\s*[\"']ignore", text), path
