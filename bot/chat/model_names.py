"""Names of models: a persona's live version, one of its versions, a dialogue adapter, or the base
model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from bot.chat.request import ChatRequestBuilder, stop_sequences
from bot.personas.base_model_compat import explain_unserved
from bot.store import BASE_MODEL_NAME
from personas.errors import RequestError
from personas.home.adapters import DIALOGUE_PREFIX, DialogueAdapter, find_dialogue_adapters
from personas.prompt.renderer import EXAMPLE_USER, system_card
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn

MAX_LISTED_PERSONAS = 20
LIVE_VERSION = "live"
"""Stands for the live version; it may be left out."""


def version_label(version: str | None) -> str:
    """Display name of a version; None and `base` are the base model."""
    return "the base model" if version is None or version == BASE_MODEL_NAME else version


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
        if self.persona is None:
            return (
                f"{self.dialogue.id} ({self.dialogue.version})" if self.dialogue else "Base model"
            )
        return (
            f"{self.persona.name} "
            f"({self.dialogue.id if self.dialogue else self.version or 'base model'})"
        )

    @property
    def speaker_name(self) -> str:
        """Its name in a conversation."""
        return self.persona.name if self.persona else self.dialogue.name if self.dialogue else ""


def find_model(builder: ChatRequestBuilder, name: str) -> ChatModel:
    """Find the model of a name. Raises `UnknownModelError`, which lists the known ones."""
    wanted, separator, version = name.partition("@")
    if name == BASE_MODEL_NAME:
        return ChatModel()
    if name.startswith(DIALOGUE_PREFIX):
        return ChatModel.of_dialogue(_find_dialogue(builder, name))
    guild_id, persona = _find_persona(builder, wanted)
    if not separator or version == LIVE_VERSION:
        return ChatModel(persona, builder.speaking(persona.id, guild_id), guild_id)
    if version == BASE_MODEL_NAME:
        return ChatModel(persona, None, guild_id)
    if version.startswith(DIALOGUE_PREFIX):
        return ChatModel.of_dialogue(_find_dialogue(builder, version), persona, guild_id)
    if version not in (known := servable_versions(builder, persona)):
        others = ", ".join(f"{persona.id}@{one}" for one in [*known, BASE_MODEL_NAME])
        model = builder.incompatible_versions.model_of(persona.id, version)
        why = explain_unserved(version, model)[0] if model else f"There is no {name!r}."
        raise UnknownModelError(why, f"There are: {persona.id}, {others}.")
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
        return next((at for model, at in self.models if model.version == self.live.version), 0.0)


@dataclass(frozen=True)
class VersionTable:
    """The versions of all personas: what `servable_versions` and `speaking` say of each, read with
    two queries.
    """

    installed: Mapping[str, Sequence[tuple[str, float]]]
    live: Mapping[str, str]
    other_model: Callable[[str, str | None], str | None]

    @classmethod
    def read(cls, builder: ChatRequestBuilder) -> Self:
        versions = builder.store.versions
        return cls(
            versions.installed_by_persona(),
            versions.live_for_all(),
            builder.incompatible_versions.model_of,
        )

    def models(self, guild_id: int, persona: Persona) -> PersonaModels:
        """Return the models of a guild's persona."""
        served = [
            it
            for it in reversed(self.installed.get(persona.id, ()))
            if not self.other_model(persona.id, it[0])
        ]
        models = [(ChatModel(persona, version, guild_id), at) for version, at in served]
        live = self.live.get(persona.id)
        speaking = None if self.other_model(persona.id, live) else live
        base = (ChatModel(persona, None, guild_id), 0.0)
        return PersonaModels(ChatModel(persona, speaking, guild_id), (*models, base))


def servable_dialogue_adapters(builder: ChatRequestBuilder) -> list[DialogueAdapter]:
    """The dialogue adapters that can be served here."""
    found = find_dialogue_adapters(builder.home).values()
    return [
        it for it in found if it.version and not builder.incompatible_versions.model_of_dialogue(it)
    ]


def servable_versions(builder: ChatRequestBuilder, persona: Persona) -> list[str]:
    """The versions of a persona that can be served here, oldest first."""
    incompatible = builder.incompatible_versions
    installed = (one.version for one in builder.store.versions.installed(persona.id))
    return [version for version in installed if not incompatible.model_of(persona.id, version)]


async def build_model_request(
    builder: ChatRequestBuilder,
    model: ChatModel,
    turns: Sequence[Turn],
    sampling: SamplingParams,
    instructions: str = "",
) -> ChatRequest:
    """Build the request in which a model answers the last turn, with the lore that this turn
    finds.
    """
    persona = model.persona
    card = model.persona
    turns = tuple(turns)
    if persona is None and model.dialogue and instructions:  # as its training data has system texts
        card = system_card(instructions)
        instructions = ""
        turns = tuple(replace(it, name="") if it.name == EXAMPLE_USER else it for it in turns)
    adapter = model.dialogue.ref if model.dialogue else None
    if persona and model.version and not adapter:
        adapter = builder.adapter(persona.id, model.version)
    lore = await builder.lore.find(persona.id, turns[-1].text, model.guild_id) if persona else ()
    return ChatRequest(
        persona=card,
        turns=turns,
        lore=tuple(lore),
        adapter=adapter,
        sampling=replace(sampling, stop=(*(stop_sequences(turns) if card else ()), *sampling.stop)),
        instructions=instructions,
    )


def _find_dialogue(builder: ChatRequestBuilder, name: str) -> DialogueAdapter:
    """The dialogue adapter of `dialogue/NAME`, or of `dialogue/NAME@VERSION` if it is this
    version.
    """
    wanted, _, version = name.removeprefix(DIALOGUE_PREFIX).partition("@")
    found = find_dialogue_adapters(builder.home)
    adapter = found.get(wanted)
    if adapter is None:
        known = ", ".join(it.id for it in found.values())
        advice = f"There are: {known}." if known else "Train one: task_type dialogue."
        raise UnknownModelError(f"There is no dialogue adapter {wanted!r}.", advice)
    if version and version != adapter.version:
        raise UnknownModelError(
            f"There is no {name!r}.", f"There is: {adapter.id}@{adapter.version}."
        )
    if model := builder.incompatible_versions.model_of_dialogue(adapter):
        raise UnknownModelError(*explain_unserved(adapter.id, model))
    return adapter


def _find_persona(builder: ChatRequestBuilder, wanted: str) -> tuple[int, Persona]:
    if found := builder.personas.find_owner(wanted):
        return found
    everybody = builder.personas.everybody()
    matches = [
        entry for entry in everybody if entry[1].name.casefold() == wanted.strip().casefold()
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(persona.id for _, persona in matches)
        raise UnknownModelError(
            f"Several personas are called {wanted!r}.", f"Name one by its id: {ids}."
        )
    listed = [persona.id for _, persona in everybody[:MAX_LISTED_PERSONAS]]
    more = ["…"] if len(everybody) > MAX_LISTED_PERSONAS else []
    known = [*listed, *more, *(it.id for it in servable_dialogue_adapters(builder))]
    advice = f"There are: {', '.join(known)}, and {BASE_MODEL_NAME}."
    raise UnknownModelError(f"There is no persona {wanted!r}.", advice)
