"""The languages of texts that members see, and their translations in gettext catalogues
(docs/translating.md).

Texts are marked where they stand in the code, in English; the catalogues in `bot/locale` have them
in the other languages.
"""

import gettext
import string
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

import discord

from personas.cli_common import commands_as_typed
from personas.gettext_marker import MarkedText
from personas.gettext_marker import gettext_noop as gettext_noop

Language = Literal["en", "vi", "de", "es", "zh_Hans"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
SOURCE_LANGUAGE: Language = "en"
"""The language of the texts in the code."""
TRANSLATED_LANGUAGES = tuple(each for each in LANGUAGES if each != SOURCE_LANGUAGE)
LANGUAGE_OF_LOCALE: Mapping[discord.Locale, Language] = {
    discord.Locale.vietnamese: "vi",
    discord.Locale.german: "de",
    discord.Locale.spain_spanish: "es",
    discord.Locale.latin_american_spanish: "es",
    discord.Locale.chinese: "zh_Hans",
}
"""The languages of Discord's locales; the others are English. Traditional Chinese is not read as
simplified (CLDR's parentLocales: zh_Hant falls back to the root).
"""
COMMA_LANGUAGES = ("vi", "de", "es")
COMMA_AND_SPACE = str.maketrans({",": "\N{NARROW NO-BREAK SPACE}", ".": ","})
FULL_WIDTH_MARKS = ("。", "，", "；", "：", "！", "？", "）", "”")
ENUMERATION_MARKS: Mapping[Language, str] = {"zh_Hans": "、"}
"""What separates the names of a list, where that is no comma."""
DOMAIN = "understudy"
CATALOGUE_FOLDER = Path(__file__).parents[2] / "locale"
MAX_KNOWN_MEMBERS = 10_000
_language: ContextVar[Language] = ContextVar("language", default=SOURCE_LANGUAGE)


def get_language() -> Language:
    """Return the language in which texts are written now: English where nobody has chosen one."""
    return _language.get()


def activate(language: Language) -> None:
    """Have the rest of the task write in a language, and the tasks that it creates from now on."""
    _language.set(language)


@contextmanager
def override(language: Language) -> Iterator[None]:
    """Write in a language inside the block."""
    before = get_language()
    activate(language)
    try:
        yield
    finally:
        # A token would have to be reset in the same task, and a reply's may end with the loop.
        activate(before)


def language_of(locale: discord.Locale) -> Language:
    """Return the language for one of Discord's locales: English for those without a catalogue."""
    return LANGUAGE_OF_LOCALE.get(locale, SOURCE_LANGUAGE)


class LocalisableText(str):
    """A text in English, which `localise` gives in another language. It is used like any text where
    the language does not matter, such as in a log.
    """

    _source: str
    _plural: str
    _count: int | None
    _values: Mapping[str, object]

    def __new__(
        cls,
        source: str,
        plural: str = "",
        count: int | None = None,
        values: Mapping[str, object] | None = None,
        *,
        english: str | None = None,
    ) -> Self:
        """`english` is what stands for the text in English, if that says more than `source`."""
        values = values or {}
        if english is None:
            english = _fill(source, SOURCE_LANGUAGE, values, plural=plural, count=count)
        text = super().__new__(cls, english)
        text._source = source
        text._plural = plural
        text._count = count
        text._values = values
        return text

    def __deepcopy__(self, memo: object) -> Self:
        """Return the text itself, as copies of plain texts are: neither changes."""
        return self

    def in_language(self, language: Language) -> str:
        """Return the text in a language."""
        if language == SOURCE_LANGUAGE:
            return str(self)
        return _fill(self._source, language, self._values, plural=self._plural, count=self._count)


class LocalisableValue(LocalisableText):
    """A number, a size or a time, which each language writes in its own way."""

    _write: Callable[[Language], str]

    def __new__(cls, write: Callable[[Language], str]) -> Self:
        text = super().__new__(cls, "", english=write(SOURCE_LANGUAGE))
        text._write = write
        return text

    def in_language(self, language: Language) -> str:
        """Return the value as the language writes it."""
        return self._write(language)


def localisable_number(text: str) -> LocalisableText:
    """A number in English, whose separators are those of the reader's language. That of thousands
    is a narrow space where the comma is that of decimals, so that none is taken for the other.
    """
    return LocalisableValue(lambda language: _write_number(text, language))


def _write_number(text: str, language: Language) -> str:
    return text.translate(COMMA_AND_SPACE) if language in COMMA_LANGUAGES else text


class _Formatter(string.Formatter):
    """Fills gaps as `str.format` does, with numbers as the language writes them."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        text = format(value, format_spec)
        return _write_number(text, self._language) if isinstance(value, int | float) else text


def gettext_lazy(source: str, /, **values: object) -> LocalisableText:
    """Return a marked text, whose language is chosen later. The `values` fill its gaps, also those
    of the translation; numbers, and those that are localisable themselves, are in the same
    language.
    """
    return LocalisableText(source, values=values)


def ngettext_lazy(source: str, plural: str, /, count: int, **values: object) -> LocalisableText:
    """Return a marked text in the form that a number takes, which fills the gap `count`."""
    values = {"count": count, **values}
    return LocalisableText(source, plural=plural, count=count, values=values)


def join_texts(*texts: str, separator: str = " ") -> LocalisableText:
    """Join texts; each is given in the language that is chosen later. No space follows a full-width
    punctuation mark, as of Chinese, which has its own.
    """

    def write(language: Language) -> str:
        joined = ""
        for number, text in enumerate(texts):
            shown = _in_language(text, language)
            is_spaced = separator == " " and joined.endswith(FULL_WIDTH_MARKS)
            if number and not is_spaced:
                joined += separator
            joined += shown
        return joined

    return LocalisableValue(write)


def join_names(names: Iterable[str]) -> LocalisableText:
    """List names, separated as the language does it."""
    listed = tuple(names)
    return LocalisableValue(
        lambda language: ENUMERATION_MARKS.get(language, ", ").join(
            _in_language(name, language) for name in listed
        )
    )


def localise(text: str) -> str:
    """Return a text in the present language (`get_language`). One that is not localisable, such as a
    member's, stays.
    """
    return _in_language(text, get_language())


def translate(source: str, **values: object) -> str:
    """Return a text that `gettext_noop` marks in the present language, with its gaps filled."""
    return _fill(source, get_language(), values)


def find_translation(source: str, language: Language) -> str | None:
    """Return the translation of a text, or None where it has none."""
    translation = _catalogue(language).gettext(source)
    return None if translation == source else translation


def _in_language(text: str, language: Language) -> str:
    if isinstance(text, MarkedText):
        return _fill(text.source, language, text.values)
    return text.in_language(language) if isinstance(text, LocalisableText) else text


def _fill(
    source: str,
    language: Language,
    values: Mapping[str, object],
    *,
    plural: str = "",
    count: int | None = None,
) -> str:
    catalogue = _catalogue(language)
    if count is None:
        # Of an empty text, gettext gives the catalogue's head.
        text = catalogue.gettext(source) if source else ""
    else:
        text = catalogue.ngettext(source, plural, count)
    text = commands_as_typed(text)
    localised: dict[str, Any] = {}
    for name, value in values.items():
        localised[name] = _in_language(value, language) if isinstance(value, str) else value
    return _Formatter(language).vformat(text, (), localised) if values else text


@cache
def _catalogue(language: Language) -> gettext.NullTranslations:
    if language == SOURCE_LANGUAGE:
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, CATALOGUE_FOLDER, [language])


@dataclass
class MemberLanguages:
    """The languages of members whose locale an interaction has told since the start. They are in
    memory alone: they are needed for direct messages, and are no reason to store something about
    members.
    """

    _known: OrderedDict[int, Language] = field(default_factory=OrderedDict)

    def note(self, user_id: int, locale: discord.Locale) -> None:
        """Remember the locale of a member's client."""
        self._known[user_id] = language_of(locale)
        self._known.move_to_end(user_id)
        if len(self._known) > MAX_KNOWN_MEMBERS:
            self._known.popitem(last=False)

    def of_channel(self, channel: object, user_id: int = 0) -> Language:
        """Return the language of what is posted in a channel: that of its server, or of the member
        in direct messages.
        """
        guild = getattr(channel, "guild", None)
        if isinstance(guild, discord.Guild):
            return language_of(guild.preferred_locale)
        recipient = getattr(channel, "recipient", None)
        if not user_id and recipient:
            user_id = recipient.id
        return self._known.get(user_id, SOURCE_LANGUAGE)


def interaction_language(
    interaction: discord.Interaction[Any], *, is_private: bool = True
) -> Language:
    """Return the language of a response: the member's own, for a public one in a server the
    server's.
    """
    if is_private or interaction.guild_locale is None:
        return language_of(interaction.locale)
    return language_of(interaction.guild_locale)
