"""Answers of `/uploads` and `/datasets`: data sources, data sets, their samples, and jobs on
them.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from bot.data.built_datasets import BuiltDataset
from bot.data.jobs import DataJob, DataJobKind, DataJobState
from bot.data.sources import DataSource
from bot.platform.web_kit.openapi import ApiModel, Json, Links, Timestamp

DATASET_FIGURES = {
    "samples", "tokens", "reply_tokens", "rows", "rows_used", "dropped", "dropped_replies", "by_source", "by_kind",
    "by_right", "statements", "replaced", "hash", "persona", "base_model",
}  # fmt: skip


def upload_path(name: str) -> str:
    return f"/uploads/{quote(name)}"


class DataJobResponse(ApiModel):
    """An inspection of an upload or a build of a data set, its `subject`; `said` is the last
    progress line.
    """

    id: str
    kind: DataJobKind
    subject: str
    state: DataJobState
    said: str
    error: str | None
    links: Links | None = None

    @classmethod
    def of(cls, job: DataJob, **links: str) -> DataJobResponse:
        more: Json = {"links": links} if links else {}
        return cls.describe(job, error=job.error or None, **more)


class SourceResponse(ApiModel):
    """A data source; `train_with` is how a training request names it, `catalogue_name` how
    moderators do on Discord.

    `map` says which column of a table is what. `published` has the facts about a published data
    set: size, language, licence, what it is good for, and what not.
    """

    id: str
    kind: Literal["source", "set"]
    origin: str
    bytes: int | None
    changed_at: Timestamp
    right: Json | None
    may_train: bool
    refused: str | None
    advice: str | None
    about: Json | None
    train_with: dict[str, str]
    catalogue_name: str | None
    map: list[str]
    published: Json | None
    links: Links
    looking_into: DataJobResponse | None = None

    @classmethod
    def of(cls, source: DataSource, **more: DataJobResponse | None) -> SourceResponse:
        """Describe a source; an upload may have its inspection, `looking_into`."""
        path = upload_path(source.name) if source.is_upload else f"/datasets/{quote(source.id)}"
        names = ("right", "columns", "inspect") if source.is_upload else ()
        actions = {name: f"{path}/{name}" for name in names}
        actions |= {"catalogue": f"{path}/catalogue"} if source.is_upload or source.entry else {}
        actions |= {"fetch": f"{path}/fetch"} if source.entry else {}
        facts = source.entry.about if source.entry else None
        return cls.describe(
            source,
            kind="set" if source.is_set else "source",
            right=vars(source.statement) if source.statement else None,
            may_train=not source.refused,
            refused=source.refused or None,
            advice=source.advice or None,
            about=source.about.model_dump(exclude={"bytes", "changed_ns"})
            if source.about
            else None,
            train_with=source.request_field,
            catalogue_name=source.catalogue_name or None,
            map=list(source.mapping),
            published=facts.model_dump(mode="json") if facts else None,
            links={"self": path, **actions},
            **more,
        )


class DatasetResponse(ApiModel, extra="allow"):
    """A built data set with its figures; `train_with` is how a training request names it.

    `catalogue_name` is how moderators name it on Discord.
    """

    id: str
    kind: Literal["set"]
    built_at: Timestamp
    train_with: dict[str, str]
    catalogue_name: str | None
    links: Links

    @classmethod
    def of(cls, built: BuiltDataset) -> DatasetResponse:
        path = f"/datasets/{quote(built.id)}"
        links = {"self": path, "samples": f"{path}/samples"}
        links |= {"catalogue": f"{path}/catalogue"} if built.is_own else {}
        figures = built.stats.model_dump(include=DATASET_FIGURES)
        name = built.catalogue_name or None
        return cls.describe(
            built,
            kind="set",
            train_with=built.request_field,
            catalogue_name=name,
            links=links,
            **figures,
        )


class UploadListResponse(ApiModel):
    """A page of uploads."""

    uploads: list[SourceResponse]
    links: Links


class UploadedFile(ApiModel):
    """A file that was uploaded."""

    name: str
    bytes: int
    sha256: str
    links: Links


class DatasetListResponse(ApiModel):
    """A page of data sets and sources."""

    datasets: list[DatasetResponse | SourceResponse]
    links: Links


class SampleResponse(ApiModel):
    """A sample: its number, its split, and its line in that split's file."""

    n: int
    split: str
    line: Json


class SampleListResponse(ApiModel):
    """A page of samples; `count` is the number of all that match."""

    samples: list[SampleResponse]
    count: int
    links: Links
