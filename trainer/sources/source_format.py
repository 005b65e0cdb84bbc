"""The interface of an input format: how to match it, how to read it, and the options for reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from personas.home.data_subjects import Consent
from personas.schemas.chat import Persona
from trainer.sources.conversation import Conversation, RejectedRecord
from trainer.sources.source_file import Peek, SourceFile


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How sources are to be read. What a format has no use for it leaves alone.

    `persona` and `persona_names` (names, ids or roles) say who the persona is where several people talk. `right` is
    the one that is signed for the source, `claimed` the one that the command line states (see `personas.home.rights`);
    `consent` None only looks, anything else asks whether it may be trained on. `arrived` is the day on which it came.
    `source` is the name that conversations are to carry, the file's own unless given. `mapping` names columns of
    unknown shapes: role (`user`, `assistant`, `messages` …) to column. `oasst_paths` takes the best-ranked path of each
    tree or every path. `languages` keeps only these, where a source says the language; empty keeps all. `names_by` is
    how whoever asks gives `persona_names`.
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


@dataclass(frozen=True)
class SourceFormat:
    """One format of material.

    `name` is what `--format` takes, `title` what people call it, `expected` its shape in one line. `recognises` judges
    by content; `read` yields all that the file holds, used or not: the `rows` of what it yields add up to the number of
    records in the file. Both raise nothing but `MaterialError`, for files of which nothing can be read. `right` is what
    such a file counts as unless another right is signed for it; empty where the form says nothing. Where a format is
    that of a folder or archive, `claims` says which files in one, by their names, belong to the first of its kind
    there; `read` then gets the folder with these names alone.
    """

    name: str
    title: str
    expected: str
    matches: Callable[[Peek], bool]
    read: Callable[[SourceFile, ReadOptions], Iterator[Conversation | RejectedRecord]]
    right: str = ""
    claims: Callable[[Sequence[str]], Sequence[str]] | None = None
