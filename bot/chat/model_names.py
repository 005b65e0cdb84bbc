"""Names of the models that programs and pages can talk to: a persona's live version, one version, or the base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bot.chat.prompt_context import ChatRequestBuilder, stop_sequences
from bot.store import BASE_MODEL_NAME
from personas.errors import RequestError
from personas.schemas.chat import ChatRequest, Persona, SamplingParams, Turn

LIVE_VERSION = "live"  # stands for the live version in a model name, and may be omitted


class UnknownModelError(RequestError):
    """Nobody has this name, or not this version."""


@dataclass(frozen=True)
class ChatModel:
    """Model that answers. `persona` None is the base model alone, `version` None the base model with the persona's
    card.

    `guild_id` is whose the persona is, 0 for everybody's.
    """

    persona: Persona | None = None
    version: str | None = None
    guild_id: int = 0

    @property
    def id(self) -> str:
        """Id in requests; always this version, whatever goes live."""
        return f"{self.persona.id}@{self.version or BASE_MODEL_NAME}" if self.persona else BASE_MODEL_NAME

    @property
    def name(self) -> str:
        """For people."""
        if self.persona is None:
            return "Base model"
        return f"{self.persona.name} ({self.version or 'base model'})"


def find_model(builder: ChatRequestBuilder, name: str) -> ChatModel:
    """Find the model of a name. Raises `UnknownModelError`, which lists the known ones."""
    who, named, version = name.partition("@")
    if name == BASE_MODEL_NAME:
        return ChatModel()
    guild_id, persona = _find_persona(builder, who)
    if not named or version == LIVE_VERSION:
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
    """Everybody there is: each persona with its versions, the newest first, and the base model in its part; at the end
    the base model alone.
    """
    for guild_id, persona in builder.personas.everybody():
        for version in [*reversed(servable_versions(builder, persona)), None]:
            yield ChatModel(persona, version, guild_id)
    yield ChatModel()


def servable_versions(builder: ChatRequestBuilder, persona: Persona) -> list[str]:
    """The versions of a persona that can be served here, oldest first."""
    behind = builder.incompatible_versions
    installed = (one.version for one in builder.store.versions.installed(persona.id))
    return [version for version in installed if not behind.model_of(persona.id, version)]


def build_model_request(
    talks: ChatRequestBuilder,
    speaker: ChatModel,
    turns: Sequence[Turn],
    sampling: SamplingParams,
    instructions: str = "",
) -> ChatRequest:
    """Build the request in which a model answers the last turn, with the lore that this turn finds."""
    persona = speaker.persona
    return ChatRequest(
        persona=persona,
        turns=tuple(turns),
        lore=tuple(talks.lore.search(persona.id, turns[-1].text, guild_id=speaker.guild_id)) if persona else (),
        adapter=talks.adapter(persona.id, speaker.version) if persona and speaker.version else None,
        sampling=replace(sampling, stop=(*(stop_sequences(tuple(turns)) if persona else ()), *sampling.stop)),
        instructions=instructions,
    )


def _find_persona(builder: ChatRequestBuilder, wanted: str) -> tuple[int, Persona]:
    everybody = builder.personas.everybody()
    by_id = [one for one in everybody if one[1].id == wanted]
    by_name = [one for one in everybody if one[1].name.casefold() == wanted.strip().casefold()]
    found = by_id or by_name
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(persona.id for _, persona in found)
        raise UnknownModelError(f"Several personas are called {wanted!r}.", f"Name one by its id: {ids}.")
    ids = ", ".join(persona.id for _, persona in everybody)
    raise UnknownModelError(f"There is no persona {wanted!r}.", f"There are: {ids}, and {BASE_MODEL_NAME}.")
