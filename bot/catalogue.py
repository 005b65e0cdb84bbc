"""What may be named: data sets, personas and recipes by name; by path (`bot.by_path`) only by the operator.

A log `data/logs/<name>.json` is the data set `<name>`, a file `data/general/<name>.jsonl` the data set
`general-<name>`; `personas.rights` says where their rights are stated, and decides. A log without a stated right counts
as taken from Discord's API. The operator adds others in `catalogue.toml` (`personas.catalogue`), which states rights
itself. `history` is what the bot and opted-in members of a server said to each other (`bot.history`).
"""

from __future__ import annotations

import difflib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from bot.by_path import named_by_path
from bot.history import HISTORY, history_lines
from bot.personas import is_operators, own_card
from bot.preferences import preferences_material
from bot.store import Store
from personas.adapters import MANIFEST, adapter_ref
from personas.catalogue import CATALOGUE_FILE, Entry, ReadCatalogue, read_catalogue
from personas.consent import Consent, read_consent
from personas.contracts import TrainingRequest
from personas.data_set import is_data_set
from personas.errors import RequestError
from personas.for_everybody import OPERATOR, card_files, card_material, lore_material
from personas.job_material import (
    Kind,
    SourceMaterial,
    adapter,
    data_set,
    dialogue_adapter,
    dialogue_place,
    given,
    named,
    shipped_general,
    single,
)
from personas.job_material import ShippedData as ShippedData
from personas.rights import DISCORD_API, SETTING, Statement

log = logging.getLogger(__name__)

IMPORTED = "form", "moderators of a server", "Given to the bot on purpose, for what it does with them."
"""A server's own cards and lore."""


