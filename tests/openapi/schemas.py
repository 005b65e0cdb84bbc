"""Discord's schemas as they are compared with: closed; for requests loosened where Discord reads
more than it says.
"""

from collections.abc import Callable
from typing import Any

from tests.openapi.description import Json

SCHEMAS = "#/components/schemas/"
DIGITS = {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"}
Change = Callable[[Json], Json]

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
TRUTH = {"type": "boolean"}

ANSWERED_TOO: dict[str, dict[str, Json]] = {
    # Discord's reference ("Error Messages") shows words here, such as BASE_TYPE_REQUIRED; the
    # schema says numbers.
    "InnerErrors": {"_errors": {"type": "array", "items": {"$ref": f"{SCHEMAS}FieldError"}}},
    # Left undescribed on purpose, as Discord may change them (discord-api-docs, pull requests 6734
    # and 7383).
    "ApplicationCommandInteractionMetadataResponse": {"name": TEXT, "command_type": NUMBER},
    # Discord's reference ("Message Reference Types") has 1 for a forward; the schema knows replies
    # alone.
    "MessageReferenceResponse": {"type": NUMBER},
}
"""What Discord answers although it does not say so: schema → field → what it is."""

MAY_LACK: dict[str, tuple[str, ...]] = {
    # Discord's reference ("Rate Limits"): "an error code for some limits".
    "RatelimitedResponse": ("code",),
}
"""What Discord leaves out of answers although it says that it is always there: schema → fields."""

FIELD_ERROR: Json = {
    "type": "object",
    "properties": {"code": TEXT, "message": TEXT},
    "required": ["code", "message"],
}

SENT_TOO: dict[str, dict[str, Json]] = {
    # In Discord's reference ("Create Global Application Command"), not in the schema.
    "ApplicationCommandUpdateRequest": {"nsfw": TRUTH},
    # discord.py sends these with every edit and every embed; Discord passes over them.
    "MessageEditRequestPartial": {"tts": TRUTH},
    "IncomingWebhookUpdateRequestPartial": {"tts": TRUTH},
    "IncomingWebhookUpdateForInteractionCallbackRequestPartial": {"tts": TRUTH},
    "RichEmbed": {"flags": NUMBER},
}
"""What discord.py 2.7.1 sends and Discord takes although it does not say so: schema → field → what
it is.
"""


class Schemas:
    """The component schemas of one direction, and any other schema made to go with them."""

    def __init__(self, components: dict[str, Json], *, sent: bool) -> None:
        self._said = components
        more = SENT_TOO if sent else ANSWERED_TOO
        self.components = {
            name: self.made(one) for name, one in {**components, "FieldError": FIELD_ERROR}.items()
        }
        for name, fields in more.items():
            self.components[name]["properties"].update(fields)
        for name, lacking in ({} if sent else MAY_LACK).items():
            schema = self.components[name]
            schema["required"] = [field for field in schema["required"] if field not in lacking]
        if sent:
            # discord.py sends some ids as numbers.
            self.components["SnowflakeType"] = {
                "anyOf": [DIGITS, {"type": "integer", "minimum": 0}]
            }

    def made(self, schema: Json) -> Json:
        """The schema, and all within it, without room for fields that are not described."""
        made = dict(schema)
        for key, change in WITHIN.items():
            if key in made:
                made[key] = change(made[key], self.made)
        if "oneOf" in made:
            # Discord means "any of": the branches overlap.
            made["anyOf"] = made.pop("oneOf")
        parts = [self._resolved(part) for part in made.get("allOf", ())]
        if any("properties" in part for part in parts):
            made = _joined(parts)
        if "properties" in made:
            # Discord's own schemas are open and let every misspelt field pass.
            made.setdefault("additionalProperties", False)
        return made

    def _resolved(self, schema: Json) -> Json:
        return self._said[schema["$ref"].removeprefix(SCHEMAS)] if "$ref" in schema else schema


def _change_map(schemas: dict[str, Json], change: Change) -> dict[str, Json]:
    return {name: change(one) for name, one in schemas.items()}


def _change_list(schemas: list[Json], change: Change) -> list[Json]:
    return [change(one) for one in schemas]


def _change_one(schema: Json | bool, change: Change) -> Json | bool:
    return schema if isinstance(schema, bool) else change(schema)


WITHIN: dict[str, Callable[[Any, Change], Any]] = {
    "properties": _change_map,
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), _change_list),
    **dict.fromkeys(("items", "additionalProperties"), _change_one),
}
"""The keywords whose values are schemas."""


def _joined(parts: list[Json]) -> Json:
    """One object for several that are to hold at once: closed, each of them would forbid the
    others' fields.
    """
    made: Json = {"type": "object", "properties": {}, "required": []}
    for part in parts:
        made["properties"] |= part.get("properties", {})
        made["required"] += part.get("required", [])
    return made
