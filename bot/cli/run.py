"""Runs `python -m bot`: a command, or the bot itself, on Discord with a token and in the demo guild
without one.
"""

import asyncio
import os
import sys

from bot.cli.parser import build_parser
from bot.settings import load_settings, set_hub_token
from personas import cli_entry
from personas.cli_common import as_typed, name_as_typed
from personas.cli_entry import EXIT_DONE, EXIT_FAILED
from personas.errors import UnderstudyError


def main() -> int:
    """Return the exit code."""
    try:
        arguments = name_as_typed(build_parser()).parse_args()
        if "before_settings" in arguments:
            return int(arguments.before_settings(arguments))
        # Settings come before the bot, which takes seconds to import: a wrong WEB_PORT is reported
        # at once.
        # Of a setting that nothing reads, the bot's start tells: a command may be about to change it.
        is_start = "run" not in arguments
        settings = load_settings(arguments.env, os.environ, warns_of_unread=is_start)
        arguments.settings = settings
        set_hub_token(settings)
        with cli_entry.importing():
            from bot.cli.logs import set_up_logging
        set_up_logging(settings)
        if "run" in arguments:
            return int(arguments.run(arguments, settings.home))
        with cli_entry.importing():
            from bot.cli.serve import serve
        asyncio.run(serve(settings, arguments.env))
    except UnderstudyError as error:
        print(as_typed(f"Understudy cannot continue. {error}"), file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE
