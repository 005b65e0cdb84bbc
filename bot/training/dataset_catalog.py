"""The data sets, personas and recipes that a training request may name."""

import copy
import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

from bot.platform.errors import redact_paths
from bot.platform.localisation import gettext_lazy
from bot.store import Store
from bot.training.source_rights import refusal_texts
from bot.training.stored_datasets import HISTORY_DATASET
from personas.errors import MaterialError, RequestError
from personas.home.adapters import DialogueAdapter, find_dialogue_adapters
from personas.home.catalogue_edit import edit_catalogue
from personas.home.column_maps import MAP_FIELD
from personas.home.data_subjects import Consent, read_consent
from personas.home.dataset_catalogue import (
    CATALOGUE_FILE,
    CatalogueEntry,
    DatasetCatalogue,
    read_catalogue,
)
from personas.home.home_personas import persona_card_material
from personas.home.job_material import ShippedData, SourceMaterial
from personas.home.recipe_files import recipe_summary
from personas.home.rights import RightsStatement, decide_right
from personas.home.shared_personas import OPERATOR_GUILD_ID, shared_card_files
from personas.outside_names import path_inside
from personas.schemas.formatting import format_size

log = logging.getLogger(__name__)
DatasetPlace = Mapping[str, Any]
"""Fields of an entry in the catalogue that say where a data set is: `path`, or `hub` with
`files`.
"""


@dataclass(frozen=True)
class CatalogueListing:
    """The name by which moderators take a data set, and what else an entry may say about it."""

    name: str
    language: str = ""
    format: str = ""
    persona_names: tuple[str, ...] = ()
    mapping: tuple[str, ...] = ()


