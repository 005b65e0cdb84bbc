"""Components of messages: what Discord takes, with and without Components V2, and how it returns
them.

Sources: Discord's reference ("Component Reference"), and its description of the HTTP API.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import cast

from sandbox.sandbox_errors import ApiError, Json

IS_COMPONENTS_V2 = 1 << 15
"""The flag of a message that is laid out with components alone; it is never taken off again."""
MAX_COMPONENTS = 40
"""Components of such a message, nested ones too."""
MAX_TEXT_CHARACTERS = 4000
"""Of all its text displays together."""
MAX_ROWS = 5
"""Action rows of any other message."""
LEGACY_FIELDS = ("content", "embeds", "poll", "sticker_ids")
"""What a message with the flag must not have."""

ACTION_ROW = 1
BUTTON = 2
SELECTS = (3, 5, 6, 7, 8)
SECTION = 9
TEXT_DISPLAY = 10
THUMBNAIL = 11
MEDIA_GALLERY = 12
FILE = 13
SEPARATOR = 14
CONTAINER = 17
IN_CONTAINER = (ACTION_ROW, SECTION, TEXT_DISPLAY, MEDIA_GALLERY, FILE, SEPARATOR)
NESTED_TYPES: dict[int, dict[str, tuple[int, ...]]] = {
    ACTION_ROW: {"components": (BUTTON, *SELECTS)},
    SECTION: {"components": (TEXT_DISPLAY,), "accessory": (BUTTON, THUMBNAIL)},
    CONTAINER: {"components": IN_CONTAINER},
}
"""The types that a component may have in each of its fields; others have none."""
MAX_LENGTHS: dict[int, dict[str, int]] = {
    ACTION_ROW: {"components": 5},
    SECTION: {"components": 3},
    CONTAINER: {"components": MAX_COMPONENTS},
    TEXT_DISPLAY: {"content": MAX_TEXT_CHARACTERS},
    THUMBNAIL: {"description": 1024},
    MEDIA_GALLERY: {"items": 10},
    BUTTON: {"label": 80, "custom_id": 100, "url": 512},
    **{kind: {"custom_id": 100, "placeholder": 150, "options": 25} for kind in SELECTS},
}
REQUIRED: dict[int, tuple[str, ...]] = {
    ACTION_ROW: ("components",),
    SECTION: ("components", "accessory"),
    CONTAINER: ("components",),
    TEXT_DISPLAY: ("content",),
    THUMBNAIL: ("media",),
    MEDIA_GALLERY: ("items",),
    FILE: ("file",),
}
"""Fields that are neither absent nor empty."""
ATTACHMENT_SCHEME = "attachment://"
ResolveMedia = Callable[[str, str], Json]
"""Returns Discord's object for a picture or file by its address and the path of its field."""


def check_components(components: Sequence[Json], *, is_v2: bool) -> None:
    """Raise ApiError 50035 for the first component that Discord does not take."""
    top_types = (*IN_CONTAINER, CONTAINER) if is_v2 else (ACTION_ROW,)
    _check_length("components", components, MAX_COMPONENTS if is_v2 else MAX_ROWS)
    found: list[Json] = []
    custom_ids: set[str] = set()
    for index, top in enumerate(components):
        for path, component in _walk(f"components.{index}", top, top_types):
            _check_fields(path, component)
            custom_id = component.get("custom_id")
            if custom_id in custom_ids:
                message = "Component custom id cannot be duplicated"
                code = "COMPONENT_CUSTOM_ID_DUPLICATED"
                raise ApiError.field(f"{path}.custom_id", code, message)
            if custom_id is not None:
                custom_ids.add(custom_id)
            found.append(component)
    if is_v2:
        _check_totals(found)


def _walk(path: str, component: Json, allowed: Sequence[int]) -> Iterator[tuple[str, Json]]:
    """Yield a component and all within it, with their paths. Raises ApiError for a type that is not
    allowed at its place.
    """
    if component.get("type") not in allowed:
        listed = ", ".join(map(str, allowed))
        message = f'Value of field "type" must be one of ({listed},).'
        raise ApiError.field(f"{path}.type", "UNION_TYPE_CHOICES", message)
    yield path, component
    for field, types in NESTED_TYPES.get(component["type"], {}).items():
        nested = component.get(field)
        if isinstance(nested, list):
            for index, child in enumerate(nested):
                yield from _walk(f"{path}.{field}.{index}", child, types)
        elif nested is not None:
            yield from _walk(f"{path}.{field}", nested, types)


def _check_fields(path: str, component: Json) -> None:
    kind = component["type"]
    for field in REQUIRED.get(kind, ()):
        if not component.get(field):
            raise ApiError.field(f"{path}.{field}", "BASE_TYPE_REQUIRED", "This field is required")
    for field, most in MAX_LENGTHS.get(kind, {}).items():
        _check_length(f"{path}.{field}", component.get(field), most)


