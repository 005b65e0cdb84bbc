"""The texts of templates in the language of the page: `{% trans %}` and `_()`.

Translations are data: they are escaped. Only the HTML tags of the English text, which stand in the
template, are tags in the translation, too.
"""

import re
from collections.abc import Callable, Mapping
from typing import Self

from markupsafe import Markup, escape

from bot.platform.localisation import (
    SOURCE_LANGUAGE,
    Language,
    localise,
    translate,
    translate_number,
)
from personas.cli_common import commands_as_typed

TAG_PATTERN = re.compile(r"</?[a-z][^<>]*>")
"""A tag in the English text of a template."""


class LocalisableMarkup(Markup):
    """Markup with texts, such as a chart, in a language that is chosen when it is shown."""

    _draw: Callable[[Language], Markup] | None = None

    @classmethod
    def drawn_by(cls, draw: Callable[[Language], Markup]) -> Self:
        """Return what `draw` gives in a language. Strings that are made of it stay English."""
        markup = cls(draw(SOURCE_LANGUAGE))
        markup._draw = draw
        return markup

    def in_language(self, language: Language) -> Markup:
        """Return the markup with its texts in a language."""
        # It is in English already.
        if self._draw is None or language == SOURCE_LANGUAGE:
            return self
        return self._draw(language)


class PageTexts:
    """Jinja's functions for texts, in one language. Gaps are `%(name)s`, as Jinja writes them."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def gettext(self, source: str, /, **values: object) -> Markup:
        """Return a text with its gaps filled. `source` is a literal of a template: its tags are
        trusted.
        """
        return self._fill(translate(source, self.language), source, values)

    def ngettext(self, source: str, plural: str, num: int, /, **values: object) -> Markup:
        """Return a text in the form that a number takes."""
        text = translate_number(source, plural, num, self.language)
        return self._fill(text, source + plural, {"num": num, **values})

    def finalize(self, value: object) -> object:
        """Return what an expression of a template shows."""
        if isinstance(value, LocalisableMarkup):
            return value.in_language(self.language)
        return localise(value, self.language) if isinstance(value, str) else value

    def _fill(self, text: str, source: str, values: Mapping[str, object]) -> Markup:
        shown = commands_as_typed(str(escape(text)))
        for tag in set(TAG_PATTERN.findall(source)):
            shown = shown.replace(str(escape(tag)), tag)
        localised = {name: self.finalize(value) for name, value in values.items()}
        # Each value is escaped as it is inserted.
        return Markup(shown) % localised  # nosec B704
