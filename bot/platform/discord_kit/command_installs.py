"""Where Discord offers the commands: in the bot's servers and direct messages, and some of them
wherever people are who have installed the bot for themselves.
"""

from typing import Any

from discord import app_commands

OUTSIDE_COMMANDS = ("chat", "memory", "privacy", "remember")
"""Commands that need neither a server's settings nor its channel."""


def offer_commands(tree: app_commands.CommandTree[Any], *, user_install: bool) -> None:
    """Set for each command by which installations and in which contexts it is offered; with
    `user_install`, some are also offered where the bot is not.
    """
    for command in tree.get_commands():
        is_outside = user_install and command.name in OUTSIDE_COMMANDS
        command.allowed_installs = app_commands.AppInstallationType(guild=True, user=is_outside)
        if command.name in OUTSIDE_COMMANDS:
            command.allowed_contexts = app_commands.AppCommandContext(
                guild=True, dm_channel=True, private_channel=is_outside
            )
