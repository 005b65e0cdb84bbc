"""A request to build a data set, and the arguments of `dataset build` that carry it out."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from bot.data.web.anonymisation_review import CORRECTIONS_FILE, REVIEW_FILE
from bot.data.web.folders import DataFolders
from bot.data.web.sources import list_sources
from bot.personas.registry import guild_card_path
from bot.platform.web_kit.problems import Problem, field_error
from bot.platform.web_kit.request_body import parse_body
from bot.services import Services
from personas.home.atomic_files import write_private_file
from personas.schemas.base import FrozenModel

ORDER_FILE = "order.json"
MAX_COUNT = 10_000_000
MIX_PATTERN = re.compile(r"\d+(\.\d+)?(:\d+(\.\d+)?)+")
LANGUAGE_PATTERN = re.compile(r"[a-z]{2,3}")
PositiveCount = Annotated[int, Field(ge=1, le=MAX_COUNT)]
WordCount = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class SourceSelection(FrozenModel):
    """A source by its id (`GET /datasets`), and how many of its samples are taken at most."""

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
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="letters, digits, - and _"),
    ]
    persona: (
        Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="a persona's id")]
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
        str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="a recipe's name")
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
        if len({of.source for of in self.sources}) < len(self.sources):
            raise ValueError("sources names one twice")
        if self.mix and self.two_stage:
            raise ValueError("give mix or two_stage, not both")
        return self


def parse_build_form(form: Mapping[str, str], chosen: list[str]) -> DatasetBuildBody:
    """Parse the build form; `chosen` are the ids of its sources. Raises `Problem` naming the wrong
    fields.
    """
    texts = {name: form.get(name, "").strip() for name in DatasetBuildBody.model_fields}
    lists = {
        name: [part.strip() for part in texts[name].split(",") if part.strip()]
        for name in ("names", "languages")
    }
    body: dict[str, object] = {name: text for name, text in texts.items() if text}
    body |= {"name": texts["name"], "two_stage": texts["two_stage"] == "yes", **lists}
    body["sources"] = [
        {"source": id, "limit": form.get(f"limit {id}", "").strip() or None} for id in chosen
    ]
    return parse_body(DatasetBuildBody, body, is_form=True)


def require_buildable(body: DatasetBuildBody, services: Services) -> None:
    """Raise `Problem` for sources that are missing or may not be trained on, and for unknown or
    taken names.
    """
    sources = {source.id: source for source in list_sources(services)}
    errors = []
    for selection in body.sources:
        source = sources.get(selection.source)
        if source is None or source.is_set or not source.is_file:
            why = (
                "is not here"
                if source is None
                else "is a built data set"
                if source.is_set
                else "is no file"
            )
            errors.append(
                field_error("sources", f"{selection.source} {why}: name logs, dialogue or uploads")
            )
        elif source.refused:
            errors.append(field_error("sources", f"{source.refused} {source.advice}"))
    if (
        body.persona
        and body.persona not in services.personas.of(0)
        and not _card_path(body, services.home)
    ):
        errors.append(field_error("persona", f"There is no persona {body.persona!r}"))
    if body.recipe not in services.catalogue.recipes():
        errors.append(field_error("recipe", f"There is no recipe {body.recipe!r}"))
    if body.name in sources and not DataFolders(services.home).set(body.name).exists():
        errors.append(field_error("name", f"{body.name} is the name of another data set"))
    if errors:
        message = " ".join(f"{error['detail'].rstrip('.')}." for error in errors)
        raise Problem("invalid-request", message, "Correct what `errors` names.", errors=errors)


def build_arguments(
    body: DatasetBuildBody, services: Services, *, with_review: bool = True
) -> list[str]:
    """The arguments of `python -m trainer`, with paths relative to the home."""
    words = ["dataset", "build"]
    if body.persona:
        words += [
            "--persona",
            _card_path(body, services.home) or body.persona,
            *_lore_paths(body, services.home),
        ]
    words += [word for name in body.names for word in ("--as", name)]
    for selection in body.sources:
        words += [
            "--source",
            f"{selection.source}:{selection.limit}" if selection.limit else selection.source,
        ]
    build = DataFolders(services.home).build(body.name).relative_to(services.home)
    given = {
        "--mix": body.mix,
        "--languages": ",".join(body.languages),
        "--min-reply-words": body.min_reply_words,
        "--max-reply-words": body.max_reply_words,
        "--recipe": body.recipe if body.recipe != "demo-cpu" else "",
        "--max-length": body.max_length,
        "--tree-paths": body.tree_paths if body.tree_paths != "best" else "",
        "--seed": body.seed,
        "--base-model": services.base_model if services.base_model != "embedded" else "",
        "--corrections": build / CORRECTIONS_FILE
        if (services.home / build / CORRECTIONS_FILE).exists()
        else "",
        "--review": build / REVIEW_FILE if with_review else "",
    }
    words += [word for option, value in given.items() if value for word in (option, str(value))]
    return [*words, *(["--two-stage"] if body.two_stage else []), "--out", f"datasets/{body.name}"]


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


def _lore_paths(body: DatasetBuildBody, home: Path) -> list[str]:
    card = guild_card_path(home, body.persona or "")
    folder = home / "lore" / card.parent.parent.name if card else home
    has_any = card and (folder / (body.persona or "")).is_dir()
    return ["--lore", str(folder.relative_to(home))] if has_any else []
