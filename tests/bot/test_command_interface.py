"""The slash commands, their options and permissions, and the buttons' custom ids stay as Discord
knows them.

Buttons under old messages and the permissions that servers have set depend on them; descriptions
may change, and commands, options and types of channels may be added.
"""

import json
from pathlib import Path

from bot.platform.discord_kit.command_order import FINETUNE_ORDER, PERSONA_ORDER

FIXTURE = Path(__file__).with_name("fixtures") / "commands.json"
"""The commands of commit 2854d7e without their descriptions, and the patterns of its custom ids."""


def without_descriptions(payload):
    if isinstance(payload, dict):
        return {
            key: without_descriptions(value)
            for key, value in payload.items()
            if key != "description"
        }
    return (
        [without_descriptions(item) for item in payload] if isinstance(payload, list) else payload
    )


def assert_contains(now, before):
    """Every command and option is there with its fields and types of channels; none has become
    required.
    """
    known = {(one["type"], one["name"]): one for one in before}
    added = [one for one in now if (one["type"], one["name"]) not in known]
    assert not any(one.get("required") for one in added), added
    for one in now:
        if (of := known.pop((one["type"], one["name"]), None)) is not None:
            free = {"options", "required", "channel_types"}
            if of.get("integration_types") is None:  # the portal decided then
                free.add("integration_types")
            kept = {key: value for key, value in of.items() if key not in free}
            assert {key: one.get(key) for key in kept} == kept
            assert {*of.get("channel_types", ())} <= {*one.get("channel_types", ())}
            assert of.get("required", True) or not one.get("required"), one["name"]
            assert_contains(one.get("options", []), of.get("options", []))
    assert not known


async def test_commands_options_permissions_and_custom_ids_stay_and_what_comes_first(stage):
    before = json.loads(FIXTURE.read_text(encoding="utf-8"))
    tree = stage.client.tree
    commands = json.loads(
        json.dumps([command.to_dict(tree) for command in tree.get_commands()], default=str)
    )
    assert_contains(without_descriptions(commands), before["commands"])
    items = stage.client._connection._view_store._dynamic_items.values()
    assert {item.__discord_ui_compiled_template__.pattern for item in items} >= set(
        before["custom_ids"]
    )
    by_name = {group.name: group for group in tree.get_commands()}
    for name, order in (("persona", PERSONA_ORDER), ("finetune", FINETUNE_ORDER)):
        listed = [option["name"] for option in by_name[name].to_dict(tree)["options"]]
        assert listed[: len(order)] == list(order), "a name that does not exist shifts the others"
    registered = await tree.fetch_commands()
    persona = next(command for command in registered if command.name == "persona")
    assert [option.name for option in persona.options][:2] == ["set", "create"], "as Discord has it"
