"""Names of models: a persona's live version, one of its versions, a dialogue adapter, or the base
model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from bot.personas.base_model_compat import explain_unserved
from bot.personas.registry import PersonaRegistry
from bot.personas.served_versions import ServedVersions
from bot.platform.localisation import gettext_lazy, join_names
from bot.store import BASE_MODEL_NAME
from personas.errors import RequestError
from personas.home.adapters import DIALOGUE_PREFIX, DialogueAdapter, find_dialogue_adapters
from personas.home.persona_ids import match_personas
from personas.schemas.chat import Persona

MAX_LISTED_PERSONAS = 20
LIVE_VERSION = "live"
"""Stands for the live version; it may be left out."""


def version_label(version: str | None) -> str:
    """Display name of a version; None and `base` are the base model."""
    if version is None or version == BASE_MODEL_NAME:
        return gettext_lazy("the base model")
    return version


class UnknownModelError(RequestError):
    """There is no model of this name or version."""


@dataclass(frozen=True)
class ChatModel:
    """A model that answers: a persona's `version` (None: its card alone), a dialogue adapter, or
    the base model.

    A `dialogue` adapter answers with the card of `persona` if there is one. `guild_id` is the
    persona's guild, 0 for shared ones.
    """

    persona: Persona | None = None
    version: str | None = None
    guild_id: int = 0
    dialogue: DialogueAdapter | None = None

    @classmethod
    def of_dialogue(
        cls, adapter: DialogueAdapter, persona: Persona | None = None, guild_id: int = 0
    ) -> Self:
        """A dialogue adapter, with a persona's card or without."""
        return cls(persona, f"{adapter.id}@{adapter.version}", guild_id, adapter)

    @property
    def id(self) -> str:
        """Id in requests, with the version."""
        if self.persona is None:
            return self.version or BASE_MODEL_NAME
        return f"{self.persona.id}@{self.version or BASE_MODEL_NAME}"

    @property
    def name(self) -> str:
        """Display name."""
        if self.persona:
            version = self.dialogue.id if self.dialogue else self.version
            if version is None:
                return gettext_lazy("{name} (base model)", name=self.persona.name)
            return f"{self.persona.name} ({version})"
        if self.dialogue:
            return f"{self.dialogue.id} ({self.dialogue.version})"
        return gettext_lazy("Base model")

    @property
    def speaker_name(self) -> str:
        """Its name in a conversation."""
        speaker = self.persona or self.dialogue
        return speaker.name if speaker else ""


def find_model(personas: PersonaRegistry, versions: ServedVersions, name: str) -> ChatModel:
    """Find the model of a name. Raises `UnknownModelError`, which lists the known ones."""
    wanted, separator, version = name.partition("@")
    if name == BASE_MODEL_NAME:
        return ChatModel()
    if name.startswith(DIALOGUE_PREFIX):
        return ChatModel.of_dialogue(_find_dialogue(versions, name))
    guild_id, persona = _find_persona(personas, versions, wanted)
    if not separator or version == LIVE_VERSION:
        return ChatModel(persona, versions.speaking(persona.id, guild_id), guild_id)
    if version == BASE_MODEL_NAME:
        return ChatModel(persona, None, guild_id)
    if version.startswith(DIALOGUE_PREFIX):
        return ChatModel.of_dialogue(_find_dialogue(versions, version), persona, guild_id)
    known = versions.of_persona(persona.id)
    if version not in known:
        names = [persona.id, *(f"{persona.id}@{other}" for other in [*known, BASE_MODEL_NAME])]
        base_model = versions.incompatible.model_of(persona.id, version)
        why: str = gettext_lazy("There is no {name!r}.", name=name)
        if base_model:
            why, _ = explain_unserved(version, base_model)
        raise UnknownModelError(why, gettext_lazy("There are: {names}.", names=", ".join(names)))
    return ChatModel(persona, version, guild_id)


@dataclass(frozen=True)
class PersonaModels:
    """A persona's models: `live`, then its versions, newest first, with the time of installation,
    and the base model.

    Times are in seconds since 1970; 0 for the base model.
    """

    live: ChatModel
    models: tuple[tuple[ChatModel, float], ...]

    @property
    def live_since(self) -> float:
        """When the live version was installed; 0 for the base model."""
        for model, installed_at in self.models:
            if model.version == self.live.version:
                return installed_at
        return 0.0


@dataclass(frozen=True)
class VersionTable:
    """The served versions of all personas, read with two queries (`ServedVersions` makes some for
    each persona).
    """

    installed: Mapping[str, Sequence[tuple[str, float]]]
    live: Mapping[str, str]
    other_model: Callable[[str, str | None], str | None]

    @classmethod
    def read(cls, versions: ServedVersions) -> Self:
        return cls(
            installed=versions.store.versions.installed_by_persona(),
            live=versions.store.versions.live_for_all(),
            other_model=versions.incompatible.model_of,
        )

    def models(self, guild_id: int, persona: Persona) -> PersonaModels:
        """Return the models of a guild's persona."""
        models = []
        for version, installed_at in reversed(self.installed.get(persona.id, ())):
            if not self.other_model(persona.id, version):
                models.append((ChatModel(persona, version, guild_id), installed_at))
        models.append((ChatModel(persona, None, guild_id), 0.0))
        live = self.live.get(persona.id)
        speaking = None if self.other_model(persona.id, live) else live
        return PersonaModels(ChatModel(persona, speaking, guild_id), tuple(models))


def _find_dialogue(versions: ServedVersions, name: str) -> DialogueAdapter:
    """Return the dialogue adapter of `dialogue/NAME`, or of `dialogue/NAME@VERSION` if it is this
    version.
    """
    wanted, _, version = name.removeprefix(DIALOGUE_PREFIX).partition("@")
    known = find_dialogue_adapters(versions.home)
    adapter = known.get(wanted)
    if adapter is None:
        advice = gettext_lazy("Train one: task_type dialogue.")
        if known:
            names = ", ".join(other.id for other in known.values())
            advice = gettext_lazy("There are: {names}.", names=names)
        raise UnknownModelError(
            gettext_lazy("There is no dialogue adapter {name!r}.", name=wanted), advice
        )
    if version and version != adapter.version:
        raise UnknownModelError(
            gettext_lazy("There is no {name!r}.", name=name),
            gettext_lazy("There is: {name}.", name=f"{adapter.id}@{adapter.version}"),
        )
    if base_model := versions.incompatible.model_of_dialogue(adapter):
        raise UnknownModelError(*explain_unserved(adapter.id, base_model))
    return adapter


def _find_persona(
    personas: PersonaRegistry, versions: ServedVersions, wanted: str
) -> tuple[int, Persona]:
    """Return a persona and its guild, by its id or else by its name."""
    everybody = personas.everybody()
    matches = match_personas(everybody, wanted)
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(persona.id for _, persona in matches)
        raise UnknownModelError(
            gettext_lazy("Several personas are called {name!r}.", name=wanted),
            gettext_lazy("Name one by its id: {ids}.", ids=ids),
        )
    known = [persona.id for _, persona in everybody[:MAX_LISTED_PERSONAS]]
    if len(everybody) > MAX_LISTED_PERSONAS:
        known.append("…")
    known += [adapter.id for adapter in versions.dialogue_adapters()]
    advice = gettext_lazy(
        "There are: {names}, and {last}.", names=join_names(known), last=BASE_MODEL_NAME
    )
    raise UnknownModelError(gettext_lazy("There is no persona {wanted!r}.", wanted=wanted), advice)
