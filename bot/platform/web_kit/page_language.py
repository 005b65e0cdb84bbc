"""Chooses the language of a page by the browser's Accept-Language (RFC 9110, section 12.5.4)."""

import re

from aiohttp import web

from bot.platform.localisation import SOURCE_LANGUAGE, Language

RANGE_PATTERN = re.compile(
    r"\s*([a-z]{1,8}(?:-[a-z0-9]{1,8})*|\*)\s*(?:;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?",
    re.IGNORECASE,
)
LANGUAGE_OF_TAG: dict[str, Language] = {"en": "en", "vi": "vi", "de": "de", "es": "es"}
"""By the first part of a tag: `es-MX` is Spanish, too."""
SIMPLIFIED = {"hans", "cn", "sg", "my"}
"""Scripts and regions of simplified Chinese; the others write traditional characters."""


def request_language(request: web.Request) -> Language:
    """Return the language of the page that answers a request."""
    return choose_language(request.headers.get("Accept-Language", ""))


def choose_language(accepted: str) -> Language:
    """Return the language that an Accept-Language header prefers; English if it names none that
    there is.
    """
    tags = _preferred_tags(accepted)
    # Browsers add `zh` to `zh-TW` themselves: it does not ask for simplified characters then.
    is_traditional = any(
        tag[0] == "zh" and len(tag) > 1 and not _is_simplified(tag) for tag in tags
    )
    for tag in tags:
        if tag[0] == "zh":
            if _is_simplified(tag) or (len(tag) == 1 and not is_traditional):
                return "zh_Hans"
        elif tag[0] in LANGUAGE_OF_TAG:
            return LANGUAGE_OF_TAG[tag[0]]
    return SOURCE_LANGUAGE


def language_tag(language: Language) -> str:
    """Return a language as HTML and HTTP name it: `zh-Hans`."""
    return language.replace("_", "-")


def _is_simplified(tag: list[str]) -> bool:
    return "hant" not in tag and not SIMPLIFIED.isdisjoint(tag[1:])


def _preferred_tags(accepted: str) -> list[list[str]]:
    """The parts of each tag, most preferred first; those of quality 0 and unreadable ones are left
    out.
    """
    tags: list[tuple[float, list[str]]] = []
    for part in accepted.split(","):
        match = RANGE_PATTERN.fullmatch(part)
        quality = float(match[2] or 1) if match else 0.0
        if match and quality:
            tags.append((quality, match[1].lower().split("-")))
    tags.sort(key=lambda each: -each[0])
    return [parts for _, parts in tags]
