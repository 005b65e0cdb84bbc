"""Discord's limits on payload fields, and their errors. Source: the field tables of Discord's API documentation."""

from collections.abc import Iterator

from bot.sandbox.sandbox_errors import ApiError, Json

FieldLimits = tuple[tuple[str, int], ...]
"""Maximum characters or items by the path of a field (`[]` stands for each item of a list)."""

MESSAGE: FieldLimits = (
    ("content", 2000),
    ("nonce", 25),
    ("username", 80),
    ("embeds", 10),
    ("embeds[].title", 256),
    ("embeds[].description", 4096),
    ("embeds[].fields", 25),
    ("embeds[].fields[].name", 256),
    ("embeds[].fields[].value", 1024),
    ("embeds[].footer.text", 2048),
    ("embeds[].author.name", 256),
    ("components", 5),
    ("components[].components", 5),
    ("components[].components[].label", 80),
    ("components[].components[].custom_id", 100),
    ("components[].components[].placeholder", 150),
    ("components[].components[].options", 25),
)
THREAD: FieldLimits = (("name", 100),)
MODAL: FieldLimits = (("title", 45), ("custom_id", 100), ("components", 5))
CHOICES: FieldLimits = (("choices", 25), ("choices[].name", 100))
COMMANDS: FieldLimits = tuple(
    (f"[].{'options[].' * depth}{field}", most)
    for depth in range(4)
    for field, most in (
        ("name", 32),
        ("description", 100),
        ("options", 25),
        ("choices", 25),
        ("choices[].name", 100),
        ("choices[].value", 100),
    )
)

FieldPath = tuple[str, ...]


def check_limits(body: object, rules: FieldLimits) -> None:
    """Raise ApiError 50035, with Discord's tree of errors, if a field is too long."""
    errors: Json = {}
    for path, most in rules:
        for place, value in _find_fields(body, path.replace("[]", ".[]").strip(".").split("."), ()):
            if isinstance(value, str | list) and len(value) > most:
                _add_error(errors, place, f"Must be {most} or fewer in length.")
    if errors:
        raise ApiError(50035, errors)


def check_message(body: Json) -> None:
    """Check the limits of a message, and that custom_ids are unique."""
    check_limits(body, MESSAGE)
    seen: set[str] = set()
    for place, custom_id in _find_fields(body, ["components", "[]", "components", "[]", "custom_id"], ()):
        if str(custom_id) in seen:
            words = "Component custom id cannot be duplicated"
            raise ApiError.field(".".join(place), "COMPONENT_CUSTOM_ID_DUPLICATED", words)
        seen.add(str(custom_id))


def _find_fields(node: object, path: list[str], place: FieldPath) -> Iterator[tuple[FieldPath, object]]:
    if not path:
        yield place, node
    elif path[0] == "[]" and isinstance(node, list):
        for index, item in enumerate(node):
            yield from _find_fields(item, path[1:], (*place, str(index)))
    elif isinstance(node, dict) and path[0] in node:
        yield from _find_fields(node[path[0]], path[1:], (*place, path[0]))


def _add_error(errors: Json, place: FieldPath, words: str) -> None:
    for step in place:
        errors = errors.setdefault(step, {})
    errors["_errors"] = [{"code": "BASE_TYPE_MAX_LENGTH", "message": words}]
