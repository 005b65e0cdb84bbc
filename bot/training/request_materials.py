"""The materials of a training request: card, conversations, lore, general dialogue, and the adapter
to train further.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bot.personas.registry import guild_card_path
from bot.platform.localisation import gettext_lazy
from bot.store import Store
from bot.training.dataset_catalog import DatasetCatalog, list_names
from bot.training.dataset_paths import resolve_dataset_path
from bot.training.member_names import MemberNames
from bot.training.stored_datasets import (
    HISTORY_DATASET,
    history_material,
    preferences_material,
)
from personas.card.prose_edit import edit_card
from personas.card.toml_card import read_card, read_table
from personas.errors import RequestError
from personas.home.adapters import adapter_ref
from personas.home.built_dataset import is_built_dataset
from personas.home.home_personas import persona_lore_material
from personas.home.job_material import (
    SourceMaterial,
    adapter_material,
    built_dataset_material,
    catalogue_material,
    dialogue_adapter_material,
    general_training_material,
    shipped_file_material,
    shipped_general_material,
    synthetic_materials,
)
from personas.home.shared_personas import (
    CARD_FILE,
    OPERATOR_GUILD_ID,
    read_shared_personas,
    shared_card_files,
)
from personas.lore.prose_edit import edit_lore
from personas.schemas.training import MaterialKind, TrainingRequest

MODERATOR_ADVICE = gettext_lazy(
    "Train the persona from its card: type `/finetune start from:card`. Or on its lore: `/persona "
    "lore add`, then `/finetune start lore_pairs:1`. Or name a `dataset`, a chat log in which it speaks."
)
"""How a persona without a chat log is trained, as a moderator types it on Discord."""
OPERATOR_ADVICE = (
    "Train the persona from its card: under “Learns from”, choose that. Or choose a chat log there in "
    "which it speaks. (Over HTTP: `from_card` 1, or a `dataset`.)"
)
"""The same for the operator, in the form of the dashboard and over HTTP."""


class NoChatLogError(RequestError):
    """A request for a persona names nothing to learn from, and the persona has no log of its own."""


def check_request(catalogue: DatasetCatalog, request: TrainingRequest, guild_id: int = 0) -> None:
    """Raise the errors of `gather_materials` for names, rights and missing rows; reads neither texts
    nor adapters.
    """
    RequestMaterials(catalogue, request, guild_id, reads_texts=False).gather()


def gather_materials(
    catalogue: DatasetCatalog, request: TrainingRequest, guild_id: int = 0
) -> tuple[SourceMaterial, ...]:
    """Gather the materials of a server's request. The operator may name paths and other base models.

    Takes seconds for a long history. Call it in a thread: it has a connection to the database
    of its own. Raises `RequestError` for unknown or forbidden names, and `MaterialError` or
    `CardError` for unreadable files.
    """
    with catalogue.open_reader() as reader:
        return RequestMaterials(reader, request, guild_id, reads_texts=True).gather()


class RequestMaterials:
    """The materials of one request. Without `reads_texts`, only names and rights are checked."""

    def __init__(
        self,
        catalogue: DatasetCatalog,
        request: TrainingRequest,
        guild_id: int,
        *,
        reads_texts: bool,
    ) -> None:
        self._catalogue = catalogue
        self._request = request
        self._guild_id = guild_id
        self._reads_texts = reads_texts
        self._home = catalogue.home
        self._shipped = catalogue.shipped
        self._consent = catalogue.consent

    def gather(self) -> tuple[SourceMaterial, ...]:
        """Return the materials, in the order in which the trainer reads them."""
        request = self._request
        self._check_names()
        persona_id = request.persona
        materials = self._for_persona(persona_id) if persona_id else self._for_dialogue()
        if request.task_type == "preference":
            materials += self._preferred(persona_id or "")
        elif request.start_from:
            parent = dialogue_adapter_material(
                self._home, request.start_from, self._consent, verify=self._reads_texts
            )
            materials.append(parent)
        if self._reads_texts and request.teacher and request.teacher.url:
            materials = self._without_members(materials)
        return tuple(materials)

    def _without_members(self, materials: Sequence[SourceMaterial]) -> list[SourceMaterial]:
        """Take members out of card and lore, which a teacher's server gets; what ships has none."""
        ships = (self._shipped.cards, self._shipped.lore)
        written: set[Path] = set()
        for material in materials:
            if material.kind in ("card", "lore"):
                written.update(source for source, _ in material.copies)
        written = {source for source in written if not any(map(source.is_relative_to, ships))}
        store = self._catalogue.store
        if store is None or not written:
            return list(materials)
        names = MemberNames(store.messages.authors(), self._persona_names())

        def edit(source: Path, text: str) -> str:
            if any(map(source.is_relative_to, ships)):
                return text
            if source.name == CARD_FILE:
                return edit_card(text, source, names.masked)
            return edit_lore(text, names.masked)

        edited = []
        for material in materials:
            sent = material.kind in ("card", "lore")
            edited.append(replace(material, edit=edit) if sent else material)
        return edited

    def _persona_names(self) -> set[str]:
        """The id and names of the request's persona, and the names of all shared ones."""
        persona_id = self._request.persona or ""
        personas = list(read_shared_personas(self._shipped.cards, self._home).values())
        if own := guild_card_path(self._home, persona_id):
            personas.append(read_card(own))
        return {persona_id, *(name for each in personas for name in (each.name, each.nickname))}

    def _check_names(self) -> None:
        request = self._request
        is_operator = self._guild_id == OPERATOR_GUILD_ID
        if request.dataset_path and not is_operator:
            message = gettext_lazy("A path cannot be named here, only a data set of the catalogue.")
            raise RequestError(message, list_names(self._catalogue.datasets(), ""))
        if request.base_model != self._catalogue.base_model and not is_operator:
            raise RequestError(
                gettext_lazy(
                    "An adapter for another base model ({base_model}) cannot be served here.",
                    base_model=request.base_model,
                ),
                gettext_lazy(
                    "Leave the base model out, or start the bot with BASE_MODEL={base_model}.",
                    base_model=request.base_model,
                ),
            )
        if request.task_type == "preference":
            self._version_before(request.persona or "")
        elif request.start_from:
            self._catalogue.find_dialogue_adapter(request.start_from, self._guild_id)
        recipes = self._catalogue.recipes()
        if request.recipe not in recipes:
            raise RequestError(
                gettext_lazy("There is no recipe {recipe!r}.", recipe=request.recipe),
                list_names(recipes, request.recipe),
            )

    # ------------------------------------------------------------------------------------ a persona

    def _for_persona(self, persona_id: str) -> list[SourceMaterial]:
        request = self._request
        card = self._catalogue.card(persona_id)
        lore: list[SourceMaterial] = []
        if self._reads_texts or request.lore_pairs or request.from_card:
            lore = persona_lore_material(self._shipped, self._home, persona_id)
        talk = []
        # With a share of 1, it is trained on its lore or its card alone.
        if 1 not in (request.lore_pairs, request.from_card):
            talk.append(self._talk(persona_id))
        pairs: list[SourceMaterial] = []
        if request.lore_pairs:
            pairs = self._lore_pairs(persona_id, lore, talk)
        if request.general:
            general = self._mixed_dialogue(request.general)
        else:
            general = self._general()
            if request.task_type == "persona":
                general += general_training_material(self._shipped, self._consent)
        return [card, *talk, *pairs, *lore, *general]

    def _talk(self, persona_id: str) -> SourceMaterial:
        """The conversations of a persona's request. Raises `RequestError` if it has none."""
        request = self._request
        if request.dataset_path:
            return self._at("log", request.dataset_path)
        if request.dataset:
            return self._log(persona_id, request.dataset)
        ships = (self._shipped.logs / f"{persona_id}.json").is_file()
        if not ships and guild_card_path(self._home, persona_id):
            advice: str = MODERATOR_ADVICE
            if self._guild_id == OPERATOR_GUILD_ID:
                advice = OPERATOR_ADVICE
            raise NoChatLogError(
                gettext_lazy(
                    "{name} has no chat log to learn from yet.", name=self._name(persona_id)
                ),
                advice,
            )
        return self._log(persona_id, persona_id)

    def _name(self, persona_id: str) -> str:
        """The name in a persona's card. Raises `CardError`."""
        path = guild_card_path(self._home, persona_id)
        path = path or shared_card_files(self._shipped.cards, self._home)[persona_id]
        return str(read_table(path).get("name", persona_id))

    def _log(self, persona_id: str, dataset: str) -> SourceMaterial:
        if dataset == HISTORY_DATASET and self._catalogue.store:
            return self._history(self._catalogue.store, persona_id)
        if entry := self._catalogue.entry(dataset):
            return catalogue_material("log", entry, self._consent)
        file = self._dataset_file(dataset)
        if file.parent == self._shipped.general:
            raise RequestError(
                gettext_lazy(
                    "A persona learns from a log in which it speaks; {dataset!r} has no speakers.",
                    dataset=dataset,
                ),
                gettext_lazy("Leave the data set out to take the persona's own log."),
            )
        return shipped_file_material("log", file, self._consent)

    def _history(self, store: Store, persona_id: str) -> SourceMaterial:
        return history_material(
            store, self._consent, self._guild_id, persona_id, reads=self._reads_texts
        )

    def _lore_pairs(
        self, persona_id: str, lore: Sequence[SourceMaterial], talk: Sequence[SourceMaterial]
    ) -> list[SourceMaterial]:
        """Synthesised dialogues about a persona's lore, except what is trained on anyway. Raises
        `RequestError`.
        """
        if any(material.kind == "dataset" for material in talk):
            raise RequestError(
                gettext_lazy("A built data set is complete: no lore pairs can be added to it."),
                gettext_lazy(
                    "Leave lore_pairs out, or build the set with `lore extract` and `lore "
                    "synthesise` as sources."
                ),
            )
        pairs = synthetic_materials(self._shipped, self._home, persona_id, self._consent)
        if not (lore or pairs):
            advice = gettext_lazy("Add lore (`/persona lore add`), or leave lore_pairs out.")
            if self._request.lore_pairs == 1:
                advice = gettext_lazy(
                    "Add lore (`/persona lore add`), two passages at least. Or leave lore_pairs "
                    "out and name a `dataset`, a chat log in which it speaks."
                )
            raise RequestError(
                gettext_lazy("{name} has no lore to train on yet.", name=self._name(persona_id)),
                advice,
            )
        talk_paths = {material.path for material in talk}
        return [material for material in pairs if material.path not in talk_paths]

    # ---------------------------------------------------------------------------------- preferences

    def _preferred(self, persona_id: str) -> list[SourceMaterial]:
        """A server's preferences, and the version to train further."""
        version = self._version_before(persona_id)
        store = self._catalogue.store
        if store is None:
            raise RequestError(
                gettext_lazy("Preferences are in the bot's database, which is missing."),
                gettext_lazy("Start it from the bot."),
            )
        folder = adapter_ref(self._home, persona_id, version).folder
        before = adapter_material(folder, version, self._consent, verify=self._reads_texts)
        preferences = preferences_material(
            self._home, store, self._guild_id, persona_id, reads=self._reads_texts
        )
        return [before, preferences]

    def _version_before(self, persona_id: str) -> str:
        """The version `start_from` names (the operator: any), else a guild's live or newest. Raises
        `RequestError`.
        """
        wanted = self._request.start_from
        installed: list[str] = []
        if self._catalogue.store:
            versions = self._catalogue.store.versions
            guild_id: int | None = self._guild_id
            if wanted and guild_id == OPERATOR_GUILD_ID:
                guild_id = None  # the operator may name a version of any guild
            usable = versions.installed(persona_id, guild_id)
            installed = [version.version for version in usable]
            wanted = wanted or versions.live(persona_id, self._guild_id)
        if not wanted and installed:
            wanted = installed[-1]
        if not wanted:
            raise RequestError(
                gettext_lazy("There is no version yet to train further."),
                gettext_lazy("Train one: task_type persona."),
            )
        if wanted not in installed:
            raise RequestError(
                gettext_lazy("There is no version {wanted!r} of this persona.", wanted=wanted),
                list_names(installed, wanted),
            )
        return wanted

    # ------------------------------------------------------------------------------------- dialogue

    def _for_dialogue(self) -> list[SourceMaterial]:
        request = self._request
        if request.dataset_path:
            return [self._at("messages", request.dataset_path), *self._general()]
        messages = sorted(self._shipped.dialogues())
        if request.dataset is None:
            names = self._catalogue.dialogues()
            raise RequestError(
                gettext_lazy("A dialogue job needs a data set."), list_names(names, "")
            )
        if request.dataset == HISTORY_DATASET and self._catalogue.store:
            raise RequestError(
                gettext_lazy(
                    "{dataset!r} is a log, which trains a persona.", dataset=HISTORY_DATASET
                ),
                list_names(messages, ""),
            )
        if entry := self._catalogue.entry(request.dataset):
            return [catalogue_material("messages", entry, self._consent), *self._general()]
        file = self._dataset_file(request.dataset)
        if request.dataset not in messages:
            raise RequestError(
                gettext_lazy(
                    "{dataset!r} is a log, which trains a persona.", dataset=request.dataset
                ),
                list_names(messages, ""),
            )
        return [shipped_file_material("messages", file, self._consent), *self._general(file)]

    def _mixed_dialogue(self, name: str) -> list[SourceMaterial]:
        """General dialogue to mix in, and other dialogue, where there is any, to measure
        forgetting.
        """
        if entry := self._catalogue.entry(name):
            material = catalogue_material("messages", entry, self._consent)
            if material.kind == "dataset":
                raise RequestError(
                    gettext_lazy("{name!r} is a built data set.", name=name),
                    gettext_lazy("Name it as the data set, or its sources here."),
                )
            return [material, *self._general()]
        file = self._dataset_file(name)
        if file.parent != self._shipped.general:
            names = self._catalogue.datasets()
            raise RequestError(
                gettext_lazy("{name!r} is a log, not general dialogue.", name=name),
                list_names(names, "general"),
            )
        return [shipped_file_material("messages", file, self._consent), *self._general(file)]

    def _general(self, trained_on: Path | None = None) -> list[SourceMaterial]:
        """General dialogue. Forgetting is measured on other dialogue than the training data, where
        there is any.
        """
        others = shipped_general_material(self._shipped, self._consent, trained_on)
        return others or shipped_general_material(self._shipped, self._consent, None)

    # ------------------------------------------------------------------- data sets by name and path

    def _dataset_file(self, name: str) -> Path:
        files = self._shipped.datasets()
        if name not in files:
            raise RequestError(
                gettext_lazy("There is no data set {name!r}.", name=name),
                list_names(self._catalogue.datasets(), name),
            )
        return files[name]

    def _at(self, kind: MaterialKind, path: str) -> SourceMaterial:
        """The material of a data set that the operator names by its path."""
        dataset = resolve_dataset_path(self._home, path, self._request.right)
        if is_built_dataset(dataset.path):
            return built_dataset_material(dataset.path, dataset.origin, self._consent)
        target = f"named/{dataset.origin}"
        return SourceMaterial(
            kind,
            target,
            origin=dataset.origin,
            statement=dataset.statement,
            arrived=dataset.statement.stated_on,
            copies=((dataset.path, target),),
            format=dataset.format,
            mapping=dataset.mapping,
        )
