"""Brings the catalogues of translations up to date with the marked texts in the code, and compiles
them (`make catalogues`).

The bot reads compiled catalogues with Python's own gettext. `hatch_build.py` compiles them, also at
set-up and for a wheel.
"""

import io
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from bot.platform.localisation import (
    CATALOGUE_FOLDER,
    DOMAIN,
    TRANSLATED_LANGUAGES,
    Language,
)
from hatch_build import compile_catalogue
from personas.home.atomic_files import write_file

PACKAGES = (CATALOGUE_FOLDER.parent, CATALOGUE_FOLDER.parents[1] / "personas")
METHODS = [
    ("**.py", "python"),
    ("**/published_datasets.toml", "tools.catalogues:extract_published_facts"),
]
KEYWORDS = {
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext_lazy": (1, 2),
}
"""The functions of `bot.platform.localisation` that mark texts."""
PUBLISHED_FACTS = ("good_for", "not_for")
PROJECT = "Understudy"
TRANSLATORS = "Understudy contributors"
LINE_CHARS = 100


def extract_messages() -> Catalog:
    """Return the marked texts of the code, without translations, each with the features that have it.

    By feature and then by text: a text that moves to another file of its feature stays where it is.
    """
    found = []
    for package in PACKAGES:
        for name, _, message, comments, context in extract_from_dir(
            package,
            METHODS,
            keywords=KEYWORDS,
            comment_tags=["Translators:"],
        ):
            feature = f"{package.name}/{Path(name).parts[0]}"
            found.append((feature, message, comments, context))
    found.sort(key=lambda each: (each[0], str(each[1])))
    catalogue = Catalog(domain=DOMAIN, charset="utf-8")
    for feature, message, comments, context in found:
        catalogue.add(message, locations=[(feature, 0)], auto_comments=comments, context=context)
    return catalogue


def extract_published_facts(
    file: BinaryIO, keywords: object, comment_tags: object, options: object
) -> Iterator[tuple[int, None, str, list[str]]]:
    """Yield the facts about published data sets, as Babel's extraction methods do."""
    for facts in tomllib.load(file).values():
        for name in PUBLISHED_FACTS:
            yield 0, None, facts[name], []


def catalogue_path(language: Language) -> Path:
    """Return the path of a language's translations."""
    return CATALOGUE_FOLDER / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def read_catalogue(language: Language) -> Catalog:
    """Read a language's translations; none where the language is new."""
    path = catalogue_path(language)
    if not path.exists():
        return Catalog(
            locale=language,
            domain=DOMAIN,
            project=PROJECT,
            version="1",
            header_comment=f"# Translations of {PROJECT} (docs/translating.md).",
            msgid_bugs_address="CONTRIBUTING.md",
            last_translator=TRANSLATORS,
            language_team=TRANSLATORS,
            revision_date=datetime.now(UTC),
            charset="utf-8",
            fuzzy=False,
        )
    with path.open("rb") as file:
        return read_po(file, locale=language, domain=DOMAIN, abort_invalid=True)


def update_catalogue(language: Language, template: Catalog) -> Catalog:
    """Write a language's translations for the texts of the code, compiled, too. Those of texts that
    are gone are left out.
    """
    catalogue = read_catalogue(language)
    catalogue.update(template, no_fuzzy_matching=True, update_creation_date=False)
    catalogue.obsolete.clear()
    path = catalogue_path(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.BytesIO()
    write_po(text, catalogue, width=LINE_CHARS, sort_by_file=True, include_lineno=False)
    write_file(path, text.getvalue())
    write_file(path.with_suffix(".mo"), compile_catalogue(catalogue))
    return catalogue


def main() -> int:
    """Update all catalogues, and say how many texts each still has to translate."""
    template = extract_messages()
    for language in TRANSLATED_LANGUAGES:
        catalogue = update_catalogue(language, template)
        missing = [text for text in catalogue if text.id and not all(_strings(text.string))]
        print(f"{language}: {len(catalogue)} texts, {len(missing)} without a translation")
    return 0


def _strings(string: str | tuple[str, ...] | list[str] | None) -> tuple[str | None, ...]:
    return (string,) if isinstance(string, str) or string is None else tuple(string)


if __name__ == "__main__":
    sys.exit(main())
