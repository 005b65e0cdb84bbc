"""Runs the bot in the foreground, until Ctrl-C, SIGTERM or the end of its connection."""

import asyncio
import signal
from contextlib import suppress

from bot.app import App, open_app
from bot.platform.errors import connection_error
from bot.platform.permissions import invite_url
from bot.settings import Settings
from personas.home.job_material import ShippedData
from personas.home.private_home import protect_home


async def serve(settings: Settings) -> None:
    """Run the bot until Ctrl-C, SIGTERM or the end of its connection. Raises `UnderstudyError` if
    that failed.
    """
    stopped = asyncio.Event()
    starting = asyncio.current_task()

    def stop() -> None:
        if starting and not stopped.is_set():
            starting.cancel()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    protect_home(settings.home)
    with suppress(asyncio.CancelledError):
        async with open_app(settings, ShippedData.from_source_tree()) as app:
            starting = None
            print(_address_text(app), flush=True)
            waiting = asyncio.create_task(stopped.wait())
            await asyncio.wait({waiting, app.running}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            error = None
            if app.running.done():
                error = app.running.exception()
            if error and not stopped.is_set():
                raise connection_error(error) from error
            print("Stopping …", flush=True)


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
