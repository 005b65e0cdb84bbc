"""Resolves the data sets, personas and recipes that a training request names, by name or by
path.
"""

import copy
import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from bot.operations.shards import ShardRange
from bot.personas.registry import guild_card_path, is_operator_card
from bot.platform.errors import redact_paths
from bot.store import Store
from bot.training.stored_datasets import (
    HISTORY_DATASET,
    guild_store,
    history_material,
    preferences_material,
)
from personas.errors import MaterialError, RequestError
from personas.home.adapters import DialogueAdapter, adapter_ref, find_dialogue_adapters
from personas.home.built_dataset import dataset_statement, is_built_dataset
from personas.home.catalogue_edit import edit_catalogue
from personas.home.column_maps import MAP_FIELD, read_mapping
from personas.home.data_subjects import Consent, read_consent
from personas.home.dataset_catalogue import (
    CATALOGUE_FILE,
    CatalogueEntry,
    DatasetCatalogue,
    read_catalogue,
)
from personas.home.hub_download import HUB_ID_PATTERN
from personas.home.job_material import (
    ShippedData,
    SourceMaterial,
    adapter_material,
    built_dataset_material,
    catalogue_material,
    dialogue_adapter_material,
    shipped_file_material,
    shipped_general_material,
    stated_material,
    synthetic_materials,
)
from personas.home.rights import RightsStatement, decide_right, read_statement
from personas.home.shared_personas import (
    OPERATOR_GUILD_ID,
    card_material,
    lore_material,
    shared_card_files,
)
from personas.schemas.formatting import format_size
from personas.schemas.training import MaterialKind, TrainingRequest

PATH_ADVICE = (
    "Give a path from UNDERSTUDY_HOME, from where the bot was started, or an absolute one; or the "
    "id of a data set "
    "that was fetched from a hub before."
)
log = logging.getLogger(__name__)
IMPORT_RIGHTS = (
    "form",
    "moderators of a server",
    "Given to the bot on purpose, for what it does with them.",
)
"""A server's own cards and lore."""


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


@dataclass(frozen=True)
class ResolvedDataset:
    """A data set named by path: its files, its display name, the stated right to it, and the
    mapping of its columns.
    """

    path: Path
    origin: str
    statement: RightsStatement
    format: str | None = None
    mapping: tuple[str, ...] = ()


def resolve_dataset_path(home: Path, text: str) -> ResolvedDataset:
    """Resolve a `dataset_path`. Raises `MaterialError` when it does not exist or may not be trained
    on.
    """
    entries = read_catalogue(home).entries.values()
    path = _find_on_disk(home, text)
    if path:
        origin = path.name or text
        advice = ""
        entry = next(
            (entry for entry in entries if entry.path and _is_same_path(entry.path, path)), None
        )
        statement = _statement_at(path, entry)
    elif entry := next((entry for entry in entries if entry.hub == text), None):
        entry.decide_right(read_consent(home)).require()
        path = entry.locate()
        origin = entry.origin
        advice = ""
        statement = entry.statement
    else:
        path = _find_fetched(text)
        origin = text
        advice = _hub_statement_advice(text)
        statement = None
    if path is None:
        raise MaterialError(f"There is no {text!r} on this machine.", PATH_ADVICE)
    if home.is_relative_to(path):
        raise MaterialError(f"{text!r} holds the bot's own home.", "Name the data set alone.")
    verdict = decide_right(
        origin, stated=statement.right if statement else "", consent=read_consent(home)
    )
    if statement is None:
        raise MaterialError(verdict.refused, advice or verdict.advice)
    verdict.require()
    mapping = (entry.mapping if entry else ()) or read_mapping(path)
    return ResolvedDataset(path, origin, statement, entry.format if entry else None, mapping)


def _statement_at(path: Path, entry: CatalogueEntry | None) -> RightsStatement | None:
    """Read the stated right to a path; data sets of `dataset build` contain it."""
    if is_built_dataset(path):
        return dataset_statement(path)
    return entry.statement if entry else read_statement(path)


