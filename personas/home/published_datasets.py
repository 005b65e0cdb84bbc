"""Published data sets that ship as entries of the catalogue (`published_datasets.toml`)."""

import functools
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from personas.home.rights import RightsStatement
from personas.schemas.base import FrozenModel

PUBLISHED_FILE = Path(__file__).with_name("published_datasets.toml")
NO_STATEMENT = RightsStatement("", "", "", "")


class PublishedDataset(FrozenModel):
    """Facts about a published data set, as its page on the hub stated them on the day `read_on`.

    `files` are patterns of the files to fetch, of `bytes` in all. `licence` is empty where the page
    states none.
    """

    title: str
    hub: str
    files: tuple[str, ...]
    bytes: int
    rows: str
    language: str
    licence: str
    good_for: str
    not_for: str
    read_on: date

    @property
    def statement(self) -> RightsStatement:
        """The right under its licence; empty without one."""
        if not self.licence:
            return NO_STATEMENT
        publisher = self.hub.partition("/")[0]
        why = f"The licence on the page of {self.hub} on the hub."
        return RightsStatement(f"licensed:{self.licence}", publisher, self.read_on.isoformat(), why)


@functools.cache
def published_datasets() -> Mapping[str, PublishedDataset]:
    """Return the published data sets that ship as entries, by name."""
    tables = tomllib.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))
    return {name: PublishedDataset.model_validate(table) for name, table in tables.items()}
