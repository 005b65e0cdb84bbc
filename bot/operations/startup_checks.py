"""Checks of the first seconds of a start: what would end it minutes later is told at once."""

import asyncio
import logging
import re
from pathlib import Path

import aiohttp
import discord

from bot.platform.errors import connection_error
from bot.settings import Settings
from bot.transcription.voice_model import ModelNotHereError, VoiceModelError, locate_voice_model
from personas.errors import BaseModelError
from personas.models.base_model import locate
from personas.models.gguf_file import NotUnpackedError
from personas.models.hub_snapshot import find_hub_error

TOKEN_TIMEOUT_S = 5.0
HUB_MODEL_PREFIX_PATTERN = re.compile(r"[\w.-]+(?:/[\w.-]+)?(?:[@:#]|$)")
log = logging.getLogger(__name__)


async def require_startable(settings: Settings) -> None:
    """Raise an `UnderstudyError` if the base model or the model of voice messages cannot be found,
    or Discord refuses the token.

    What cannot be told now, such as while Discord does not answer, is left to the start itself.
    """
    await asyncio.gather(
        asyncio.to_thread(require_base_model, settings.base_model),
        asyncio.to_thread(require_voice_model, settings.voice_model),
        _require_token(settings),
    )


def require_base_model(name: str) -> None:
    """Raise `BaseModelError` for a model that is neither here nor on a hub that can be reached;
    nothing is downloaded.
    """
    try:
        locate(name, fetch=False)
    except NotUnpackedError:
        return  # a GGUF file that is here: the start unpacks it
    except BaseModelError as error:
        if Path(name).expanduser().exists():
            raise
        if not HUB_MODEL_PREFIX_PATTERN.match(name):
            locate(name)  # it is no model's id on a hub, which the error says without a network
        if hub_error := find_hub_error():
            raise BaseModelError(
                f"{error.message.removesuffix('.')}, and {hub_error}.", error.advice
            ) from error


def require_voice_model(name: str) -> None:
    """Raise `VoiceModelError`, likewise; nothing is checked for an empty name."""
    if not name:
        return
    try:
        locate_voice_model(name, fetch=False)
    except ModelNotHereError as error:
        if hub_error := find_hub_error():
            raise VoiceModelError(
                f"{error.message.removesuffix('.')}, and {hub_error}.",
                "Name a folder in VOICE_MODEL, or leave it out.",
            ) from error


async def _require_token(settings: Settings) -> None:
    if settings.in_sandbox:
        return
    headers = {"Authorization": f"Bot {settings.discord_token}"}
    timeout = aiohttp.ClientTimeout(total=TOKEN_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(f"{discord.http.Route.BASE}/users/@me") as response,
        ):
            refused = response.status == 401
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        log.info("Discord could not be asked about the token yet: %s", error)
        return
    if refused:
        raise connection_error(discord.LoginFailure("Improper token has been passed."))