def _check_length(path: str, value: object, most: int) -> None:
    if isinstance(value, str | list) and len(value) > most:
        message = f"Must be {most} or fewer in length."
        raise ApiError.field(path, "BASE_TYPE_MAX_LENGTH", message)


def _check_totals(found: Sequence[Json]) -> None:
    if len(found) > MAX_COMPONENTS:
        message = f"The total number of components cannot exceed {MAX_COMPONENTS}."
        raise ApiError.field("components", "COMPONENT_MAX_TOTAL_COMPONENTS_EXCEEDED", message)
    texts = [str(component["content"]) for component in found if component["type"] == TEXT_DISPLAY]
    if sum(map(len, texts)) > MAX_TEXT_CHARACTERS:
        message = (
            "The total displayable text size of all components exceeds the maximum of "
            f"{MAX_TEXT_CHARACTERS}."
        )
        raise ApiError.field("components", "COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED", message)


def check_legacy_fields(message: Json) -> None:
    """Raise ApiError 50035 if a message with the flag has anything beside its components."""
    for field in LEGACY_FIELDS:
        if message.get(field):
            text = f"The '{field}' field cannot be used when using MessageFlags.IS_COMPONENTS_V2"
            code = "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2"
            raise ApiError.field(field, code, text)


def all_components(components: Sequence[Json]) -> Iterator[Json]:
    """Yield components and all within them, in the order in which they are shown."""
    for component in components:
        yield component
        yield from all_components(component.get("components") or ())
        if accessory := component.get("accessory"):
            yield accessory


def shown_text(components: Sequence[Json]) -> str:
    """Return the text of the text displays, a paragraph each."""
    texts = []
    for component in all_components(components):
        if component["type"] == TEXT_DISPLAY:
            texts.append(str(component["content"]))
    return "\n".join(texts)


def message_text(message: Json) -> str:
    """Return a message's text: its content, or that of its layout."""
    return message.get("content") or shown_text(message.get("components") or ())


def media_of(components: Sequence[Json]) -> Iterator[Json]:
    """Yield the objects of all pictures and files."""
    for component in all_components(components):
        for holder in (component, *component.get("items", ())):
            for field in ("media", "file"):
                if field in holder:
                    yield holder[field]


def without_controls(components: Sequence[Json]) -> list[Json]:
    """Return components as a forward shows them: without buttons and menus."""
    kept: list[Json] = []
    for component in components:
        accessory = component.get("accessory") or {}
        if accessory.get("type") == BUTTON:
            kept += component["components"]
        elif component["type"] == CONTAINER:
            kept.append(component | {"components": without_controls(component["components"])})
        elif component["type"] != ACTION_ROW:
            kept.append(component)
    return kept


def as_returned(sent: Sequence[Json], resolve: ResolveMedia) -> list[Json]:
    """Build components as Discord returns them: with ids and defaults, and `resolve`d media."""
    used = {component.get("id") for component in all_components(sent)}
    numbers = (number for number in count(1) if number not in used)

    def returned(path: str, component: Json) -> Json:
        result = {**_defaults(component["type"]), **component}
        result["id"] = component.get("id") or next(numbers)
        result.update(_media(path, component, resolve))
        if "components" in component:
            result["components"] = [
                returned(f"{path}.components.{index}", child)
                for index, child in enumerate(component["components"])
            ]
        if "accessory" in component:
            result["accessory"] = returned(f"{path}.accessory", component["accessory"])
        if component["type"] in SELECTS:
            # For forms only, but discord.py sends it with every select menu.
            result.pop("required", None)
        return result

    return [returned(f"components.{index}", component) for index, component in enumerate(sent)]


def _defaults(kind: int) -> Json:
    """Return the fields that Discord adds where they were not sent."""
    if kind in SELECTS:
        return {"min_values": 1, "max_values": 1}
    return cast(
        Json,
        {
            CONTAINER: {"accent_color": None, "spoiler": False},
            THUMBNAIL: {"description": None, "spoiler": False},
            FILE: {"name": None, "size": None, "spoiler": False},
            SEPARATOR: {"spacing": 1, "divider": True},
        }.get(kind, {}),
    )


def _media(path: str, component: Json, resolve: ResolveMedia) -> Json:
    """Return the media fields of a component, resolved."""
    fields: Json = {}
    if "media" in component:
        fields["media"] = resolve(component["media"]["url"], f"{path}.media.url")
    if "file" in component:
        fields["file"] = resolve(component["file"]["url"], f"{path}.file.url")
        fields["name"] = fields["file"]["url"].rpartition("/")[2]
    if "items" in component:
        items = []
        for index, item in enumerate(component["items"]):
            media = resolve(item["media"]["url"], f"{path}.items.{index}.media.url")
            items.append({"description": None, "spoiler": False, **item, "media": media})
        fields["items"] = items
    return fields
