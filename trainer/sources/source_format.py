"""The interface of an input format: how to match it, how to read it, and the options for
reading.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from personas.home.data_subjects import Consent
from personas.schemas.chat import Persona
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.source_file import Peek, SourceFile

UNUSED = "unused"


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options for reading sources; each format ignores those it has no use for.

    `persona` and `persona_names` (names, ids or roles) identify the persona among several speakers.
    `right` is the one signed for the source, `claimed` the one stated on the command line (see
    `personas.home.rights`); with `consent` None nothing is checked, otherwise training must be
    permitted. `arrived` is the date of arrival. `source` is the name that conversations carry, the
    file's own by default. `mapping` names the columns of unknown tables: role (`speaker`, `text`,
    `user`, `messages` …) to column. `oasst_paths` selects the best-ranked path of each tree or
    every path. `languages` keeps only these, if a source states the language; empty keeps all.
    `unused` are columns that a mapping leaves out (`COLUMN=unused`).
    `names_by` and `mapped_by` describe to the user how to supply `persona_names` and `mapping`.
    `personas` are those whose lore markdown may be; empty if that is unknown.
    """

    persona: Persona | None = None
    persona_names: tuple[str, ...] = ()
    right: str = ""
    claimed: str = ""
    consent: Consent | None = None
    arrived: str = ""
    source: str = ""
    session_gap_s: float = 1800.0
    mapping: Mapping[str, str] = field(default_factory=dict)
    oasst_paths: Literal["best", "all"] = "best"
    languages: tuple[str, ...] = ()
    names_by: str = "--as"
    mapped_by: str = "--map"
    personas: tuple[Persona, ...] = ()
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        roles = {left: right for left, right in self.mapping.items() if right != UNUSED}
        unused = tuple(left for left in self.mapping if left not in roles)
        # Without roles, a mapping does not say how a table is read.
        object.__setattr__(self, "mapping", roles)
        object.__setattr__(self, "unused", (*self.unused, *unused))

    @property
    def all_persona_names(self) -> tuple[str, ...]:
        """`persona_names`, and the name and id of the persona itself."""
        return (
            *self.persona_names,
            *((self.persona.name, self.persona.id) if self.persona else ()),
        )


@dataclass(frozen=True)
class SourceFormat:
    """An input format.

    `name` is the value of `--format`, `title` the display name, `expected` the shape in one line.
    `matches` decides by content; `read` yields the whole content, used or not: the `rows` of the
    results add up to the number of records. Both raise only `MaterialError`, for files that cannot
    be used at all. `right` is the default right of such files; empty if the format implies none.
    For a format of a folder or archive, `claims` selects by name the files of its first instance;
    `read` then gets the folder restricted to these names. `note` tells the user what becomes of it,
    and `meanings` what is taken with another meaning than it has in the file, each as part of a
    sentence.
    """

    name: str
    title: str
    expected: str
    matches: Callable[[Peek], bool]
    read: Callable[[SourceFile, ReadOptions], Iterator[Conversation | RejectedRecord]]
    right: str = ""
    claims: Callable[[Sequence[str]], Sequence[str]] | None = None
    note: str = ""
    meanings: tuple[str, ...] = ()
