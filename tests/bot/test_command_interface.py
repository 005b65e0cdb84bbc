"""The slash commands, their options and permissions, and the buttons' custom ids stay as Discord knows them.

Buttons under old messages and the permissions that servers have set depend on them; descriptions may change.
"""

import json
from pathlib import Path

FIXTURE = Path(__file__).with_name("fixtures") / "commands.json"
"""The commands of commit 2854d7e without their descriptions, and the patterns of its custom ids."""


def without_descriptions(payload):
    if isinstance(payload, dict):
        return {key: without_descriptions(value) for key, value in payload.items() if key != "description"}
    return [without_descriptions(item) for item in payload] if isinstance(payload, list) else payload


def sorted_options(payload):
    """Discord identifies commands by name, and sorts none of them; options keep their order."""
    groups = [option for option in payload.get("options", []) if option["type"] in (1, 2)]
    if not groups:
        return payload
    return payload | {"options": sorted(map(sorted_options, groups), key=lambda option: option["name"])}


def by_name(commands):
    return sorted(map(sorted_options, commands), key=lambda command: (command["type"], command["name"]))


async def test_commands_options_permissions_and_custom_ids_stay(stage):
    before, tree = json.loads(FIXTURE.read_text(encoding="utf-8")), stage.client.tree
    commands = json.loads(json.dumps([command.to_dict(tree) for command in tree.get_commands()], default=str))
    assert by_name(without_descriptions(commands)) == by_name(before["commands"])
    items = stage.client._connection._view_store._dynamic_items.values()
    assert sorted(item.__discord_ui_compiled_template__.pattern for item in items) == before["custom_ids"]
