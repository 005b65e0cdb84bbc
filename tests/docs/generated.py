"""The pages that are made of what the code reads: docs/settings.md, docs/recipes.md and docs/commands.md."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator

from bot.settings import SETTINGS, Setting, Settings
from personas.schemas.hyperparameters import describe_allowed_values
from tests.docs.commands import commands
from tests.docs.reading import ROOT
from trainer.recipe.recipe_sheet import recipe_comments
from trainer.recipe.resolve import RECIPES_FOLDER, recipe_names

NOTE = "<!-- Written by `python -m tests.docs`, from {what}. -->\n"
SAID_OTHERWISE = {"home": "`~/.understudy`", "trainer_threads": "all cores", "message_content_intent": "see above"}
"""Defaults that depend on the machine or on another setting."""
FIRST = "demo-cpu"
"""The recipe that says what each value does."""


def page(name: str) -> str:
    """The text of one of them."""
    return "\n".join(MADE[name]())


# ------------------------------------------------------------------------------------------------------- settings


def _settings() -> Iterator[str]:
    yield "# Settings\n"
    yield NOTE.format(what="`.env.example` and `bot/settings.py`")
    yield _wrapped(
        "They are read once, when the bot starts: from the environment, then from `.env` in the folder where it is "
        "started (`--env` names another file). The environment wins. Wrong values stop the start, all of them named at "
        "once; a name that nothing reads is warned about. `model_inference` reads the same."
    )
    known = {setting.name: setting for setting in SETTINGS}
    for about, names in _groups():
        yield from _group(about, [known[name] for name in names])


def _group(about: str, those: list[Setting]) -> Iterator[str]:
    yield "## " + ", ".join(f"`{setting.name}`" for setting in those) + "\n"
    yield f"{about}\n"
    yield "| | may be | left out |\n| --- | --- | --- |"
    for setting in those:
        yield f"| `{setting.name}` | {setting.allowed} | {_default(setting)} |"
    yield ""


def _default(setting: Setting) -> str:
    if setting.field in SAID_OTHERWISE:
        return SAID_OTHERWISE[setting.field]
    value = Settings.model_fields[setting.field].default
    return (f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`") if value not in ("", ()) else "none"


def _groups() -> Iterator[tuple[str, list[str]]]:
    """What `.env.example` says of each setting or few of them."""
    for block in (ROOT / ".env.example").read_text(encoding="utf-8").split("\n\n"):
        lines = [line.removeprefix("#").strip() for line in block.splitlines() if line.startswith("#")]
        names = [found[1] for line in lines if (found := re.match(r"([A-Z_]+)=", line))]
        if names:
            about = "\n".join(line for line in lines if not re.match(r"[A-Z_]+=", line))
            yield re.sub(r"docs/(\w+\.md)", r"[\1](\1)", about), names


# -------------------------------------------------------------------------------------------------------- recipes


def _recipes() -> Iterator[str]:
    yield "# Recipes\n"
    yield NOTE.format(what="`trainer/recipe/recipes/*.toml`")
    yield _wrapped(
        "A recipe is every setting of a run under a name. `--recipe` names one, `--set name=value` changes a value of "
        "it ([training.md](training.md)); `/finetune start` has `recipe` and `settings`, a request over HTTP `recipe` "
        "and `hyperparameters`. What a recipe leaves out is as in [demo-cpu](#demo-cpu). What one takes on this "
        "machine is said by `python -m trainer recipes NAME`."
    )
    yield "| recipe | what for |\n| --- | --- |"
    names = sorted(recipe_names(), key=lambda name: (name != FIRST, name))
    for name in names:
        yield f"| [{name}](#{name}) | {about(name).split('. ')[0].rstrip('.')}. |"
    yield ""
    for name in names:
        yield from _recipe(name)


def _recipe(name: str) -> Iterator[str]:
    yield f"## {name}\n\n{_wrapped(about(name))}"
    comments = recipe_comments(name)
    yield "| | | what it does, and may be |" if name == FIRST else "| | | why |"
    yield "| --- | --- | --- |"
    for setting, value in tomllib.loads((RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8")).items():
        may_be = f" *({describe_allowed_values(setting)})*" if name == FIRST else ""
        yield f"| `{setting}` | `{_shown(value)}` | {_prose(comments[setting])}{may_be} |"
    yield ""


def about(name: str) -> str:
    """What the comment at the beginning of a recipe's file says."""
    head = (RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("\n\n")[0]
    text = " ".join(line.removeprefix("#").strip() for line in head.splitlines()).partition(": ")[2]
    return _prose(text[:1].upper() + text[1:])


def _prose(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _commands() -> Iterator[str]:
    return commands(NOTE.format(what="the parsers of all commands"))


MADE = {"docs/settings.md": _settings, "docs/recipes.md": _recipes, "docs/commands.md": _commands}
