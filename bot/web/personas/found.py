"""What an address names: a persona, a version of it; and how they stand."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from bot.house import House
from bot.store import InstalledVersion
from bot.web.here import house_of
from bot.web.problems import Problem
from personas.contracts import Persona
from personas.for_everybody import OPERATOR
from personas.lore import WORLD

THE_WORLD = Persona(WORLD, "The world")
"""What all personas share: it has lore, and nothing else."""


@dataclass(frozen=True)
class Found:
    """A persona, and the server whose it is: 0 for one that all servers have."""

    house: House
    guild_id: int
    persona: Persona

    @property
    def id(self) -> str:
        """The persona's id."""
        return self.persona.id

    @property
    def page(self) -> str:
        """Where its pages are."""
        return f"/dashboard/personas/{self.id}"

    @property
    def is_world(self) -> bool:
        """Whether it is no persona, but what all share."""
        return self.id == WORLD

    @property
    def is_edited(self) -> bool:
        """Whether a copy of the operator's stands in place of a card that came with the bot."""
        personas = self.house.conversations.personas
        return personas.ships(self.id) and personas.has_copy(self.id)

    @property
    def ships(self) -> bool:
        """Whether it came with the bot."""
        return self.is_world or self.house.conversations.personas.ships(self.id)

    @property
    def owner(self) -> str:
        """Whose it is, for people."""
        if self.guild_id:
            return server_name(self.house, self.guild_id)
        return "the operator" if self.is_edited or not self.ships else "came with the bot"


@dataclass(frozen=True)
class Standing:
    """How a persona stands.

    `live` is the version that was made live (None: the base model), `since` when (seconds since 1970), `speaks` the one
    that answers: another base model's version cannot. `newest` is the latest that may be served.
    """

    live: str | None
    speaks: str | None
    since: float | None
    newest: InstalledVersion | None
    made_for: str | None
    versions: int


def server_name(house: House, guild_id: int) -> str:
    """A server as people call it."""
    guild = house.client.get_guild(guild_id) if house.client else None
    return guild.name if guild else f"server {guild_id}"


def persona_at(request: web.Request) -> Found:
    """The persona that the address names. Raises `Problem` where there is none."""
    house, wanted = house_of(request), request.match_info["persona_id"]
    found = house.conversations.personas.whose(wanted)
    if found is None:
        known = ", ".join(persona.id for _, persona in house.conversations.personas.everybody())
        raise Problem("not-found", f"There is no persona {wanted[:80]!r}.", f"There are: {known}.")
    return Found(house, *found)


def lore_owner_at(request: web.Request) -> Found:
    """The persona that the address names, or the world. Raises `Problem` where there is neither."""
    if request.match_info["persona_id"] == WORLD:
        return Found(house_of(request), OPERATOR, THE_WORLD)
    return persona_at(request)


def version_at(request: web.Request, found: Found) -> InstalledVersion:
    """The version that the address names, withdrawn ones too. Raises `Problem` where there is none."""
    wanted = request.match_info["version"]
    made = {one.version: one for one in found.house.store.versions.ever_installed(found.id)}
    if wanted not in made:
        advice = f"There are: {', '.join(made)}." if made else "Train one first."
        raise Problem("not-found", f"{found.persona.name} has no version {wanted[:80]!r}.", advice)
    return made[wanted]


def standing_of(house: House, persona_id: str) -> Standing:
    """How a persona stands now."""
    versions = house.store.versions
    live, history, installed = versions.live(persona_id), versions.history(persona_id), versions.installed(persona_id)
    return Standing(
        live=live,
        speaks=house.conversations.speaking(persona_id),
        since=history[-1].at if history else None,
        newest=installed[-1] if installed else None,
        made_for=house.conversations.left_behind.model_of(persona_id, live),
        versions=len(installed),
    )
