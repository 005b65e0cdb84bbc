"""Runs the bot in the foreground, until Ctrl-C, SIGTERM or the end of its connection."""

import asyncio
import logging
import os
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

from bot.app import App, open_app
from bot.operations.metrics import BotMetrics
from bot.platform.errors import connection_error
from bot.platform.permissions import invite_url
from bot.settings import Settings, SettingsError, setting_place, warn_of_settings
from personas.cli_common import commands_as_typed
from personas.cli_entry import DISK_FULL_ERRNOS
from personas.home.job_material import ShippedData
from personas.home.private_home import protect_home
from personas.models.base_model import EMBEDDED
from personas.models.model_packages import require_model_packages

log = logging.getLogger(__name__)
HOME_SETTING = "UNDERSTUDY_HOME"


async def serve(settings: Settings, env_file: Path | None = None) -> None:
    """Run the bot until Ctrl-C, SIGTERM or the end of its connection. `env_file` has its settings.
    Raises `UnderstudyError` if that failed.
    """
    stopped = asyncio.Event()
    starting = asyncio.current_task()

    def stop() -> None:
        if starting and not stopped.is_set():
            starting.cancel()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    metrics = BotMetrics(settings)
    with metrics.listening():
        warn_of_settings(settings, env_file)
        protect_home(settings.home)
        _create_home(settings, env_file)
        if settings.engine == "vllm":
            from bot.operations.vllm_setup import (
                offer_installation,
            )  # only where the setting names it

            await asyncio.to_thread(offer_installation, settings)
        if settings.base_model == EMBEDDED or not settings.lore_encoder:
            await asyncio.to_thread(require_model_packages)
        with suppress(asyncio.CancelledError):
            shipped = ShippedData.from_source_tree()
            async with open_app(settings, shipped, env_file=env_file, metrics=metrics) as app:
                starting = None
                print(_address_text(app), flush=True)
                offering = asyncio.create_task(_offer_model(app), name="offer of a model")
                waiting = asyncio.create_task(stopped.wait())
                await asyncio.wait({waiting, app.running}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                offering.cancel()
                error = None
                if app.running.done():
                    error = app.running.exception()
                if error and not stopped.is_set():
                    raise connection_error(error) from error
                print("Stopping …", flush=True)


def _create_home(settings: Settings, env_file: Path | None) -> None:
    """Create the home. Raises `SettingsError` where it cannot be created or written."""
    home = settings.home
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
        place = setting_place(HOME_SETTING, env_file, os.environ)
        place = place or f"{HOME_SETTING} is {str(home)!r} by default"
        raise SettingsError(
            f"{place}, and the bot cannot store its data there: {error.strerror or error}.",
            f"Set {HOME_SETTING} to another folder, or give this user the right to write there.",
        ) from error


async def _offer_model(app: App) -> None:
    """Print which larger model fits, at a first start with a network; the bot goes on meanwhile."""
    try:
        if await app.services.models.look_for_offer():
            offer = "\n".join(app.services.models.offer.lines)
            print(commands_as_typed(offer), flush=True)
    except Exception:  # an offer must not end the bot
        log.exception("no larger model can be offered")


def _address_text(app: App) -> str:
    if app.sandbox:
        return (
            f"Understudy is open at {app.sandbox.url}  (Ctrl-C ends it)\nDashboard: "
            f"{app.url}/dashboard"
        )
    servers = ", ".join(guild.name for guild in app.client.guilds) or "no server yet"
    invite_to = invite_url(app.client.application_id or 0)
    return (
        f"Understudy is on Discord as {app.client.user}, in {servers}.\nInvite: {invite_to}\n"
        f"Dashboard: {app.url}/dashboard"
    )
