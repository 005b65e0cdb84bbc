"""Whom the operator's own programs and pages can talk to, by name: a persona as it speaks now, a version of it, or the
base model.

    ballast           the version that speaks now
    ballast@v3        this version
    ballast@base      the base model with Ballast's card
    base              the base model alone
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bot.conversation import Conversations, others_begin
from bot.store import BASE
from personas.contracts import ChatRequest, Persona, Sampling, Turn
from personas.errors import RequestError

if TYPE_CHECKING:
    from bot.house import House

NOW = "live"
"""In place of a version: the one that speaks now. It may be left out."""


class NoSuchSpeakerError(RequestError):
    """Nobody has this name, or not this version."""


@dataclass(frozen=True)
class Speaker:
    """Who answers. `persona` None is the base model alone, `version` None the base model in the persona's part.

    `guild_id` is whose the persona is, 0 for everybody's.
    """

    persona: Persona | None = None
    version: str | None = None
    guild_id: int = 0

    @property
    def id(self) -> str:
        """What it is asked for by; always this version, whatever goes live."""
        return f"{self.persona.id}@{self.version or BASE}" if self.persona else BASE

    @property
    def name(self) -> str:
        """For people."""
        if self.persona is None:
            return "Base model"
        return f"{self.persona.name} ({self.version or 'base model'})"


def speaker_named(house: House, name: str) -> Speaker:
    """Who is meant. Raises `NoSuchSpeakerError`, which says whom there is."""
    who, named, version = name.partition("@")
    if name == BASE:
        return Speaker()
    guild_id, persona = _persona(house, who)
    if not named or version == NOW:
        return Speaker(persona, house.conversations.speaking(persona.id), guild_id)
    if version == BASE:
        return Speaker(persona, None, guild_id)
    if version not in (known := servable(house, persona)):
        others = ", ".join(f"{persona.id}@{one}" for one in [*known, BASE])
        model = house.conversations.left_behind.model_of(persona.id, version)
        why = f"{version} was made for {model}, which is not served here." if model else f"There is no {name!r}."
        raise NoSuchSpeakerError(why, f"There are: {persona.id}, {others}.")
    return Speaker(persona, version, guild_id)


def speakers(house: House) -> Iterator[Speaker]:
    """Everybody there is: each persona with its versions, the newest first, and the base model in its part; at the end
    the base model alone.
    """
    for guild_id, persona in house.conversations.personas.everybody():
        for version in [*reversed(servable(house, persona)), None]:
            yield Speaker(persona, version, guild_id)
    yield Speaker()


def servable(house: House, persona: Persona) -> list[str]:
    """The versions of a persona that can be served here, oldest first."""
    behind = house.conversations.left_behind
    installed = (one.version for one in house.store.versions.installed(persona.id))
    return [version for version in installed if not behind.model_of(persona.id, version)]


def request_to(
    talks: Conversations, speaker: Speaker, turns: Sequence[Turn], sampling: Sampling, instructions: str = ""
) -> ChatRequest:
    """What to ask the engine so that a speaker answers the last turn, with the lore that this turn finds."""
    persona = speaker.persona
    return ChatRequest(
        persona=persona,
        turns=tuple(turns),
        lore=tuple(talks.lore.search(persona.id, turns[-1].text, guild_id=speaker.guild_id)) if persona else (),
        adapter=talks.adapter(persona.id, speaker.version) if persona and speaker.version else None,
        sampling=replace(sampling, stop=(*(others_begin(tuple(turns)) if persona else ()), *sampling.stop)),
        instructions=instructions,
    )


def _persona(house: House, wanted: str) -> tuple[int, Persona]:
    everybody = house.conversations.personas.everybody()
    by_id = [one for one in everybody if one[1].id == wanted]
    by_name = [one for one in everybody if one[1].name.casefold() == wanted.strip().casefold()]
    found = by_id or by_name
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(persona.id for _, persona in found)
        raise NoSuchSpeakerError(f"Several personas are called {wanted!r}.", f"Name one by its id: {ids}.")
    ids = ", ".join(persona.id for _, persona in everybody)
    raise NoSuchSpeakerError(f"There is no persona {wanted!r}.", f"There are: {ids}, and {BASE}.")
