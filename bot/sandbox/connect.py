"""Turns discord.py towards a sandbox.

The addresses are class attributes of discord.py, so a process talks to one server at a time. Call it before the
client logs in, and never `discord.http._set_api_version` after it, which writes the first of them back.
"""

from contextlib import ExitStack
from typing import Protocol

import discord
import discord.gateway
import discord.http
from yarl import URL


class HasUrl(Protocol):
    """Whatever says where it listens, such as a Sandbox."""

    url: str


def point_discord_py_at(sandbox_or_url: HasUrl | str) -> ExitStack:
    """Make every discord.py client of this process talk to the sandbox (or to its page's address).

    Undone at the end of a `with` block, or by `close()`.
    """
    base = URL(sandbox_or_url if isinstance(sandbox_or_url, str) else sandbox_or_url.url)
    before = discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY, discord.Asset.BASE

    def put(api: str, gateway: URL, assets: str) -> None:
        discord.http.Route.BASE = api
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway
        discord.Asset.BASE = assets

    put(str(base / "api/v10"), (base / "gateway").with_scheme("ws"), str(base / "cdn"))
    undo = ExitStack()
    undo.callback(put, *before)
    return undo
