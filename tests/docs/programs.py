"""What there is to be named in a document: options of our programs, slash commands, web addresses, targets, tests."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import pkgutil
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

OURS = ("bot", "personas", "trainer", "tests")
ANY = re.compile(r"[A-Z…<\[{(|].*|.*…")
"""A word that stands for another: FILE, DIR, …, [--json]."""


class _Captured(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@cache
def parser_of(module: str) -> argparse.ArgumentParser | None:
    """The parser with which a program reads its words; None where it takes none."""

    def capture(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Captured(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", capture), mock.patch.object(sys, "argv", [module]):
        try:
            importlib.import_module(module).main()
        except _Captured as found:
            return found.parser
    return None


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """The module with the program's `main`, and the words behind the program's name."""
    if words[0].endswith("model_inference"):
        return "bot.cli.ask", words[1:]
    name = words[2]
    is_package = bool((found := importlib.util.find_spec(name)) and found.submodule_search_locations)
    if is_package:
        name += ".cli" if importlib.util.find_spec(f"{name}.cli") else ".__main__"
    return name, words[3:]


def wrong_words(line: str) -> str:
    """Why a command line of ours cannot be typed so; "" where it can. Values and files are not looked at."""
    typed = takewhile(lambda word: word not in (">", "<", ";"), shlex.split(line))
    words = [word for word in typed if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if words[0] == "make":
        return next((f"no target {word}" for word in words[1:] if word not in targets() and not ANY.match(word)), "")
    if len(words) == 1:
        return ""
    if words[1].startswith("examples/"):
        return "" if (ROOT / words[1]).exists() else f"no file {words[1]}"
    if words[1:] == ["-m"]:
        return ""
    module, rest = module_of(words)
    if module.split(".")[0] not in OURS:
        return ""
    if importlib.util.find_spec(module) is None:
        return f"no program {module}"
    if not any(not ANY.match(word) for word in rest):
        return ""
    parser = parser_of(module)
    return _wrong(parser, rest) if parser else f"{module} takes no words"


def _wrong(parser: argparse.ArgumentParser, words: list[str]) -> str:
    left, extra = list(words), []
    while left:
        word = left.pop(0).strip("[]")
        options, choices = parser._option_string_actions, _subcommands(parser)
        name = word.split("=")[0]
        if word.startswith("-") and word != "-":
            if name not in options:
                return f"{parser.prog} has no option {name}"
            if "=" not in word:
                left = left[_taken(options[name].nargs, left) :]
        elif choices and not ANY.match(word):
            if unknown := [one for one in word.split("|") if one not in choices]:
                return f"{parser.prog} has no command {unknown[0]}"
            parser, extra = choices[word.split("|")[0]], []
        elif not choices and "…" not in word:
            extra.append(word)
    takes = sum({None: 1, "?": 1, "*": 99, "+": 99}.get(it.nargs, 99) for it in _places(parser))
    return f"{parser.prog} takes no {extra[takes]}" if len(extra) > takes else ""


def _taken(nargs: object, words: list[str]) -> int:
    """How many of the words behind an option are its values."""
    values = len(list(takewhile(lambda word: not word.startswith("-"), words)))
    return min(values, {None: 1, "?": 1, "*": values, "+": values}.get(nargs, nargs))  # type: ignore[call-overload]


def _places(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a parser takes by its place, not by a name."""
    return [it for it in parser._actions if not it.option_strings and not isinstance(it, argparse._SubParsersAction)]


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


@cache
def targets() -> frozenset[str]:
    """What `make` can make."""
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@cache
def slash_commands() -> dict[str, frozenset[str]]:
    """Every slash command of the bot, without the slash, with its options."""
    import bot.cogs

    found: dict[str, frozenset[str]] = {}
    for info in pkgutil.iter_modules(bot.cogs.__path__):
        module = importlib.import_module(f"bot.cogs.{info.name}")
        for _, cog in inspect.getmembers(module, inspect.isclass):
            if issubclass(cog, commands.Cog) and cog.__module__ == module.__name__:
                group = f"{cog.__cog_group_name__} " if issubclass(cog, commands.GroupCog) else ""
                found.update((f"{group}{name}", options) for name, options in _told(cog.__cog_app_commands__))
    return found


def _told(those: object) -> Iterator[tuple[str, frozenset[str]]]:
    for command in those:  # type: ignore[attr-defined]  # as discord.py keeps them
        if isinstance(command, app_commands.Group):
            yield from ((f"{command.name} {name}", options) for name, options in _told(command.commands))
        elif isinstance(command, app_commands.Command):
            yield command.name, frozenset(it.display_name for it in command.parameters)


def wrong_slash(said: str) -> str:
    """Why `/command option:value …` is none of ours; "" where it is."""
    words = said.removeprefix("/").split()
    known = slash_commands()
    for length in range(len(words), 0, -1):
        name = " ".join(words[:length])
        if name in known:
            wrong = [it for it in words[length:] if ":" in it and it.split(":")[0] not in known[name]]
            return f"/{name} has no option {wrong[0]}" if wrong else ""
    return "" if any(name.split()[0] == words[0] for name in known) and len(words) == 1 else f"no command /{words[0]}"


@cache
def addresses() -> frozenset[tuple[str, str]]:
    """Method and path of all that the web server answers."""
    from bot.web.route_table import ROUTES

    return frozenset((method, _plain(path)) for method, path, *_ in ROUTES)


def has_address(method: str, path: str) -> bool:
    """Whether something answers there; what stands in for a part (JOB, {id}) matches any."""
    asked = _plain(path.split("?")[0])
    return any(method in (its, "") and _fits(asked, known) for its, known in addresses())


def _plain(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "*", path).rstrip("/") or "/"


def _fits(asked: str, known: str) -> bool:
    ours, theirs = asked.split("/"), known.split("/")
    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all("*" in (a, b) or a == b or (a.isupper() and b == "*") for a, b in pairs)


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests in a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        it.name for it in ast.walk(tree) if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef) if "test" in it.name
    )


@contextmanager
def said_where(page: str, line: int) -> Iterator[None]:
    """Puts the place in the document before what fails."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{page}:{line}: {error}") from None
