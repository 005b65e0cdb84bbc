"""Registers the slash commands at Discord when they have changed."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import discord
from discord import app_commands

from bot.platform.errors import connection_error
from personas.home.atomic_files import write_private_file

log = logging.getLogger(__name__)
STAMP_FILE = "commands.sha256"
"""Hash of the commands registered last: Discord limits how often they may be registered."""
REFUSED_FIELD_PATTERN = re.compile(r"^In (\d+)\.(\S+): (.*)$", re.MULTILINE)
"""A line of discord.py's text of a refusal: the command's index, the path of the field, why."""


async def sync_commands(tree: app_commands.CommandTree[Any], home: Path) -> None:
    """Register the commands where they have changed. Where Discord refuses, the earlier ones
    stay.
    """
    wanted = [command.to_dict(tree) for command in tree.get_commands()]
    stamped: list[Any] = [tree.client.application_id, wanted]
    if tree.translator:
        for command in tree.get_commands():
            stamped.append(await command.get_translated_payload(tree, tree.translator))
    stamp = hashlib.sha256(json.dumps(stamped, sort_keys=True).encode()).hexdigest()
    file = home / STAMP_FILE
    earlier = file.read_text() if file.exists() else ""
    try:
        registered = {command.name for command in await tree.fetch_commands()}
        if earlier == stamp and registered == {str(command["name"]) for command in wanted}:
            return
        await tree.sync()
        write_private_file(file, stamp.encode())
    except (discord.HTTPException, aiohttp.ClientError, OSError) as error:
        lines = []
        if isinstance(error, discord.HTTPException):
            lines = _refused_commands(wanted, error.text)
        for line in lines or [connection_error(error).message]:
            log.error("%s", line)
        log.error(
            "The slash commands are not up to date: those registered earlier stay until the next "
            "start."
        )


def _refused_commands(commands: Sequence[Mapping[str, Any]], refusal: str) -> list[str]:
    """Name each refused field of a bulk overwrite in a line."""
    lines = []
    for index, path, message in REFUSED_FIELD_PATTERN.findall(refusal):
        command: Mapping[str, Any] = commands[int(index)]
        names = [str(command["name"])]
        steps = path.split(".")
        while len(steps) > 2 and steps[0] == "options":
            command = command["options"][int(steps[1])]
            names.append(str(command["name"]))
            steps = steps[2:]
        lines.append(
            f"Discord refuses the command /{' '.join(names)}: {'.'.join(steps)}: {message}"
        )
    return lines
