"""Requests that say how an upload is read, and by which name moderators take a data set."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from bot.data.rights import MAX_STATEMENT_CHARS, parse_rights
from bot.training.dataset_catalog import CatalogueListing
from personas.home.column_maps import MAX_PAIR_CHARACTERS, MAX_PAIRS, pairs_error
from personas.home.dataset_catalogue import ENTRY_NAME_PATTERN
from personas.home.rights import RightsStatement
from personas.schemas.base import FrozenModel, Right


def _require_pairs(pairs: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := pairs_error(pairs):
        raise ValueError(wrong)
    return pairs


MapPair = Annotated[str, Field(min_length=3, max_length=MAX_PAIR_CHARACTERS)]
ColumnPairs = Annotated[
    tuple[MapPair, ...], Field(max_length=MAX_PAIRS), AfterValidator(_require_pairs)
]


class ColumnMapBody(FrozenModel):
    """Which column of a table is what, as pairs such as `speaker=Absender`.

    A chat takes `speaker`, `text` and, if there are times, `time` (or `date` and `time`); questions
    and answers take `user` and `assistant`; lists of messages take `messages`, `from` and `value`.
    """

    map: ColumnPairs


class OfferBody(FrozenModel):
    """A name by which moderators take a data set on Discord, and the right to it.

    `right` may be left out where one is stated already: of an upload, and of a data set that was
    built from sources. `format`, `map`, `persona_names` and `language` say how it is read, who the
    persona is in it, and its language. An upload's own `map` need not be repeated.
    """

    name: Annotated[
        str,
        Field(
            pattern=f"^{ENTRY_NAME_PATTERN.pattern}$",
            description="letters, digits, spaces, . - _; at most 64",
        ),
    ]
    right: Annotated[str, Field(max_length=80)] = ""
    stated_by: Annotated[str, Field(max_length=MAX_STATEMENT_CHARS)] = ""
    stated_on: Annotated[str, Field(max_length=40)] = ""
    why: Annotated[str, Field(max_length=MAX_STATEMENT_CHARS)] = ""
    language: Annotated[str, Field(max_length=60)] = ""
    format: Annotated[
        str,
        Field(pattern=r"^([a-z0-9][a-z0-9-]{0,39})?$", description="a format's name"),
    ] = ""
    persona_names: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=80)], ...], Field(max_length=20)
    ] = ()
    map: ColumnPairs = ()

    @model_validator(mode="after")
    def _printable(self) -> Self:
        if not all(text.isprintable() for text in (self.name, self.language, *self.persona_names)):
            raise ValueError("a name or the language holds unprintable characters")
        return self

    @property
    def listing(self) -> CatalogueListing:
        return CatalogueListing(
            self.name.strip(),
            self.language,
            format=self.format,
            persona_names=self.persona_names,
            mapping=self.map,
        )

    def statement(self, right: Right = "") -> RightsStatement:
        """The stated right; `right` is the one of a data set's samples. Raises
        `InvalidFieldsError`.
        """
        fields = self.model_dump(include={"stated_by", "stated_on", "why"})
        return parse_rights({**fields, "right": right or self.right})