class DatasetCatalog:
    """The data sets, personas and recipes that a request may name, and the names by which
    moderators take data sets. Reads the folders at each call.
    """

    def __init__(
        self, shipped: ShippedData, base_model: str, home: Path, store: Store | None = None
    ) -> None:
        """`base_model` is the served one; without a `store` there is no `history`."""
        self.shipped = shipped
        self.base_model = base_model
        self.home = home
        self.store = store
        self._logged_faults: dict[str, str] = {}

    def datasets(self) -> list[str]:
        """The sorted names of all data sets; `history` only where Discord's permission is
        stated.
        """
        names = self.shipped.datasets().keys() | self._available()
        if self.store and self.consent.permission:
            names.add(HISTORY_DATASET)
        return sorted(names)

    def dialogues(self) -> list[str]:
        """The sorted names of data sets that may be general dialogue: bundled ones, and all of the
        operator's.
        """
        return sorted(self.shipped.dialogues() | self._available())

    def with_unfetched(self, names: list[str]) -> dict[str, str]:
        """Map labels to names: the given ones, then the data sets that would have to be fetched
        first.
        """
        entries = self._operators().entries
        unfetched = [name for name in entries if name not in names]
        labels = {}
        for name in (*names, *unfetched):
            labels[_label(name, entries.get(name))] = name
        return labels

    def require_entry(self, name: str) -> CatalogueEntry:
        """The entry of that name. Raises `RequestError`."""
        if entry := self.entry(name):
            return entry
        raise RequestError(
            gettext_lazy("There is no data set {name!r} in the catalogue.", name=name),
            list_names(self.datasets(), name),
        )

    def hub_entry(self, name: str) -> CatalogueEntry | None:
        """The entry of that name if its data set is on a hub."""
        entry = self._operators().entries.get(name)
        return entry if entry and entry.hub else None

    def entry_at(self, place: DatasetPlace) -> CatalogueEntry | None:
        """The operator's entry of the data set at this place."""
        path = None
        if "path" in place:
            path = self.home / place["path"]
        for entry in read_catalogue(self.home).entries.values():
            if path:
                is_there = entry.path == path
            else:
                is_there = entry.hub == place["hub"]
            if is_there and not entry.ships:
                return entry
        return None

    def offer(
        self, place: DatasetPlace, listing: CatalogueListing, statement: RightsStatement
    ) -> None:
        """Let moderators name a data set; another name that it had is dropped. Raises
        `UnderstudyError`.
        """
        verdict = decide_right(listing.name, stated=statement.right, consent=self.consent)
        if verdict.refused:
            raise MaterialError(*refusal_texts(listing.name, verdict, self.consent))
        before = self.entry_at(place)
        named = read_catalogue(self.home)
        other = named.entries.get(listing.name)
        is_taken = other is not None and other != before and other.hub != place.get("hub")
        reserved = {*named.faults, *self.shipped.datasets(), HISTORY_DATASET}
        if is_taken or listing.name in reserved:
            raise RequestError(
                gettext_lazy("{listing!r} is the name of another data set.", listing=listing.name),
                gettext_lazy("Choose another name."),
            )
        fields: dict[str, Any] = {
            **place,
            **vars(statement),
            "stated_on": date.fromisoformat(statement.stated_on),
        }
        optional = {
            "language": listing.language,
            "format": listing.format,
            "persona_names": [*listing.persona_names],
            MAP_FIELD: [*listing.mapping],
        }
        for name, value in optional.items():
            if value:
                fields[name] = value
        edit_catalogue(self.home, listing.name, fields)
        if before and before.name != listing.name:
            edit_catalogue(self.home, before.name, None)

    def withdraw(self, place: DatasetPlace) -> None:
        """Remove the entry of a data set, if there is one. Raises `MaterialError`."""
        if entry := self.entry_at(place):
            edit_catalogue(self.home, entry.name, None)

    def update_right(self, place: DatasetPlace, statement: RightsStatement | None) -> None:
        """Write the right stated to a data set into its entry, if there is one; None withdraws
        it.
        """
        entry = self.entry_at(place)
        if entry is None:
            return
        stated = statement.right if statement else ""
        is_refused = decide_right(entry.name, stated=stated, consent=self.consent).refused
        if statement is None or is_refused:
            self.withdraw(place)
            return
        listing = CatalogueListing(
            name=entry.name,
            language=entry.language,
            format=entry.format or "",
            persona_names=entry.persona_names,
            mapping=entry.mapping,
        )
        self.offer(place, listing, statement)

    def _available(self) -> set[str]:
        """The operator's data sets, and the published ones that were fetched."""
        entries = self._operators().entries
        return {name for name, entry in entries.items() if not entry.ships or entry.is_here}

    def dialogue_adapters(self, guild_id: int = OPERATOR_GUILD_ID) -> list[str]:
        """The names of the dialogue adapters that a server may use: its own, and the operator's."""
        adapters = find_dialogue_adapters(self.home)
        if guild_id == OPERATOR_GUILD_ID:
            return list(adapters)
        names = []
        for name, adapter in adapters.items():
            # An adapter without a job here counts as the operator's.
            job = None
            if self.store:
                job = self.store.jobs.get(adapter.job_id)
            owner = job.guild_id if job else OPERATOR_GUILD_ID
            if owner in (OPERATOR_GUILD_ID, guild_id):
                names.append(name)
        return names

    def find_dialogue_adapter(
        self, name: str, guild_id: int = OPERATOR_GUILD_ID
    ) -> DialogueAdapter:
        """A dialogue adapter that a server may use. Raises `RequestError`, which lists them."""
        names = self.dialogue_adapters(guild_id)
        if name not in names:
            advice: str = gettext_lazy("Train one first: task_type dialogue.")
            if names:
                advice = list_names(names, name)
            raise RequestError(
                gettext_lazy("There is no dialogue adapter {name!r}.", name=name), advice
            )
        return find_dialogue_adapters(self.home)[name]

    def recipes(self) -> list[str]:
        """The sorted names of all recipes."""
        return sorted(path.stem for path in self.shipped.recipes.glob("*.toml"))

    def recipe_labels(self) -> dict[str, str]:
        """What a menu shows of each recipe, by name: the name and what the recipe is for."""
        labels = {}
        for name in self.recipes():
            summary = recipe_summary(path_inside(self.shipped.recipes, f"{name}.toml"))
            labels[name] = f"{name}: {summary.rstrip('.')}" if summary else name
        return labels

    def card(self, persona_id: str) -> SourceMaterial:
        """A persona's card. Raises `RequestError` where there is none, and `CardError`."""
        try:
            return persona_card_material(self.shipped, self.home, persona_id)
        except KeyError:
            names = sorted(shared_card_files(self.shipped.cards, self.home))
            raise RequestError(
                gettext_lazy("There is no persona {name!r}.", name=persona_id),
                list_names(names, persona_id),
            ) from None

    @property
    def consent(self) -> Consent:
        """Discord's permission, and the members who have opted in."""
        return read_consent(self.home)

    @contextmanager
    def open_reader(self) -> Iterator[Self]:
        """Open a copy for another thread, with a connection to the database of its own."""
        own_store = self.store.open_reader() if self.store else nullcontext()
        with own_store as store:
            reader = copy.copy(self)
            reader.store = store
            yield reader

    def entry(self, name: str) -> CatalogueEntry | None:
        """The operator's data set of that name. Raises `RequestError` when its entry is invalid."""
        catalogue = self._operators()
        if fault := catalogue.faults.get(name):
            raise RequestError(
                redact_paths(fault, self.home),
                gettext_lazy("The operator can correct {file}.", file=CATALOGUE_FILE),
            )
        return catalogue.entries.get(name)

    def _operators(self) -> DatasetCatalogue:
        """The operator's current catalogue, without the names of bundled data sets; each fault is
        logged once.
        """
        catalogue = read_catalogue(self.home)
        taken = self.shipped.datasets().keys() | {HISTORY_DATASET}
        faults = dict(catalogue.faults)
        for name in catalogue.entries.keys() & taken:
            faults[name] = f"{CATALOGUE_FILE}: {name!r} is the name of another data set."
        for name, fault in faults.items():
            if self._logged_faults.get(name) != fault:
                log.warning("%s", fault)
        self._logged_faults.clear()  # shared with copies
        self._logged_faults.update(faults)
        entries = {name: entry for name, entry in catalogue.entries.items() if name not in faults}
        own_faults = {name: fault for name, fault in faults.items() if name not in taken}
        return DatasetCatalogue(entries, own_faults)


def _label(name: str, entry: CatalogueEntry | None) -> str:
    """Name a data set for a list of choices, with what decides whether to take it."""
    if entry is None:
        return name
    facts = [name]
    if not entry.is_here and entry.about:
        facts.append(f"not fetched: {format_size(entry.about.bytes)}")
    elif not entry.is_here:
        facts.append("not fetched" if entry.hub else "missing")
    facts.append(entry.language.partition(",")[0])
    if entry.hub:
        facts.append(entry.licence)
    return " · ".join(fact for fact in facts if fact)


def list_names(names: list[str], wanted: str) -> str:
    """List all names, those similar to `wanted` first."""
    if not names:
        return gettext_lazy("There are none.")
    near = difflib.get_close_matches(wanted, names, n=len(names), cutoff=0.5)
    others = [name for name in names if name not in near]
    return gettext_lazy("Known: {names}.", names=", ".join([*near, *others]))
