"""Names that documents may use: options of the commands, slash commands, web addresses, make
targets, tests, code.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from unittest import mock

from discord import app_commands
from discord.ext import commands

from tests.docs.reading import ROOT

PACKAGES = ("bot", "personas", "sandbox", "trainer", "benchmarks", "tools", "tests")
MAINS = {"bot": "bot.cli.run", "personas": "personas.card.card_cli", "trainer": "trainer.cli.main"}
"""The module of each package's command line, which its `__main__` imports late."""
ANY = re.compile(r"[A-Z…<\[{(|].*|.*…")
"""A placeholder: FILE, DIR, …, [--json]."""


class _Captured(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@cache
def parser_of(module: str) -> argparse.ArgumentParser | None:
    """Returns the parser of a program's arguments, or None if it takes none."""

    def capture(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Captured(self)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", capture),
        mock.patch.object(sys, "argv", [module]),
    ):
        try:
            importlib.import_module(module).main()
        except _Captured as found:
            return found.parser
    return None


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """Returns the module with the program's `main`, and the program's arguments."""
    if words[0].endswith("model_inference"):
        return "bot.cli.ask", words[1:]
    name = words[2]
    if name in MAINS:
        return MAINS[name], words[3:]
    is_package = bool(
        (found := importlib.util.find_spec(name)) and found.submodule_search_locations
    )
    return name + ".__main__" * is_package, words[3:]


def wrong_words(line: str) -> str:
    """Returns what is wrong with one of our command lines, or "". Values and files are not
    checked.
    """
    typed = takewhile(lambda word: word not in (">", "<", ";"), shlex.split(line))
    words = [word for word in typed if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if words[0] == "make":
        return next(
            (
                f"no target {word}"
                for word in words[1:]
                if word not in targets() and not ANY.match(word)
            ),
            "",
        )
    if len(words) == 1:
        return ""
    if words[1].startswith("examples/"):
        return "" if (ROOT / words[1]).exists() else f"no file {words[1]}"
    if words[1:] == ["-m"]:
        return ""
    module, rest = module_of(words)
    if module.split(".")[0] not in PACKAGES:
        return ""
    if importlib.util.find_spec(module) is None:
        return f"no program {module}"
    if not any(not ANY.match(word) for word in rest):
        return ""
    parser = parser_of(module)
    return _wrong(parser, rest) if parser else f"{module} takes no words"


def _wrong(parser: argparse.ArgumentParser, words: list[str]) -> str:
    left = list(words)
    extra = []
    while left:
        word = left.pop(0).strip("[]")
        options = parser._option_string_actions
        choices = _subcommands(parser)
        name = word.split("=")[0]
        if word.startswith("-") and word != "-":
            if name not in options:
                return f"{parser.prog} has no option {name}"
            if "=" not in word:
                left = left[_taken(options[name].nargs, left) :]
        elif choices and not ANY.match(word):
            if unknown := [one for one in word.split("|") if one not in choices]:
                return f"{parser.prog} has no command {unknown[0]}"
            parser = choices[word.split("|")[0]]
            extra = []
        elif not choices and "…" not in word:
            extra.append(word)
    takes = sum({None: 1, "?": 1, "*": 99, "+": 99}.get(it.nargs, 99) for it in _positional(parser))
    return f"{parser.prog} takes no {extra[takes]}" if len(extra) > takes else ""


def _taken(nargs: object, words: list[str]) -> int:
    """Counts the values that an option takes from the words after it."""
    values = len(list(takewhile(lambda word: not word.startswith("-"), words)))
    return min(values, {None: 1, "?": 1, "*": values, "+": values}.get(nargs, nargs))  # type: ignore[call-overload]


def _positional(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Returns the positional arguments of a parser."""
    return [
        it
        for it in parser._actions
        if not it.option_strings and not isinstance(it, argparse._SubParsersAction)
    ]


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


@cache
def targets() -> frozenset[str]:
    """Returns the targets of the Makefile."""
    return frozenset(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )


@cache
def slash_commands() -> dict[str, frozenset[str]]:
    """Maps each slash command of the bot, without the slash, to its options."""
    found: dict[str, frozenset[str]] = {}
    for path in sorted((ROOT / "bot").rglob("discord*.py")):
        module = importlib.import_module(
            path.relative_to(ROOT).as_posix().removesuffix(".py").replace("/", ".")
        )
        groups = [
            it
            for it in vars(module).values()
            if isinstance(it, app_commands.Group) and it.parent is None
        ]
        for group in groups:
            found.update(
                (f"{group.name} {name}", options) for name, options in _with_options(group.commands)
            )
        for _, cog in inspect.getmembers(module, inspect.isclass):
            if issubclass(cog, commands.Cog) and cog.__module__ == module.__name__:
                group = f"{cog.__cog_group_name__} " if issubclass(cog, commands.GroupCog) else ""
                found.update(
                    (f"{group}{name}", options)
                    for name, options in _with_options(cog.__cog_app_commands__)
                )
    return found


def _with_options(commands_: object) -> Iterator[tuple[str, frozenset[str]]]:
    for command in commands_:  # type: ignore[attr-defined]  # discord.py leaves them untyped
        if isinstance(command, app_commands.Group):
            yield from (
                (f"{command.name} {name}", options)
                for name, options in _with_options(command.commands)
            )
        elif isinstance(command, app_commands.Command):
            yield command.name, frozenset(it.display_name for it in command.parameters)


def wrong_slash(text: str) -> str:
    """Returns what is wrong with `/command option:value …`, or ""."""
    words = text.removeprefix("/").split()
    known = slash_commands()
    for length in range(len(words), 0, -1):
        name = " ".join(words[:length])
        if name in known:
            wrong = [
                it for it in words[length:] if ":" in it and it.split(":")[0] not in known[name]
            ]
            return f"/{name} has no option {wrong[0]}" if wrong else ""
    return (
        ""
        if any(name.split()[0] == words[0] for name in known) and len(words) == 1
        else f"no command /{words[0]}"
    )


@cache
def addresses() -> frozenset[tuple[str, str]]:
    """Returns the method and path of every route of the web server."""
    from bot.web_server import ROUTES

    return frozenset((method, _plain(path)) for method, path, *_ in ROUTES)


def has_address(method: str, path: str) -> bool:
    """Tells whether a route matches; a placeholder for a part (JOB, {id}) matches any."""
    asked = _plain(path.split("?")[0])
    return any(method in (its, "") and _fits(asked, known) for its, known in addresses())


def _plain(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "*", path).rstrip("/") or "/"


def _fits(asked: str, known: str) -> bool:
    ours = asked.split("/")
    theirs = known.split("/")
    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all(
        "*" in (a, b) or a == b or (a.isupper() and b == "*") for a, b in pairs
    )


@cache
def names_in(path: str) -> frozenset[str]:
    """Returns the names of the tests in a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        it.name
        for it in ast.walk(tree)
        if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef)
        if "test" in it.name
    )


@contextmanager
def located(page: str, line: int) -> Iterator[None]:
    """Prefixes a failed assertion with the place in the document."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{page}:{line}: {error}") from None


@contextmanager
def collected(problems: list[str], page: str, line: int) -> Iterator[None]:
    """Adds a failed assertion to the problems, with its place in the document."""
    try:
        yield
    except AssertionError as error:
        problems.append(f"{page}:{line}: {error}")


# --------------------------------------------------------------------------------------------- code


@cache
def source_files() -> frozenset[str]:
    """Returns each Python file of the project, as a path from the root."""
    paths = [path for package in (*PACKAGES, "examples") for path in (ROOT / package).rglob("*.py")]
    return frozenset(path.relative_to(ROOT).as_posix() for path in paths)


@cache
def defined_in(path: str) -> frozenset[str]:
    """Returns the names of the classes, functions, methods, fields and constants that a file
    defines or imports.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return frozenset(found)


@cache
def defined_names() -> frozenset[str]:
    """Returns all names that the project defines."""
    return frozenset(name for path in source_files() for name in defined_in(path))


def has_module(name: str) -> bool:
    """Tells whether a dotted name is a module or package of the project, or a name defined in
    one.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length])
        rest = parts[length:]
        if file := next(
            (it for it in (f"{path}.py", f"{path}/__init__.py") if it in source_files()), ""
        ):
            return all(part in defined_in(file) for part in rest)
    return False
