"""Display names of members, for pages that know their ids only."""

import asyncio
import time
from collections.abc import Iterable, Mapping

import aiohttp
import discord

from bot.platform.localisation import gettext_lazy
from bot.platform.messages import ERASED_MEMBER_TEXT

MAX_FETCHED = 20
"""Members whom one page asks Discord for; the next one asks for the others."""
FETCH_TIMEOUT_S = 3.0
MAX_AGE_S = 600.0
MAX_KEPT = 1000
MemberKey = tuple[int, int]
"""The ids of a guild and of its member, or 0 and the id of anybody on Discord; that of one who is
erased is below 0 (`ErasedIds`).
"""


class MemberNames:
    """Names that the client's cache lacks: without the members intent, it has few. They are kept in
    memory alone, for ten minutes.
    """

    def __init__(self) -> None:
        self._fetched: dict[MemberKey, tuple[float, str]] = {}

    async def names_of(
        self, client: discord.Client | None, members: Iterable[MemberKey]
    ) -> Mapping[MemberKey, str]:
        """Return the display names of members; an unknown one is "member 42"."""
        names = {}
        unknown = []
        for key in dict.fromkeys(members):
            names[key] = self._known(client, key)
            if not names[key]:
                unknown.append(key)
        if client is not None:
            fetches = (self._fetch(client, key) for key in unknown[:MAX_FETCHED])
            await asyncio.gather(*fetches)
        for key in unknown:
            _, name = self._fetched.get(key, (0.0, ""))
            names[key] = name or gettext_lazy("member {id}", id=key[1])
        return names

    def _known(self, client: discord.Client | None, key: MemberKey) -> str:
        guild_id, user_id = key
        if user_id < 0:
            return ERASED_MEMBER_TEXT
        guild = client.get_guild(guild_id) if client else None
        member = guild.get_member(user_id) if guild else None
        person = member or (client.get_user(user_id) if client else None)
        if person:
            return person.display_name
        fetched_at, name = self._fetched.get(key, (0.0, ""))
        return name if time.monotonic() - fetched_at < MAX_AGE_S else ""

    async def _fetch(self, client: discord.Client, key: MemberKey) -> None:
        guild_id, user_id = key
        guild = client.get_guild(guild_id)
        if guild_id and guild is None:
            return
        fetch = guild.fetch_member if guild else client.fetch_user
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                name = (await fetch(user_id)).display_name
        except discord.NotFound:
            name = gettext_lazy("a member who has left")
        except (discord.HTTPException, aiohttp.ClientError, OSError):
            return  # the next page asks again
        if len(self._fetched) >= MAX_KEPT:
            self._fetched.clear()
        self._fetched[key] = (time.monotonic(), name)
