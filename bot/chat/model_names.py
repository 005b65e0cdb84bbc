"""Names of models: a persona's live version, one of its versions, or the base model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bot.chat.prompt_context import ChatRequestBuilder, stop_sequences
from bot.store import BASE_MODEL_NAME
from personas.errors import RequestError
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn

LIVE_VERSION = "live"
"""Stands for the live version; it may be left out."""


def version_label(version: str | None) -> str:
    """Display name of a version; None and `base` are the base model."""
    return "the base model" if version is None or version == BASE_MODEL_NAME else version


class UnknownModelError(RequestError):
    """There is no model of this name or version."""


@dataclass(frozen=True)
class ChatModel:
    """A model that answers: the base model without a `persona`; without a `version`, with the persona's card alone.

    `guild_id` is the persona's guild, 0 for shared ones.
    """

    persona: Persona | None = None
    version: str | None = None
    guild_id: int = 0

    @property
    def id(self) -> str:
        """Id in requests, with the version."""
        return f"{self.persona.id}@{self.version or BASE_MODEL_NAME}" if self.persona else BASE_MODEL_NAME

    @property
    def name(self) -> str:
        """Display name."""
        if self.persona is None:
            return "Base model"
        return f"{self.persona.name} ({self.version or 'base model'})"


def find_model(builder: ChatRequestBuilder, name: str) -> ChatModel:
    """Find the model of a name. Raises `UnknownModelError`, which lists the known ones."""
    wanted, separator, version = name.partition("@")
    if name == BASE_MODEL_NAME:
        return ChatModel()
    guild_id, persona = _find_persona(builder, wanted)
    if not separator or version == LIVE_VERSION:
        return ChatModel(persona, builder.speaking(persona.id), guild_id)
    if version == BASE_MODEL_NAME:
        return ChatModel(persona, None, guild_id)
    if version not in (known := servable_versions(builder, persona)):
        others = ", ".join(f"{persona.id}@{one}" for one in [*known, BASE_MODEL_NAME])
        model = builder.incompatible_versions.model_of(persona.id, version)
        why = f"{version} was made for {model}, which is not served here." if model else f"There is no {name!r}."
        raise UnknownModelError(why, f"There are: {persona.id}, {others}.")
    return ChatModel(persona, version, guild_id)


def list_models(builder: ChatRequestBuilder) -> Iterator[ChatModel]:
    """Yield each persona with its versions, newest first, and with the base model; at the end the base model alone."""
    for guild_id, persona in builder.personas.everybody():
        for version in [*reversed(servable_versions(builder, persona)), None]:
            yield ChatModel(persona, version, guild_id)
    yield ChatModel()


def servable_versions(builder: ChatRequestBuilder, persona: Persona) -> list[str]:
    """The versions of a persona that can be served here, oldest first."""
    incompatible = builder.incompatible_versions
    installed = (one.version for one in builder.store.versions.installed(persona.id))
    return [version for version in installed if not incompatible.model_of(persona.id, version)]


def build_model_request(
    builder: ChatRequestBuilder,
    model: ChatModel,
    turns: Sequence[Turn],
    sampling: SamplingParams,
    instructions: str = "",
) -> ChatRequest:
    """Build the request in which a model answers the last turn, with the lore that this turn finds."""
    persona = model.persona
    return ChatRequest(
        persona=persona,
        turns=tuple(turns),
        lore=tuple(builder.lore.search(persona.id, turns[-1].text, guild_id=model.guild_id)) if persona else (),
        adapter=builder.adapter(persona.id, model.version) if persona and model.version else None,
        sampling=replace(sampling, stop=(*(stop_sequences(tuple(turns)) if persona else ()), *sampling.stop)),
        instructions=instructions,
    )


def _find_persona(builder: ChatRequestBuilder, wanted: str) -> tuple[int, Persona]:
    everybody = builder.personas.everybody()
    by_id = [entry for entry in everybody if entry[1].id == wanted]
    by_name = [entry for entry in everybody if entry[1].name.casefold() == wanted.strip().casefold()]
    matches = by_id or by_name
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(persona.id for _, persona in matches)
        raise UnknownModelError(f"Several personas are called {wanted!r}.", f"Name one by its id: {ids}.")
    ids = ", ".join(persona.id for _, persona in everybody)
    raise UnknownModelError(f"There is no persona {wanted!r}.", f"There are: {ids}, and {BASE_MODEL_NAME}.")
