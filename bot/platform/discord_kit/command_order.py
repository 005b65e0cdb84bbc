"""The order in which Discord lists the subcommands: by how often one needs them."""

from collections.abc import Sequence

from discord import app_commands

PERSONA_ORDER = (
    "set", "create", "show", "list", "clear", "mute", "unmute", "why", "answering", "alias",
    "face", "fresh", "lore", "teach", "taught", "unteach", "import", "export", "remove", "duet", "timezone",
    "topic", "line", "generation", "candidates",
)  # fmt: skip
FINETUNE_ORDER = (
    "start", "status", "cancel", "resume", "preview", "promote", "rollback", "history", "compare",
    "judgement", "promotion", "schedule", "remove", "all",
)  # fmt: skip


def order_subcommands(group: app_commands.Group, names: Sequence[str]) -> None:
    """Put the named subcommands of a group first, in this order; others follow as they were added.

    Discord shows subcommands in the order in which they are registered, which is otherwise that of
    the imports.
    """
    others = [command.name for command in group.commands if command.name not in names]
    for name in (*names, *others):
        if command := group.get_command(name):
            group.remove_command(name)
            group.add_command(command)
