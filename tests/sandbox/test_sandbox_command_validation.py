"""What Discord refuses when commands are registered."""

SLASH = {"name": "one", "description": "d", "type": 1}
OPTION = {"name": "a", "description": "d", "type": 3}
CHOICE = {"name": "c", "value": "v"}


def slash(**more):
    return [SLASH | more]


def many(count, kind=1):
    return [
        {"name": f"c{number}", "description": "d" if kind == 1 else "", "type": kind}
        for number in range(count)
    ]


DEEP = {
    "options": [
        {
            **OPTION,
            "name": "g",
            "type": 2,
            "options": [{**OPTION, "type": 1, "options": [OPTION | {"name": "x" * 33}]}],
        }
    ]
}


async def test_a_mistake_is_named_with_its_place(sandbox, api):
    for commands, place, code in [
        (slash(name="Shouting"), "0.name", "APPLICATION_COMMAND_INVALID_NAME"),
        (slash(name="two words"), "0.name", "APPLICATION_COMMAND_INVALID_NAME"),
        (slash(name=""), "0.name", "APPLICATION_COMMAND_INVALID_NAME"),
        (slash(name="x" * 33), "0.name", "BASE_TYPE_MAX_LENGTH"),
        (slash(description=""), "0.description", "BASE_TYPE_REQUIRED"),
        (slash(description="x" * 101), "0.description", "BASE_TYPE_MAX_LENGTH"),
        (
            slash(options=[OPTION | {"name": "A"}]),
            "0.options.0.name",
            "APPLICATION_COMMAND_INVALID_NAME",
        ),
        (
            slash(options=[OPTION | {"description": ""}]),
            "0.options.0.description",
            "BASE_TYPE_REQUIRED",
        ),
        (
            slash(options=[OPTION | {"name": f"o{n}"} for n in range(26)]),
            "0.options",
            "BASE_TYPE_MAX_LENGTH",
        ),
        (
            slash(options=[OPTION | {"choices": [CHOICE] * 26}]),
            "0.options.0.choices",
            "BASE_TYPE_MAX_LENGTH",
        ),
        (
            slash(options=[OPTION | {"choices": [CHOICE | {"name": "x" * 101}]}]),
            "0.options.0.choices.0.name",
            "BASE_TYPE_MAX_LENGTH",
        ),
        (slash(**DEEP), "0.options.0.options.0.options.0.name", "BASE_TYPE_MAX_LENGTH"),
        (
            slash(options=[OPTION, OPTION | {"name": "b", "required": True}]),
            "0.options.1",
            "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID",
        ),
        (
            slash(
                options=[
                    OPTION | {"name": f"o{n}", "choices": [{"name": "c", "value": "v" * 99}] * 25}
                    for n in range(4)
                ]
            ),
            "0",
            "APPLICATION_COMMAND_TOO_LARGE",
        ),
        (
            slash(options=[OPTION | {"description_localizations": {"vi": "d", "de": "x" * 101}}]),
            "0.options.0.description_localizations.de",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (
            [{"name": "Look", "type": 3, "name_localizations": {"de": "x" * 33}}],
            "0.name_localizations.de",
            "BASE_TYPE_BAD_LENGTH",
        ),
        (
            slash(
                options=[
                    OPTION
                    | {
                        "name": f"o{n}",
                        "choices": [
                            {"name": "c", "value": "v", "name_localizations": {"de": "x" * 99}}
                        ]
                        * 25,
                    }
                    for n in range(4)
                ]
            ),
            "0",
            "APPLICATION_COMMAND_TOO_LARGE",
        ),
        ([SLASH, SLASH], "1.name", "APPLICATION_COMMANDS_DUPLICATE_NAME"),
        (
            [{"name": "Look", "type": 2, "description": "d"}],
            "0.description",
            "APPLICATION_COMMAND_CONTEXT_MENU_DESCRIPTION_INVALID",
        ),
    ]:
        status, answer, _ = await api("PUT", f"/applications/{sandbox.bot_id}/commands", commands)
        assert (status, answer["code"]) == (400, 50035), place
        found = answer["errors"]
        for step in place.split("."):
            found = found[step]
        assert found["_errors"][0]["code"] == code, place


async def test_a_bot_has_so_many_commands_of_a_type(sandbox, api):
    for kind, most in [(1, 100), (2, 5), (3, 5)]:
        path = f"/applications/{sandbox.bot_id}/commands"
        status, answer, _ = await api("PUT", path, many(most, kind))
        assert status == 200 and len(answer) == most, kind
        status, answer, _ = await api("PUT", path, many(most + 1, kind))
        assert (status, answer["code"]) == (400, 30032), kind
        assert len((await api("GET", path))[1]) == most, kind


async def test_commands_of_different_types_may_share_a_name_and_keep_what_they_say(sandbox, api):
    commands = [
        SLASH | {"contexts": [0, 1], "integration_types": [0], "nsfw": True},
        {"name": "one", "type": 2},
        {"name": "Two Words", "type": 3},
    ]
    _, answer, _ = await api("PUT", f"/applications/{sandbox.bot_id}/commands", commands)
    kept = [(one["name"], one["contexts"], one["integration_types"], one["nsfw"]) for one in answer]
    assert kept == [
        ("one", [0, 1], [0], True),
        ("one", None, [0, 1], False),  # what the portal offers
        ("Two Words", None, [0, 1], False),
    ]
