"""Finds the people whom a form names: by a name on Discord, or by an id."""

import asyncio
import re
from contextlib import suppress

import aiohttp
import discord

from bot.platform.web_kit.problems import Problem

MAX_FOUND = 100
"""Most that Discord looks for."""
MAX_NAME_CHARS = 32
"""Of a name on Discord."""
SEARCH_TIMEOUT_S = 5.0
ID_PATTERN = re.compile(r"(?:<@!?)?(\d{15,19})>?", re.ASCII)
Person = discord.Member | discord.User


async def find_people(
    client: discord.Client, guild: discord.Guild | None, text: str
) -> list[Person]:
    """Find the person with this id, who may have left the guild; else the members with this name, or,
    where nobody has it, those whose name begins so. Bots, and everybody without a guild, are found by
    their ids alone. Raises `Problem` where Discord does not answer.
    """
    name = text.strip().removeprefix("@")
    if not name:
        return []
    try:
        async with asyncio.timeout(SEARCH_TIMEOUT_S):
            if found := ID_PATTERN.fullmatch(name):
                return await _fetch(client, guild, int(found[1]))
            if guild is None:
                return []
            members = await guild.query_members(name[:MAX_NAME_CHARS], limit=MAX_FOUND, cache=False)
    except (discord.DiscordException, aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Problem(
            "not-connected",
            "Discord does not answer right now.",
            "Try again in a minute.",
        ) from error
    people: list[Person] = [member for member in members if not member.bot]
    return [each for each in people if is_named(each, text)] or people


async def _fetch(client: discord.Client, guild: discord.Guild | None, user_id: int) -> list[Person]:
    if guild:
        with suppress(discord.NotFound):
            return [await guild.fetch_member(user_id)]
    try:
        return [await client.fetch_user(user_id)]
    except discord.NotFound:
        return []


def is_named(person: Person, text: str) -> bool:
    """True for a text that is the whole name of a person, or their id."""
    name = text.strip().removeprefix("@")
    if found := ID_PATTERN.fullmatch(name):
        return int(found[1]) == person.id
    names = (person.name, person.global_name, person.display_name)
    return name.casefold() in {each.casefold() for each in names if each}
