"""The command line of `python -m bot`: runs the bot on Discord with a token, and in the demo guild
without one.
"""

import argparse
import asyncio
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

from bot.app import App, open_app
from bot.cli import existing_file
from bot.operations.backup.cli import add_backup_commands
from bot.operations.doctor import cli as setup_commands
from bot.platform.errors import connection_error, shorten_connection_log
from bot.platform.permissions import invite_url
from bot.privacy import cli as privacy_command
from bot.settings import Settings, load_settings, set_hub_token
from personas.cli_entry import EXIT_DONE, EXIT_FAILED
from personas.errors import UnderstudyError
from personas.home.job_material import ShippedData
from personas.home.private_home import protect_home

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
CONTROL_PATTERN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
RECONNECTING_LOGGERS = "discord.client", "discord.shard", "discord.gateway"
DESCRIPTION = "The bot: on Discord with a token, and in its own guild on this machine without."
EPILOG = """examples:
  python -m bot                      no DISCORD_TOKEN: a guild on this machine; prints its address
  DISCORD_TOKEN=… python -m bot      the same bot on Discord
  WEB_PORT=0 python -m bot           any free port
  python -m bot doctor               checks the settings and this machine
  python -m bot invite               the invite URL of the bot
  python -m bot backup --out /mnt/backups

exit codes: 0 done, or ended by Ctrl-C or SIGTERM while it served; 1 could not start, broke off or was refused; 2 wrong
usage; 130 Ctrl-C in a command. docs/commands.md has all of them."""


def build_parser(prog: str = "python -m bot") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--env",
        type=existing_file,
        default=Path(".env"),
        help="a file with settings (default: .env)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    setup_commands.add_doctor_command(commands)
    setup_commands.add_invite_command(commands)
    privacy_command.add_commands(commands)
    add_backup_commands(commands)
    setup_commands.add_completion_command(commands, build_parser)
    return parser


def main() -> int:
    try:
        arguments = build_parser().parse_args()
        if "before_settings" in arguments:
            return int(arguments.before_settings(arguments))
        arguments.settings = settings = load_settings(arguments.env, os.environ)
        set_hub_token(settings)
        set_up_logging(settings)
        if "run" in arguments:
            return int(arguments.run(arguments, settings.home))
        asyncio.run(serve(settings))
    except UnderstudyError as error:
        print(f"Understudy cannot continue. {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE


class OneLineFormatter(logging.Formatter):
    """Escapes control characters in messages, so that no text from outside can write a line of its
    own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = CONTROL_PATTERN.sub(lambda found: ascii(found[0])[1:-1], record.message)
        return super().formatMessage(record)


def set_up_logging(settings: Settings) -> None:
    """Log to standard error; other packages from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLineFormatter(LOG_FORMAT, LOG_TIME_FORMAT))
    logging.basicConfig(handlers=[handler])
    for package in ("bot", "personas", "sandbox"):
        logging.getLogger(package).setLevel(settings.log_level)
    for name in RECONNECTING_LOGGERS:
        logging.getLogger(name).addFilter(shorten_connection_log)
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # it recommends kernels that are not used here


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
            error = app.running.exception() if app.running.done() else None
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