def _find_on_disk(home: Path, text: str) -> Path | None:
    if not text.isprintable():
        raise MaterialError("The path holds unprintable characters.", PATH_ADVICE)
    try:
        given = Path(text).expanduser()
        for folder in (home, Path.cwd()):
            path = Path(
                os.path.normpath(folder / given)
            )  # not resolved: the right is stated beside the given name
            if path.is_file() or path.is_dir():
                return path
    except (OSError, RuntimeError):  # too long, not readable, or the home of an unknown user
        pass
    return None


def _find_fetched(text: str) -> Path | None:
    if not HUB_ID_PATTERN.fullmatch(text):
        return None
    unstated = RightsStatement("", "", "", "")
    try:
        return CatalogueEntry(text, None, text, None, unstated).locate()
    except MaterialError:
        return None


def _is_same_path(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _hub_statement_advice(hub: str) -> str:
    return (
        f"Whoever holds the rights, or knows its licence, states so in {CATALOGUE_FILE} in "
        "UNDERSTUDY_HOME: a table "
        f'with hub = "{hub}", right (licensed:<name>, own-writing, data-package or form), stated_by, stated_on and why.'
    )


class DatasetCatalog:
    """The data sets, personas and recipes that a request may name. Reads the folders at each
    call.
    """

    _reads_material = True
    shards: ShardRange | None = None
    """The shards whose guilds the store has."""

    def __init__(
        self, shipped: ShippedData, base_model: str, home: Path, store: Store | None = None
    ) -> None:
        """`base_model` is the served one; without a `store` there is no `history`."""
        self.shipped = shipped
        self._base_model = base_model
        self._home = home
        self._store = store
        self._logged_faults: dict[str, str] = {}

    def datasets(self) -> list[str]:
        """The sorted names of all data sets; `history` only where Discord's permission is
        stated.
        """
        history = {HISTORY_DATASET} if self._store and self._consent.permission else set()
        return sorted(self.shipped.datasets().keys() | self._available() | history)

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
        labels = {_label(name, entries.get(name)): name for name in names}
        return labels | {
            _label(name, it): name for name, it in entries.items() if name not in names
        }

    def require_entry(self, name: str) -> CatalogueEntry:
        """The entry of that name. Raises `RequestError`."""
        if entry := self._entry(name):
            return entry
        raise RequestError(
            f"There is no data set {name!r} in the catalogue.", _list_names(self.datasets(), name)
        )

    def hub_entry(self, name: str) -> CatalogueEntry | None:
        """The entry of that name if its data set is on a hub."""
        entry = self._operators().entries.get(name)
        return entry if entry and entry.hub else None

    def entry_at(self, place: DatasetPlace) -> CatalogueEntry | None:
        """The operator's entry of the data set at this place."""
        path = self._home / place["path"] if "path" in place else None
        entries = [it for it in read_catalogue(self._home).entries.values() if not it.ships]
        return next(
            (it for it in entries if (it.path == path if path else it.hub == place["hub"])), None
        )

    def offer(
        self, place: DatasetPlace, listing: CatalogueListing, statement: RightsStatement
    ) -> None:
        """Let moderators name a data set; another name that it had is dropped. Raises
        `UnderstudyError`.
        """
        decide_right(listing.name, stated=statement.right, consent=self._consent).require()
        before = self.entry_at(place)
        named = read_catalogue(self._home)
        other = named.entries.get(listing.name)
        is_taken = other is not None and other != before and other.hub != place.get("hub")
        if (
            is_taken
            or listing.name in named.faults
            or listing.name in {*self.shipped.datasets(), HISTORY_DATASET}
        ):
            raise RequestError(
                f"{listing.name!r} is the name of another data set.", "Choose another name."
            )
        stated_on = date.fromisoformat(statement.stated_on)
        optional = {
            "language": listing.language,
            "format": listing.format,
            "persona_names": [*listing.persona_names],
            MAP_FIELD: [*listing.mapping],
        }
        fields = {
            **place,
            **vars(statement),
            "stated_on": stated_on,
            **{k: it for k, it in optional.items() if it},
        }
        edit_catalogue(self._home, listing.name, fields)
        if before and before.name != listing.name:
            edit_catalogue(self._home, before.name, None)

    def withdraw(self, place: DatasetPlace) -> None:
        """Remove the entry of a data set, if there is one. Raises `MaterialError`."""
        if entry := self.entry_at(place):
            edit_catalogue(self._home, entry.name, None)

    def update_right(self, place: DatasetPlace, statement: RightsStatement | None) -> None:
        """Write the right stated to a data set into its entry, if there is one; None withdraws
        it.
        """
        entry = self.entry_at(place)
        if entry is None:
            return
        if (
            statement is None
            or decide_right(entry.name, stated=statement.right, consent=self._consent).refused
        ):
            self.withdraw(place)
        else:
            listing = CatalogueListing(
                entry.name, entry.language, entry.format or "", entry.persona_names, entry.mapping
            )
            self.offer(place, listing, statement)

    def _available(self) -> set[str]:
        """The operator's data sets, and the published ones that were fetched."""
        return {
            name for name, it in self._operators().entries.items() if not it.ships or it.is_here
        }

    def dialogue_adapters(self, guild_id: int = OPERATOR_GUILD_ID) -> list[str]:
        """The names of the dialogue adapters that a server may use: its own, and the operator's."""
        allowed = (OPERATOR_GUILD_ID, guild_id)
        found = find_dialogue_adapters(self._home).items()
        return [
            name
            for name, it in found
            if guild_id == OPERATOR_GUILD_ID or self._owner_guild(it) in allowed
        ]

    def find_dialogue_adapter(
        self, name: str, guild_id: int = OPERATOR_GUILD_ID
    ) -> DialogueAdapter:
        """A dialogue adapter that a server may use. Raises `RequestError`, which lists them."""
        if name not in (names := self.dialogue_adapters(guild_id)):
            advice = _list_names(names, name) if names else "Train one first: task_type dialogue."
            raise RequestError(f"There is no dialogue adapter {name!r}.", advice)
        return find_dialogue_adapters(self._home)[name]

    def recipes(self) -> list[str]:
        """The sorted names of all recipes."""
        return sorted(path.stem for path in self.shipped.recipes.glob("*.toml"))

    def check(self, request: TrainingRequest, guild_id: int = 0) -> None:
        """Raise what `materials_for` would for names, rights and missing rows; reads neither texts
        nor adapters.
        """
        names_only = copy.copy(self)
        names_only._reads_material = False
        names_only._materials(request, guild_id)

    def materials_for(
        self, request: TrainingRequest, guild_id: int = 0
    ) -> tuple[SourceMaterial, ...]:
        """The materials of a server's request. The operator may name paths and other base models.

        Takes seconds for a long history. Call it in a thread: it has a connection to the database
        of its own. Raises `RequestError` for unknown or forbidden names, and `MaterialError` or
        `CardError` for unreadable files.
        """
        with self._store.open_reader() if self._store else nullcontext() as store:
            reader = copy.copy(self)
            reader._store = store
            return reader._materials(request, guild_id)

    def _materials(self, request: TrainingRequest, guild_id: int) -> tuple[SourceMaterial, ...]:
        self._check_names(request, guild_id)
        if request.persona is None:
            materials = self._for_dialogue(request)
        else:
            materials = self._for_persona(request.persona, request, guild_id)
        if request.task_type == "preference":
            materials = (*materials, *self._preferred(request, guild_id))
        elif request.start_from:
            parent = (self._home, request.start_from, self._consent)
            materials = (
                *materials,
                dialogue_adapter_material(*parent, verify=self._reads_material),
            )
        return materials

    def card(self, persona_id: str) -> SourceMaterial:
        """A persona's card. Raises `RequestError` where there is none, and `CardError`."""
        if (own := guild_card_path(self._home, persona_id)) and not is_operator_card(own):
            return stated_material(
                "card", own.name, "an imported card", IMPORT_RIGHTS, (own, own.name)
            )
        try:
            return card_material(self.shipped, self._home, persona_id)
        except KeyError:
            names = sorted(shared_card_files(self.shipped.cards, self._home))
            raise RequestError(
                f"There is no persona {persona_id!r}.", _list_names(names, persona_id)
            ) from None

    def _check_names(self, request: TrainingRequest, guild_id: int) -> None:
        if request.dataset_path and guild_id != OPERATOR_GUILD_ID:
            message = "A path cannot be named here, only a data set of the catalogue."
            raise RequestError(message, _list_names(self.datasets(), ""))
        if request.base_model != self._base_model and guild_id != OPERATOR_GUILD_ID:
            raise RequestError(
                f"An adapter for another base model ({request.base_model}) cannot be served here.",
                f"Leave the base model out, or start the bot with BASE_MODEL={request.base_model}.",
            )
        if request.task_type == "preference":
            self._version_before(request, guild_id)
        elif request.start_from:
            self.find_dialogue_adapter(request.start_from, guild_id)
        if request.recipe not in (recipes := self.recipes()):
            raise RequestError(
                f"There is no recipe {request.recipe!r}.", _list_names(recipes, request.recipe)
            )

    def _for_persona(
        self, persona_id: str, request: TrainingRequest, guild_id: int
    ) -> tuple[SourceMaterial, ...]:
        card = self.card(persona_id)
        lore = self._lore(persona_id) if self._reads_material or request.lore_pairs else []
        talk = () if request.lore_pairs == 1 else (self._talk(persona_id, request, guild_id),)
        pairs = self._lore_pairs(persona_id, lore, talk) if request.lore_pairs else []
        general = self._mixed_dialogue(request.general) if request.general else self._general()
        return (card, *talk, *pairs, *lore, *general)

    def _talk(self, persona_id: str, request: TrainingRequest, guild_id: int) -> SourceMaterial:
        """The conversations of a persona's request. Raises `RequestError` if it has none."""
        path = request.dataset_path
        ships = (self.shipped.logs / f"{persona_id}.json").is_file()
        if not (path or request.dataset or ships) and guild_card_path(self._home, persona_id):
            raise RequestError(
                "An imported persona has no chat log of its own to learn from.",
                "Name a `dataset` in which it speaks, or set lore_pairs to 1 to train on its lore "
                "alone. "
                f"{_list_names(self.datasets(), '')}",
            )
        return (
            self._at("log", path)
            if path
            else self._log(persona_id, request.dataset or persona_id, guild_id)
        )

    def _lore_pairs(
        self, persona_id: str, lore: Sequence[SourceMaterial], talk: Sequence[SourceMaterial]
    ) -> list[SourceMaterial]:
        """Synthesised dialogues about a persona's lore, except what is trained on anyway. Raises
        `RequestError`.
        """
        if any(material.kind == "dataset" for material in talk):
            advice = (
                "Leave lore_pairs out, or build the set with `lore extract` and `lore synthesise` "
                "as sources."
            )
            raise RequestError(
                "A built data set is complete: no lore pairs can be added to it.", advice
            )
        pairs = synthetic_materials(self.shipped, self._home, persona_id, self._consent)
        if not (lore or pairs):
            raise RequestError(
                f"There is no lore of {persona_id!r} to train on.",
                "Add some, or leave lore_pairs out.",
            )
        return [material for material in pairs if material.path not in {it.path for it in talk}]

    def _preferred(self, request: TrainingRequest, guild_id: int) -> tuple[SourceMaterial, ...]:
        """A server's preferences, and the version to train further."""
        persona_id = request.persona or ""
        version = self._version_before(request, guild_id)
        if self._store is None:
            raise RequestError(
                "Preferences are in the bot's database, which is missing.", "Start it from the bot."
            )
        folder = adapter_ref(self._home, persona_id, version).folder
        before = adapter_material(folder, version, self._consent, verify=self._reads_material)
        with guild_store(self._home, self._store, self.shards, guild_id) as store:
            return before, preferences_material(
                self._home, store, guild_id, persona_id, reads=self._reads_material
            )

    def _version_before(self, request: TrainingRequest, guild_id: int) -> str:
        """The version `start_from` names (the operator: any), else a guild's live or newest. Raises
        `RequestError`.
        """
        versions = self._store.versions if self._store else None
        name = request.persona or ""
        guild = None if request.start_from and guild_id == OPERATOR_GUILD_ID else guild_id
        installed = [it.version for it in versions.installed(name, guild)] if versions else []
        live = versions.live(name, guild_id) if versions else None
        if (wanted := request.start_from or live or next(reversed(installed), None)) is None:
            raise RequestError(
                "There is no version yet to train further.", "Train one: task_type persona."
            )
        if wanted not in installed:
            raise RequestError(
                f"There is no version {wanted!r} of this persona.", _list_names(installed, wanted)
            )
        return wanted

    def _log(self, persona_id: str, dataset: str, guild_id: int) -> SourceMaterial:
        if dataset == HISTORY_DATASET and self._store:
            return self._history(self._store, persona_id, guild_id)
        if entry := self._entry(dataset):
            return catalogue_material("log", entry, self._consent)
        file = self._dataset_file(dataset)
        if file.parent == self.shipped.general:
            raise RequestError(
                f"A persona learns from a log in which it speaks; {dataset!r} has no speakers.",
                "Leave the data set out to take the persona's own log.",
            )
        return shipped_file_material("log", file, self._consent)

    def _mixed_dialogue(self, name: str) -> tuple[SourceMaterial, ...]:
        """General dialogue to mix in, and other dialogue, where there is any, to measure
        forgetting.
        """
        if entry := self._entry(name):
            material = catalogue_material("messages", entry, self._consent)
            if material.kind == "dataset":
                raise RequestError(
                    f"{name!r} is a built data set.",
                    "Name it as the data set, or its sources here.",
                )
            return (material, *self._general())
        file = self._dataset_file(name)
        if file.parent != self.shipped.general:
            raise RequestError(
                f"{name!r} is a log, not general dialogue.", _list_names(self.datasets(), "general")
            )
        others = self._general(without=file) or self._general()
        return (shipped_file_material("messages", file, self._consent), *others)

    def _history(self, store: Store, persona_id: str, guild_id: int) -> SourceMaterial:
        with guild_store(self._home, store, self.shards, guild_id) as messages:
            return history_material(
                messages, self._consent, guild_id, persona_id, reads=self._reads_material
            )

    def _for_dialogue(self, request: TrainingRequest) -> tuple[SourceMaterial, ...]:
        if request.dataset_path:
            return (self._at("messages", request.dataset_path), *self._general())
        messages = sorted(self.shipped.dialogues())
        if request.dataset is None:
            names = self.dialogues()
            raise RequestError("A dialogue job needs a data set.", _list_names(names, ""))
        if request.dataset == HISTORY_DATASET and self._store:
            raise RequestError(
                f"`{HISTORY_DATASET}` is a log, which trains a persona.", _list_names(messages, "")
            )
        if entry := self._entry(request.dataset):
            return (catalogue_material("messages", entry, self._consent), *self._general())
        file = self._dataset_file(request.dataset)
        if request.dataset not in messages:
            raise RequestError(
                f"{request.dataset!r} is a log, which trains a persona.", _list_names(messages, "")
            )
        # Forgetting is measured on other dialogue than the training data, where there is any.
        measuring = self._general(without=file) or self._general()
        return (shipped_file_material("messages", file, self._consent), *measuring)

    def _owner_guild(self, adapter: DialogueAdapter) -> int:
        """The server whose job trained an adapter; the operator's where there is no such job."""
        job = self._store.jobs.get(adapter.job_id) if self._store else None
        return job.guild_id if job else OPERATOR_GUILD_ID

    def _dataset_file(self, name: str) -> Path:
        files = self.shipped.datasets()
        if name not in files:
            raise RequestError(
                f"There is no data set {name!r}.", _list_names(self.datasets(), name)
            )
        return files[name]

    def _entry(self, name: str) -> CatalogueEntry | None:
        """The operator's data set of that name. Raises `RequestError` when its entry is invalid."""
        catalogue = self._operators()
        if fault := catalogue.faults.get(name):
            raise RequestError(
                redact_paths(fault, self._home), f"The operator can correct {CATALOGUE_FILE}."
            )
        return catalogue.entries.get(name)

    def _operators(self) -> DatasetCatalogue:
        """The operator's current catalogue, without the names of bundled data sets; each fault is
        logged once.
        """
        catalogue = read_catalogue(self._home)
        taken = self.shipped.datasets().keys() | {HISTORY_DATASET}
        conflicts = catalogue.entries.keys() & taken
        faults = catalogue.faults | {
            name: f"{CATALOGUE_FILE}: {name!r} is the name of another data set."
            for name in conflicts
        }
        for name, fault in faults.items():
            if self._logged_faults.get(name) != fault:
                log.warning("%s", fault)
        self._logged_faults.clear()  # shared with copies
        self._logged_faults.update(faults)
        entries = {name: entry for name, entry in catalogue.entries.items() if name not in faults}
        return DatasetCatalogue(
            entries, {name: fault for name, fault in faults.items() if name not in taken}
        )

    def _lore(self, persona_id: str) -> list[SourceMaterial]:
        own = guild_card_path(self._home, persona_id)
        if own and not is_operator_card(own):
            folder = self._home / "lore" / own.parent.parent.name / persona_id
            if not folder.is_dir():
                return []
            copies = (folder, f"lore/{persona_id}")
            return [stated_material("lore", "lore", "a server's lore", IMPORT_RIGHTS, copies)]
        return lore_material(self.shipped, self._home, persona_id)

    def _general(self, without: Path | None = None) -> list[SourceMaterial]:
        return shipped_general_material(self.shipped, self._consent, without)

    @property
    def _consent(self) -> Consent:
        return read_consent(self._home)

    def _at(self, kind: MaterialKind, path: str) -> SourceMaterial:
        """The material of a data set that the operator names by its path."""
        dataset = resolve_dataset_path(self._home, path)
        if is_built_dataset(dataset.path):
            return built_dataset_material(dataset.path, dataset.origin, self._consent)
        target = f"named/{dataset.origin}"
        stated = dataset.statement
        copies = ((dataset.path, target),)
        return SourceMaterial(
            kind,
            target,
            dataset.origin,
            stated,
            stated.stated_on,
            copies,
            format=dataset.format,
            mapping=dataset.mapping,
        )


def _label(name: str, entry: CatalogueEntry | None) -> str:
    """Name a data set for a list of choices, with what decides whether to take it."""
    if entry is None:
        return name
    size = format_size(entry.about.bytes) if entry.about else ""
    facts = [entry.language.partition(",")[0], entry.licence if entry.hub else ""]
    if not entry.is_here:
        facts = [
            f"not fetched: {size}" if size else "not fetched" if entry.hub else "missing",
            *facts,
        ]
    return " · ".join([name, *filter(None, facts)])


def _list_names(names: list[str], wanted: str) -> str:
    """List all names, those similar to `wanted` first."""
    if not names:
        return "There are none."
    near = difflib.get_close_matches(wanted, names, n=len(names), cutoff=0.5)
    return f"Known: {', '.join([*near, *(name for name in names if name not in near)])}."
