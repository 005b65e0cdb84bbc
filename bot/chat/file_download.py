"""Downloads the files of messages: from Discord's own file servers, or from the local guild."""

import asyncio
from collections.abc import Callable

import aiohttp
import discord
import yarl

DISCORD_HOSTS = frozenset({"cdn.discordapp.com", "media.discordapp.net"})
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
DOWNLOAD_TIMEOUT_S = 5.0
HEAD_BYTES = 512
"""Bytes by which the type of a file is told before the rest is read."""


class FileDownloadError(Exception):
    """A file that was sent cannot be downloaded."""


def is_file_address(url: str) -> bool:
    """Report whether an address is one of Discord's file servers, or of the local guild that the
    bot is connected to.
    """
    try:
        address = yarl.URL(url)
        origin = address.origin()
    except ValueError:
        return False
    api = yarl.URL(discord.http.Route.BASE)
    if api.host in LOOPBACK_HOSTS and origin == api.origin():
        return True
    is_standard = address.scheme == "https" and address.port == 443
    return is_standard and address.user is None and address.host in DISCORD_HOSTS


async def download(url: str, limit_of: Callable[[bytes], int]) -> bytes:
    """Download the beginning of a file: at most as many bytes as `limit_of` says of its first ones.

    Raises `FileDownloadError`, also where that takes too long.
    """
    if not is_file_address(url):
        raise FileDownloadError("its address is not one of Discord's file servers")
    # A packed answer could be larger than what is read of it.
    headers = {"Accept-Encoding": "identity"}
    try:
        async with (
            asyncio.timeout(DOWNLOAD_TIMEOUT_S),
            aiohttp.ClientSession(auto_decompress=False, headers=headers) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise FileDownloadError(f"the file server answers {response.status}")
            head = await _read(response.content, HEAD_BYTES)
            return head + await _read(response.content, limit_of(head) - len(head))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise FileDownloadError(f"{type(error).__name__}: {error}") from error


async def _read(stream: aiohttp.StreamReader, count: int) -> bytes:
    """Read so many bytes, or up to the end."""
    data = bytearray()
    while len(data) < count and (chunk := await stream.read(count - len(data))):
        data += chunk
    return bytes(data)
