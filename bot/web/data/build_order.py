"""A data set that is asked for, in a form or over REST, and the words of `dataset build` that make it.

The words are said in UNDERSTUDY_HOME, so the same ones do the same in a terminal there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from bot.house import House
from bot.personas import own_card
from bot.web.bodies import parsed
from bot.web.data.places import Places
from bot.web.data.reviewing import CORRECTIONS, REVIEW
from bot.web.data.sources import Source, sources_of
from bot.web.problems import Problem
from personas.contract import Contract
from personas.durable import put_private

ORDER = "order.json"
LARGEST_COUNT = 10_000_000
MIX = re.compile(r"\d+(\.\d+)?(:\d+(\.\d+)?)+")
LANGUAGE = re.compile(r"[a-z]{2,3}")
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
Words = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]


class SourceOrder(Contract):
    """A source by its id (`GET /datasets`), and how many of its samples are taken at most."""

    source: Annotated[str, Field(min_length=1, max_length=160)]
    limit: Count | None = None


class BuildOrder(Contract):
    """A data set that is to be built. What is left out is as `python -m trainer dataset build` has it.

    `names` are further names and ids under which the persona speaks in the sources; without a persona the data set
    teaches dialogue. `mix` is general talk to the persona's (80:20), or one number for each source.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="letters, digits, - and _")]
    persona: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="a persona's id")] | None = None
    names: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(max_length=20)] = ()
    sources: Annotated[tuple[SourceOrder, ...], Field(min_length=1, max_length=50)]
    mix: Annotated[str, Field(max_length=120)] = ""
    two_stage: bool = False
    languages: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    min_reply_words: Words = 0
    max_reply_words: Count | None = None
    recipe: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="a recipe's name")] = "demo-cpu"
    max_length: Annotated[int, Field(ge=64, le=32768)] | None = None
    tree_paths: Annotated[str, Field(pattern="^(best|all)$", description="best or all")] = "best"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @field_validator("mix")
    @classmethod
    def _ratio(cls, mix: str) -> str:
        if mix and not MIX.fullmatch(mix):
            raise ValueError("numbers with : between them, such as 80:20")
        return mix

    @field_validator("languages")
    @classmethod
    def _codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [code for code in languages if not LANGUAGE.fullmatch(code)]:
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


def order_in(form: Mapping[str, str], chosen: list[str]) -> BuildOrder:
    """The order of a form; `chosen` are the ids of its sources. Raises `Problem` naming the wrong fields."""
    split = {name: [part.strip() for part in form.get(name, "").split(",") if part.strip()] for name in LISTS}
    body: dict[str, object] = {
        "name": form.get("name", "").strip(),
        "sources": [_chosen(form, source) for source in chosen],
        "mix": form.get("mix", "").strip(),
        "two_stage": form.get("two_stage") == "yes",
        **split,
    }
    for name in ("persona", "min_reply_words", "max_reply_words", "recipe", "max_length", "tree_paths", "seed"):
        if value := form.get(name, "").strip():
            body[name] = value
    return parsed(BuildOrder, body, is_form=True)


LISTS = ("names", "languages")


def _chosen(form: Mapping[str, str], source: str) -> dict[str, str]:
    limit = form.get(f"limit {source}", "").strip()
    return {"source": source} | ({"limit": limit} if limit else {})


def checked(order: BuildOrder, house: House) -> dict[str, Source]:
    """The sources of an order, by id. Raises `Problem` for what is not there, or may not be trained on."""
    known = {source.id: source for source in sources_of(house)}
    errors = []
    for of in order.sources:
        source = known.get(of.source)
        if source is None or source.is_set or not source.is_file:
            why = "is not here" if source is None else "is a built data set" if source.is_set else "is no file"
            errors.append(_error("sources", f"{of.source} {why}: name logs, dialogue or uploads"))
        elif source.refused:
            errors.append(_error("sources", f"{source.refused} {source.advice}"))
    if order.persona and order.persona not in house.conversations.personas.of(0) and not _card(order, house.home):
        errors.append(_error("persona", f"There is no persona {order.persona!r}"))
    if order.recipe not in house.catalogue.recipes():
        errors.append(_error("recipe", f"There is no recipe {order.recipe!r}"))
    if (order.name in known) and not Places(house.home).set(order.name).exists():
        errors.append(_error("name", f"{order.name} is the name of another data set"))
    if errors:
        said = " ".join(f"{error['detail'].rstrip('.')}." for error in errors)
        raise Problem("invalid-request", said, "Correct what `errors` names.", errors=errors)
    return known


def words_of(order: BuildOrder, house: House, *, with_review: bool = True) -> list[str]:
    """The words after `python -m trainer`, with paths from the home on."""
    words = ["dataset", "build"]
    if order.persona:
        words += ["--persona", _card(order, house.home) or order.persona, *_lore(order, house.home)]
    words += [word for name in order.names for word in ("--as", name)]
    for of in order.sources:
        words += ["--source", f"{of.source}:{of.limit}" if of.limit else of.source]
    build = Places(house.home).build(order.name).relative_to(house.home)
    given = {
        "--mix": order.mix,
        "--languages": ",".join(order.languages),
        "--min-reply-words": order.min_reply_words,
        "--max-reply-words": order.max_reply_words,
        "--recipe": order.recipe if order.recipe != "demo-cpu" else "",
        "--max-length": order.max_length,
        "--tree-paths": order.tree_paths if order.tree_paths != "best" else "",
        "--seed": order.seed,
        "--base-model": house.base_model if house.base_model != "embedded" else "",
        "--corrections": build / CORRECTIONS if (house.home / build / CORRECTIONS).exists() else "",
        "--review": build / REVIEW if with_review else "",
    }
    words += [word for option, value in given.items() if value for word in (option, str(value))]
    return [*words, *(["--two-stage"] if order.two_stage else []), "--out", f"datasets/{order.name}"]


def command_of(words: list[str]) -> str:
    """As a person types it, in UNDERSTUDY_HOME."""
    return f"python -m trainer {shlex.join(words)}"


def keep_order(build: Path, order: BuildOrder) -> None:
    """Note what was asked for, so that it can be built again."""
    build.mkdir(mode=0o700, parents=True, exist_ok=True)
    put_private(build / ORDER, order.model_dump_json(indent=1).encode())


def kept_order(build: Path) -> BuildOrder | None:
    """What was asked for when a data set was built here; None where nobody knows."""
    try:
        return BuildOrder.model_validate_json((build / ORDER).read_bytes())
    except (OSError, ValidationError):
        return None


def _card(order: BuildOrder, home: Path) -> str:
    """The card of a persona that does not ship as it is, from the home on; empty for one that does."""
    card = own_card(home, order.persona or "")
    return str(card.relative_to(home)) if card else ""


def _lore(order: BuildOrder, home: Path) -> list[str]:
    card = own_card(home, order.persona or "")
    folder = home / "lore" / card.parent.parent.name if card else home
    has_any = card and (folder / (order.persona or "")).is_dir()
    return ["--lore", str(folder.relative_to(home))] if has_any else []


def _error(field: str, detail: str) -> dict[str, str]:
    return {"field": field, "pointer": f"#/{field}", "detail": detail}
