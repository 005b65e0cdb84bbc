"""The slash commands as an earlier stage of this process registered them.

To translate, send, check and store some ninety commands takes half of what a stage costs; hardly a
test is about that.
"""

from pathlib import Path
from typing import Any

from discord import app_commands

from bot.platform.discord_kit.command_sync import STAMP_FILE, sync_commands
from sandbox import Sandbox
from sandbox.application_commands import GLOBAL_SCOPE

_known: dict[tuple[bool, str], list[dict[str, Any]]] = {}
"""The commands, by whether people may install the application and which permission moderators
need.
"""


class RegisteredCommands:
    """Stands in for `sync_commands` on a stage whose home no bot has used yet."""

    def __init__(self, sandbox: Sandbox, *, user_install: bool, permission: str) -> None:
        self._container = sandbox._container
        self._key = (user_install, permission)

    async def sync(self, tree: app_commands.CommandTree[Any], home: Path) -> None:
        known = _known.get(self._key)
        if known is None or (home / STAMP_FILE).exists():
            await sync_commands(tree, home)
            _known[self._key] = self._container.commands.registered(GLOBAL_SCOPE)
        elif not self._container.commands.registered(GLOBAL_SCOPE):
            self._put(known)

    def _put(self, commands: list[dict[str, Any]]) -> None:
        store = self._container.store
        application = {"application_id": self._container.guild.bot_id}
        for command in commands:
            new_ids = {"id": store.new_id(), "version": store.new_id()}
            store.put("command", command | application | new_ids)