class Catalogue:
    """The data sets, personas and recipes that a request may name. Reads the folders anew at each call."""

    def __init__(self, shipped: ShippedData, base_model: str, home: Path, store: Store | None = None) -> None:
        """`base_model` is the one that is served; `home` may hold the operator's `catalogue.toml`, and holds consent.

        Without a `store` there is no `history`.
        """
        self._shipped, self._base_model, self._home, self._store = shipped, base_model, home, store
        self._told: dict[str, str] = {}

    @property
    def shipped(self) -> ShippedData:
        """Where the files lie that ship."""
        return self._shipped

    def datasets(self) -> list[str]:
        """The names of all data sets, in order; `history` only where Discord's permission is stated."""
        history = {HISTORY} if self._store and self._consent.permission else set()
        return sorted(self._dataset_files().keys() | self._operators().entries.keys() | history)

    def dialogues(self) -> list[str]:
        """The names of the data sets that may be general dialogue, in order: what ships, and all of the operator's."""
        shipped = {name for name, file in self._dataset_files().items() if file.suffix == ".jsonl"}
        return sorted(shipped | self._operators().entries.keys())

    def dialogue_adapters(self, guild_id: int = OPERATOR) -> list[str]:
        """The dialogue adapters that a server can start from, in order: its own, and the operator's."""
        folders = sorted(dialogue_place(self._home, "any").parent.glob("[!.]*/"))
        return [
            folder.name for folder in folders if guild_id == OPERATOR or self._maker(folder) in (OPERATOR, guild_id)
        ]

    def recipes(self) -> list[str]:
        """The names of all recipes, in order."""
        return sorted(path.stem for path in self._shipped.recipes.glob("*.toml"))

    def materials_for(self, request: TrainingRequest, guild_id: int = 0) -> tuple[SourceMaterial, ...]:
        """The materials that a request of a server takes. The operator may name paths and other base models.

        Raises `RequestError` when it names something unknown or not allowed here, and `MaterialError` or `CardError`
        when a file that it needs cannot be read.
        """
        self._check_names(request, guild_id)
        if request.persona is None:
            materials = self._for_dialogue(request)
        else:
            materials = self._for_persona(request.persona, request, guild_id)
        if request.task_type == "preference":
            materials = (*materials, *self._preferred(request, guild_id))
        elif request.start_from:
            materials = (*materials, dialogue_adapter(self._home, request.start_from, self._consent))
        return materials

    def card(self, persona_id: str) -> SourceMaterial:
        """A persona's card. Raises `RequestError` where there is none, and `CardError`."""
        if (own := own_card(self._home, persona_id)) and not is_operators(own):
            return given("card", own.name, "an imported card", IMPORTED, (own, own.name))
        try:
            return card_material(self._shipped, self._home, persona_id)
        except KeyError:
            known = sorted(card_files(self._shipped.cards, self._home))
            raise RequestError(f"There is no persona {persona_id!r}.", _known(known, persona_id)) from None

    def _check_names(self, request: TrainingRequest, guild_id: int) -> None:
        if request.dataset_path and guild_id != OPERATOR:
            raise RequestError(
                "A path cannot be named here, only a data set of the catalogue.", _known(self.datasets(), "")
            )
        if request.base_model != self._base_model and guild_id != OPERATOR:
            raise RequestError(
                f"An adapter for another base model ({request.base_model}) cannot be served here.",
                f"Leave the base model out, or start the bot with BASE_MODEL={request.base_model}.",
            )
        if request.task_type == "preference":
            self._version_before(request)
        elif request.start_from and request.start_from not in (there := self.dialogue_adapters(guild_id)):
            known = _known(there, request.start_from) if there else "Train one first: task_type dialogue."
            raise RequestError(f"There is no dialogue adapter {request.start_from!r} to start from.", known)
        if request.recipe not in (recipes := self.recipes()):
            raise RequestError(f"There is no recipe {request.recipe!r}.", _known(recipes, request.recipe))

    def _for_persona(self, persona_id: str, request: TrainingRequest, guild_id: int) -> tuple[SourceMaterial, ...]:
        card, path = self.card(persona_id), request.dataset_path
        ships = (self._shipped.logs / f"{persona_id}.json").is_file()
        if not (path or request.dataset or ships) and own_card(self._home, persona_id):
            raise RequestError(
                "An imported persona has no talk of its own to learn from.",
                f"Name a `dataset` in which it speaks. {_known(self.datasets(), '')}",
            )
        talk = self._at("log", path) if path else self._log(persona_id, request.dataset or persona_id, guild_id)
        learned = (card, talk, *self._lore(persona_id))
        return (*learned, *(self._to_mix(request.general) if request.general else self._general()))

    def _preferred(self, request: TrainingRequest, guild_id: int) -> tuple[SourceMaterial, ...]:
        """What was liked better than what in a server, and the version that goes on learning."""
        persona_id, version = request.persona or "", self._version_before(request)
        if self._store is None:
            raise RequestError("There is nothing to prefer without the bot's memory.", "Start it from the bot.")
        before = adapter(adapter_ref(self._home, persona_id, version).folder, version, self._consent)
        return before, preferences_material(self._home, self._store, guild_id, persona_id)

    def _version_before(self, request: TrainingRequest) -> str:
        """The version that `start_from` names, else the live or the newest one. Raises `RequestError`."""
        versions, persona_id = self._store.versions if self._store else None, request.persona or ""
        there = [it.version for it in versions.installed(persona_id)] if versions else []
        live = versions.live(persona_id) if versions else None
        wanted = request.start_from or live or next(reversed(there), None)
        if wanted is None:
            raise RequestError("There is no version yet that could go on learning.", "Train one: task_type persona.")
        if wanted not in there:
            raise RequestError(f"There is no version {wanted!r} of this persona.", _known(there, wanted))
        return wanted

    def _log(self, persona_id: str, dataset: str, guild_id: int) -> SourceMaterial:
        if dataset == HISTORY and self._store:
            return self._history(self._store, persona_id, guild_id)
        if entry := self._entry(dataset):
            return named("log", entry, self._consent)
        file = self._dataset_file(dataset)
        if file.suffix != ".json":
            raise RequestError(
                f"A persona learns from a log in which it speaks; {dataset!r} has no speakers.",
                "Leave the data set out to take the persona's own log.",
            )
        return single("log", file, self._consent)

    def _to_mix(self, name: str) -> tuple[SourceMaterial, ...]:
        """General dialogue to train on besides, and what measures forgetting: other dialogue, where there is any."""
        if entry := self._entry(name):
            chosen = named("messages", entry, self._consent)
            if chosen.kind == "dataset":
                raise RequestError(f"{name!r} is a built data set.", "Name it as the data set, or its sources here.")
            return (chosen, *self._general())
        file = self._dataset_file(name)
        if file.suffix == ".json":
            raise RequestError(f"{name!r} is a log, and no general dialogue.", _known(self.datasets(), "general"))
        others = self._general(without=file) or self._general()
        return (single("messages", file, self._consent), *others)

    def _history(self, store: Store, persona_id: str, guild_id: int) -> SourceMaterial:
        consent = self._consent
        lines = history_lines(store, consent, guild_id, persona_id)
        stated = Statement(DISCORD_API, f"the operator, in {SETTING}", _today(), consent.permission)
        text = "".join(f"{line}\n" for line in lines)
        return SourceMaterial("log", f"{HISTORY}.jsonl", HISTORY, stated, text=text, format="own-log")

    def _for_dialogue(self, request: TrainingRequest) -> tuple[SourceMaterial, ...]:
        if request.dataset_path:
            return (self._at("messages", request.dataset_path), *self._general())
        messages = sorted(name for name, file in self._dataset_files().items() if file.suffix == ".jsonl")
        if request.dataset is None:
            raise RequestError(
                "A dialogue job needs a data set.", _known(sorted([*messages, *self._operators().entries]), "")
            )
        if request.dataset == HISTORY and self._store:
            raise RequestError(f"`{HISTORY}` is a log, which trains a persona.", _known(messages, ""))
        if entry := self._entry(request.dataset):
            return (named("messages", entry, self._consent), *self._general())
        file = self._dataset_file(request.dataset)
        if request.dataset not in messages:
            raise RequestError(f"{request.dataset!r} is a log, which trains a persona.", _known(messages, ""))
        # What is trained on tells little of what training makes the model forget: taken where there is nothing else.
        general = self._general(without=file) or self._general()
        return (single("messages", file, self._consent), *general)

    def _maker(self, adapter: Path) -> int:
        """The server whose job made an adapter; where no job here did, it is the operator's."""
        try:
            job_id = str(json.loads((adapter / MANIFEST).read_bytes())["job_id"])
        except (OSError, ValueError, LookupError, TypeError):
            return OPERATOR
        job = self._store.jobs.get(job_id) if self._store else None
        return job.guild_id if job else OPERATOR

    def _dataset_files(self) -> dict[str, Path]:
        logs = {path.stem: path for path in self._shipped.logs.glob("*.json")}
        return logs | {f"general-{path.stem}": path for path in self._shipped.general.glob("*.jsonl")}

    def _dataset_file(self, name: str) -> Path:
        files = self._dataset_files()
        if name not in files:
            raise RequestError(f"There is no data set {name!r}.", _known(self.datasets(), name))
        return files[name]

    def _entry(self, name: str) -> Entry | None:
        """The operator's data set of that name. Raises `RequestError` when its entry has a fault."""
        read = self._operators()
        if fault := read.faults.get(name):
            raise RequestError(fault, f"The operator can correct {CATALOGUE_FILE}.")
        return read.entries.get(name)

    def _operators(self) -> ReadCatalogue:
        """The operator's catalogue as it is now; each fault is logged once. Names that ship cannot be taken."""
        read = read_catalogue(self._home)
        taken = self._dataset_files().keys() | {HISTORY}
        faults = read.faults | {
            name: f"{CATALOGUE_FILE}: {name!r} is the name of another data set." for name in read.entries.keys() & taken
        }
        for name, fault in faults.items():
            if self._told.get(name) != fault:
                log.warning("%s", fault)
        self._told = faults
        entries = {name: entry for name, entry in read.entries.items() if name not in faults}
        return ReadCatalogue(entries, {name: fault for name, fault in faults.items() if name not in taken})

    def _lore(self, persona_id: str) -> list[SourceMaterial]:
        own = own_card(self._home, persona_id)
        if own and not is_operators(own):
            folder = self._home / "lore" / own.parent.parent.name / persona_id
            copies = (folder, f"lore/{persona_id}")
            return [given("lore", "lore", "a server's lore", IMPORTED, copies)] if folder.is_dir() else []
        return lore_material(self._shipped, self._home, persona_id)

    def _general(self, without: Path | None = None) -> list[SourceMaterial]:
        return shipped_general(self._shipped, self._consent, without)

    @property
    def _consent(self) -> Consent:
        return read_consent(self._home)

    def _at(self, kind: Kind, path: str) -> SourceMaterial:
        """The material of a data set that the operator names by its path."""
        found = named_by_path(self._home, path)
        if is_data_set(found.path):
            return data_set(found.path, found.origin, self._consent)
        place, stated = f"named/{found.origin}", found.statement
        copies = ((found.path, place),)
        return SourceMaterial(kind, place, found.origin, stated, stated.stated_on, copies, format=found.format)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _known(names: list[str], wanted: str) -> str:
    """All names, those that look like what was wanted first."""
    if not names:
        return "There are none."
    near = difflib.get_close_matches(wanted, names, n=len(names), cutoff=0.5)
    return f"Known: {', '.join([*near, *(name for name in names if name not in near)])}."
