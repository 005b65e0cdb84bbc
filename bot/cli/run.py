"""Runs `python -m bot`: a command, or the bot itself, on Discord with a token and in the demo guild
without one.
"""

import asyncio
import os
import sys

from bot.cli.parser import build_parser
from bot.settings import SettingsError, load_settings, set_hub_token, setting_place
from personas import cli_entry
from personas.cli_common import as_typed, name_as_typed
from personas.cli_entry import EXIT_DONE, EXIT_FAILED
from personas.errors import BaseModelError, BundledModelError, UnderstudyError


def main() -> int:
    """Return the exit code."""
    try:
        arguments = name_as_typed(build_parser()).parse_args()
        if "before_settings" in arguments:
            return int(arguments.before_settings(arguments))
        # Settings come before the bot, which takes seconds to import: a wrong WEB_PORT is reported
        # at once.
        # Of a setting that nothing reads, the bot's start tells: a command may be about to change it.
        is_command = "run" in arguments
        settings = load_settings(
            arguments.env, os.environ, warns_of_unknown=is_command, warns_of_unread=False
        )
        arguments.settings = settings
        set_hub_token(settings)
        with cli_entry.importing():
            from bot.cli.logs import set_up_logging
        set_up_logging(settings)
        if is_command:
            return int(arguments.run(arguments, settings.home))
        with cli_entry.importing():
            from bot.cli.serve import serve
        try:
            asyncio.run(serve(settings, arguments.env))
        except BundledModelError:
            raise  # no setting is at fault
        except BaseModelError as error:
            place = setting_place("BASE_MODEL", arguments.env, os.environ)
            message = f"{place}. {error.message}" if place else error.message
            raise SettingsError(message, error.advice) from error
    except UnderstudyError as error:
        print(as_typed(f"Understudy cannot continue. {error}"), file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE
