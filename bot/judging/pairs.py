"""Two versions of a persona, and a reply of each to one prompt: both complete before anybody sees either."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace

from bot.errors import RefusedError
from bot.house import House
from bot.judging.prompts import Prompt, drawn, prompts_for
from bot.personas import own_suffix
from bot.replies import clean
from bot.store import BASE, Comparison, NewComparison
from personas.contracts import ChatRequest, Persona, Reply, Turn
from personas.errors import RequestError
from personas.prompt import EXAMPLE_USER

ATTEMPTS = 3
"""How often replies are made before two versions count as saying the same."""


@dataclass(frozen=True)
class Contest:
    """Which two versions of a persona are compared; None is the base model."""

    persona: Persona
    version: str | None
    against: str | None

    @property
    def names(self) -> tuple[str, str]:
        """How they are called."""
        return self.version or BASE, self.against or BASE


def contest_of(house: House, persona: Persona, version: str | None, against: str | None) -> Contest:
    """The versions that somebody named, `base` being the base model.

    Without a name it is the newest that does not speak, against the one that speaks now. Raises `RequestError` where
    there is none, and for one that is not installed or cannot be served.
    """
    speaking = house.conversations.speaking(persona.id)
    other = _named(house, persona, against) if against else speaking
    one = _named(house, persona, version) if version else _newest(house, persona, other)
    if one == other:
        raise RequestError(f"Both are {one or 'the base model'}.", "Name two versions, with `version` and `against`.")
    return Contest(persona, one, other)


def version_names(house: House, persona: Persona) -> list[str]:
    """What can be compared, newest first, the base model last."""
    behind = house.conversations.left_behind
    found = [one.version for one in house.store.versions.installed(persona.id)]
    return [*(version for version in reversed(found) if not behind.model_of(persona.id, version)), BASE]


async def made_comparison(house: House, contest: Contest, user_id: int, guild_id: int) -> NewComparison:
    """A comparison for one member: a prompt that they have seen least, two replies, in an order drawn by chance.

    Each is made for one member alone: were it shown to many, what chance made of two replies would sway all of them.
    Raises `UnderstudyError` when a reply cannot be made, and `RequestError` where both say the same each time.
    """
    prompts = prompts_for(contest.persona.id, house.home)
    seen = house.store.comparisons.prompts_seen(user_id, contest.persona.id)
    for _ in range(ATTEMPTS):
        prompt = drawn(prompts, seen)
        one, other = await _both(house, contest, prompt, guild_id)
        if clean(one.text) != clean(other.text):
            pair = [(contest.version, one), (contest.against, other)]
            random.shuffle(pair)
            (version_a, a), (version_b, b) = pair
            return NewComparison(
                guild_id, contest.persona.id, user_id, prompt.id, prompt.text, version_a, version_b, a.text, b.text,
                a.seed, b.seed,
            )  # fmt: skip
    raise RequestError("Both versions say the same, word for word.", "There is nothing to choose between them.")


def versions_shown(one: Comparison) -> tuple[str, str]:
    """Who A and B were, for people."""
    a, b = (name if name != BASE else "the base model" for name in one.versions)
    return a, b


def _named(house: House, persona: Persona, name: str) -> str | None:
    if name == BASE:
        return None
    house.store.versions.require_installed(persona.id, name)
    if model := house.conversations.left_behind.model_of(persona.id, name):
        raise RequestError(f"{name} was made for {model}, which is not served here.", "Name another version.")
    return name


def _newest(house: House, persona: Persona, other: str | None) -> str:
    for name in version_names(house, persona):
        if name not in (BASE, other):
            return name
    raise RequestError(f"{persona.name} has no second version to compare.", "Train one with `/finetune start`.")


async def _both(house: House, contest: Contest, prompt: Prompt, guild_id: int) -> tuple[Reply, Reply]:
    """Both replies, made at once; when one fails, the other is not waited for."""
    requests = [
        _request(house, contest.persona, version, prompt, guild_id) for version in (contest.version, contest.against)
    ]
    making = [asyncio.ensure_future(_whole(house, request)) for request in requests]
    try:
        one, other = await asyncio.gather(*making)
    finally:
        for task in making:
            task.cancel()
    if "cancelled" in (one.finish, other.finish):
        raise RefusedError("The replies were stopped before they were complete.", "Try again.")
    return one, other


async def _whole(house: House, request: ChatRequest) -> Reply:
    with house.answerer.giving_way.reply():
        stream = house.answerer.engine.submit(request)
        try:
            async for _ in stream:
                pass
            return stream.reply
        finally:
            stream.cancel()


def _request(house: House, persona: Persona, version: str | None, prompt: Prompt, guild_id: int) -> ChatRequest:
    """As in a talk that begins with the prompt. A guild's lore is asked for its own personas only.

    What a version of a persona for everybody says here may come to train that persona, for all guilds.
    """
    talks = house.conversations
    lore_of = guild_id if persona.id.endswith(own_suffix(guild_id)) else 0
    return ChatRequest(
        persona=persona,
        turns=(Turn(EXAMPLE_USER, prompt.text),),
        lore=tuple(talks.lore.search(persona.id, prompt.text, guild_id=lore_of)),
        adapter=talks.adapter(persona.id, version) if version else None,
        sampling=replace(talks.sampling, stop=(f"\n{EXAMPLE_USER}:",)),
        guild_id=guild_id,
    )
