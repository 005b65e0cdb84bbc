"""Requests to Discord, and writes to the database, that are made again until they succeed.

docs/design.md lists for each of them the cost of its failure.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import aiohttp
import discord

from bot.store import StoreError

T = TypeVar("T")
log = logging.getLogger(__name__)
REQUEST_TIMEOUT_S = 60.0
"""Timeout of a request to Discord, which rate limits may delay; `bot.client` limits the wait for a
response.
"""
UNCERTAIN_ERRORS = (discord.DiscordServerError, aiohttp.ClientError, TimeoutError, OSError)
"""Errors after which a request may have had its effect."""
DELIVERY_ERRORS = (*UNCERTAIN_ERRORS, discord.HTTPException, discord.RateLimited, StoreError)
"""All errors by which a request to Discord, or a row, fails."""
TOO_MANY_REQUESTS_STATUS = 429
ARCHIVED_THREAD_CODE = 50083
"""Discord's code for a change of a message in an archived thread, until somebody opens that."""
RETRY_PAUSES_S = (1.0, 4.0)
RETRY_PAUSE_S = 1.0
"""The shortest pause of discord.py before it repeats a request."""
FIRST_PAUSE_S = 2.0
"""First pause between attempts of `deliver`; each one is twice as long as the one before."""
MAX_PAUSE_S = 60.0
MAX_DELIVERY_S = 900.0
"""Time for which `deliver` goes on; a reply can be resumed as long after a restart."""


def is_temporary(error: Exception) -> bool:
    """Return True for an error that may pass: a fault, a rate limit, a locked database."""
    if isinstance(error, (*UNCERTAIN_ERRORS, discord.RateLimited, StoreError)):
        return True
    return isinstance(error, discord.HTTPException) and error.status == TOO_MANY_REQUESTS_STATUS


def is_archived(error: BaseException) -> bool:
    """Return True for Discord's refusal to change a message because its thread is archived."""
    return isinstance(error, discord.HTTPException) and error.code == ARCHIVED_THREAD_CODE


def retry_after_s(error: Exception) -> float:
    """Return how long Discord asks to wait, in seconds; 0 where it does not say."""
    if isinstance(error, discord.RateLimited):
        return error.retry_after
    if not isinstance(error, discord.HTTPException) or error.response is None:
        return 0.0
    try:
        return max(0.0, float(error.response.headers.get("Retry-After", 0)))
    except ValueError:  # HTTP also allows a date there
        return 0.0


async def persist(request: Callable[[], Awaitable[T]]) -> T:
    """Make a request that may be repeated; again after a pause if its error is temporary."""
    for pause_s in RETRY_PAUSES_S:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                return await request()
        except Exception as error:
            if not is_temporary(error):
                raise
        await asyncio.sleep(pause_s)
    async with asyncio.timeout(REQUEST_TIMEOUT_S):
        return await request()


async def deliver(what: str, request: Callable[[], Awaitable[T]]) -> T:
    """Make a request that may be repeated, again after growing pauses while its error is temporary.

    Raises other errors at once, and the last one after `MAX_DELIVERY_S`.
    """
    for pause_s in growing_pauses():
        try:
            return await request()
        except Exception as error:
            if not is_temporary(error):
                raise
            wait_s = max(pause_s, min(retry_after_s(error), MAX_DELIVERY_S))
            log.warning("%s: failed, trying again in %.0f s: %s", what, wait_s, error)
            await asyncio.sleep(wait_s)
    return await request()


async def store_when_possible(what: str, store_it: Callable[[], T]) -> T:
    """Read or write rows, again after growing pauses while the database cannot be used."""

    async def attempt() -> T:
        return store_it()

    return await deliver(what, attempt)


def growing_pauses() -> Iterator[float]:
    """Yield growing pauses, in seconds, until they add up to `MAX_DELIVERY_S`."""
    pause_s = FIRST_PAUSE_S
    waited_s = 0.0
    while waited_s < MAX_DELIVERY_S:
        yield pause_s
        waited_s += pause_s
        pause_s = min(2 * pause_s, MAX_PAUSE_S)
