"""A request to build a data set, and the arguments of `dataset build` that carry it out."""

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from bot.data.anonymisation_review import CORRECTIONS_FILE, REVIEW_FILE
from bot.data.errors import InvalidFieldsError
from bot.data.folders import DataFolders
from bot.data.sources import DataSource
from bot.personas.registry import guild_card_path
from personas.home.atomic_files import write_private_file
from personas.schemas.base import FrozenModel

ORDER_FILE = "order.json"
MAX_COUNT = 10_000_000
MIX_PATTERN = re.compile(r"\d+(\.\d+)?(:\d+(\.\d+)?)+")
LANGUAGE_PATTERN = re.compile(r"[a-z]{2,3}")
PositiveCount = Annotated[int, Field(ge=1, le=MAX_COUNT)]
WordCount = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class SourceSelection(FrozenModel):
    """A source by its id, and how many of its samples are taken at most."""

    source: Annotated[str, Field(min_length=1, max_length=160)]
    limit: PositiveCount | None = None


class DatasetBuildBody(FrozenModel):
    """A data set that is to be built. What is left out is as `python -m trainer dataset build` has
    it.

    `names` are further names and ids under which the persona speaks in the sources; without a
    persona the data set teaches dialogue. `mix` is general talk to the persona's (80:20), or one
    number for each source.
    """

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
            description="letters, digits, - and _",
        ),
    ]
    persona: (
        Annotated[
            str,
            Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="a persona's id"),
        ]
        | None
    ) = None
    names: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(max_length=20)
    ] = ()
    sources: Annotated[tuple[SourceSelection, ...], Field(min_length=1, max_length=50)]
    mix: Annotated[str, Field(max_length=120)] = ""
    two_stage: bool = False
    languages: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    min_reply_words: WordCount = 0
    max_reply_words: PositiveCount | None = None
    recipe: Annotated[
        str,
        Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="a recipe's name"),
    ] = "demo-cpu"
    max_length: Annotated[int, Field(ge=64, le=32768)] | None = None
    tree_paths: Annotated[str, Field(pattern="^(best|all)$", description="best or all")] = "best"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @field_validator("mix")
    @classmethod
    def _ratio(cls, mix: str) -> str:
        if mix and not MIX_PATTERN.fullmatch(mix):
            raise ValueError("numbers with : between them, such as 80:20")
        return mix

    @field_validator("languages")
    @classmethod
    def _codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [code for code in languages if not LANGUAGE_PATTERN.fullmatch(code)]:
            raise ValueError(f"{wrong[0]!r} is no code of a language, such as en")
        return languages

    @field_validator("names")
    @classmethod
    def _plain(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if any(not name.isprintable() or name.startswith("-") for name in names):
            raise ValueError("a name is printable, and does not begin with -")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({selection.source for selection in self.sources}) < len(self.sources):
            raise ValueError("sources names one twice")
        if self.mix and self.two_stage:
            raise ValueError("give mix or two_stage, not both")
        return self


@dataclass(frozen=True)
class BuildContext:
    """The home's sources, personas and models: a build request is checked against them."""

    home: Path
    sources: Mapping[str, DataSource]
    persona_ids: Collection[str]
    recipes: Collection[str]
    base_model: str


def require_buildable(body: DatasetBuildBody, context: BuildContext) -> None:
    """Raise `InvalidFieldsError` for sources that are missing or may not be trained on, and for
    unknown or taken names.
    """
    errors: list[tuple[str, str]] = []
    for selection in body.sources:
        if error := _source_error(selection.source, context.sources.get(selection.source)):
            errors.append(("sources", error))
    is_known = body.persona in context.persona_ids or bool(_card_path(body, context.home))
    if body.persona and not is_known:
        errors.append(("persona", f"There is no persona {body.persona!r}"))
    if body.recipe not in context.recipes:
        errors.append(("recipe", f"There is no recipe {body.recipe!r}"))
    if body.name in context.sources and not DataFolders(context.home).set(body.name).exists():
        errors.append(("name", f"{body.name} is the name of another data set"))
    if errors:
        sentences = [error if error.endswith(".") else f"{error}." for _, error in errors]
        advice = "Correct what `errors` names."
        raise InvalidFieldsError(" ".join(sentences), advice, tuple(errors))


def _source_error(id: str, source: DataSource | None) -> str:
    """Describe why a source cannot be built from; empty if it can."""
    if source is None:
        return f"{id} is not here: name logs, dialogue or uploads"
    if source.is_set:
        return f"{id} is a built data set: name logs, dialogue or uploads"
    if not source.is_file:
        return f"{id} is no file: name logs, dialogue or uploads"
    if source.refused:
        return f"{source.refused} {source.advice}"
    return ""


def build_arguments(
    body: DatasetBuildBody, context: BuildContext, *, with_review: bool = True
) -> list[str]:
    """The arguments of `python -m trainer`, with paths relative to the home."""
    words = ["dataset", "build"]
    if body.persona:
        words += ["--persona", _card_path(body, context.home) or body.persona]
        words += _lore_arguments(body, context.home)
    for name in body.names:
        words += ["--as", name]
    for selection in body.sources:
        limit = f":{selection.limit}" if selection.limit else ""
        words += ["--source", f"{selection.source}{limit}"]
    build = DataFolders(context.home).build(body.name).relative_to(context.home)
    corrections = build / CORRECTIONS_FILE
    has_corrections = (context.home / corrections).exists()
    options = {
        "--mix": body.mix,
        "--languages": ",".join(body.languages),
        "--min-reply-words": body.min_reply_words,
        "--max-reply-words": body.max_reply_words,
        "--recipe": body.recipe if body.recipe != "demo-cpu" else "",
        "--max-length": body.max_length,
        "--tree-paths": body.tree_paths if body.tree_paths != "best" else "",
        "--seed": body.seed,
        "--base-model": context.base_model,
        "--corrections": corrections if has_corrections else "",
        "--review": build / REVIEW_FILE if with_review else "",
    }
    for option, value in options.items():
        if value:
            words += [option, str(value)]
    if body.two_stage:
        words.append("--two-stage")
    return [*words, "--out", f"datasets/{body.name}"]


def build_command(words: list[str]) -> str:
    """The shell command of a build, to be run in UNDERSTUDY_HOME."""
    return f"python -m trainer {shlex.join(words)}"


def save_build_request(build: Path, body: DatasetBuildBody) -> None:
    """Store the request, so that the data set can be rebuilt."""
    build.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private_file(build / ORDER_FILE, body.model_dump_json(indent=1).encode())


def read_build_request(build: Path) -> DatasetBuildBody | None:
    """Read the stored request of a build; None if there is none."""
    try:
        return DatasetBuildBody.model_validate_json((build / ORDER_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _card_path(body: DatasetBuildBody, home: Path) -> str:
    """The path of a persona's own card, relative to the home; empty for one that ships."""
    card = guild_card_path(home, body.persona or "")
    return str(card.relative_to(home)) if card else ""


def _lore_arguments(body: DatasetBuildBody, home: Path) -> list[str]:
    """The lore of a server's persona; none for one that ships, whose lore the trainer finds."""
    persona_id = body.persona or ""
    card = guild_card_path(home, persona_id)
    if card is None:
        return []
    folder = home / "lore" / card.parent.parent.name
    if not (folder / persona_id).is_dir():
        return []
    return ["--lore", str(folder.relative_to(home))]
