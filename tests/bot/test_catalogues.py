"""The catalogues of translations: complete, up to date, with the gaps and the markup of their texts,
and within Discord's limits.
"""

import gettext
import re
import string
from functools import cache

import pytest

from bot.chat.discord_buttons import ASK_HELP
from bot.chat.reply_text import MAX_FOOTER_CHARS, add_below, reply_footer
from bot.client import PERSISTENT_ITEMS
from bot.dialogue.dialogue import DEFAULT_TURNS
from bot.lessons.discord import INSTEAD_LABEL, PROMPT_LABEL, REPLY_LABEL
from bot.platform.discord_kit.command_translator import CommandTranslator
from bot.platform.discord_kit.ui import CHOOSE_PERSONA_TEXT
from bot.platform.localisation import (
    DOMAIN,
    LANGUAGES,
    TRANSLATED_LANGUAGES,
    gettext_lazy,
    join_texts,
    ngettext_lazy,
    override,
)
from bot.privacy.discord import PRIVACY_BUTTONS
from bot.privacy.texts import TEXTS
from bot.reports.actions import REASONS
from bot.safety.actions import DISCLOSURE_LINES
from hatch_build import compile_catalogue
from personas.schemas.chat import ChatReply
from tests.bot.languages import localised
from tools.catalogues import catalogue_path, extract_messages, read_catalogue

MAX_BUTTON_CHARS = 80
MAX_FIELD_LABEL_CHARS = 45
MAX_COMMAND_DESCRIPTION_CHARS = 100
MAX_COMMAND_CHARS = 8000
"""Characters of a command with its subcommands, options and choices."""
MAX_MENU_NAME_CHARS = 32
MAX_OPTION_CHARS = 100
MAX_TEXT_CHARS = 1900
"""Characters of a message of 2,000, without what fills its gaps."""
MARKUP_PATTERN = re.compile(r"`[^`]*`|<t:\{\w+\}:\w>|\*\*|\n|^-# |^• ")
"""Markup of Discord."""

every_language = pytest.mark.parametrize("language", LANGUAGES)
every_translation = pytest.mark.parametrize("language", TRANSLATED_LANGUAGES)


@cache
def texts_of_the_code():
    return extract_messages()


def entries(catalogue):
    """Each text with its translations, in the forms of the language."""
    for message in catalogue:
        if message.id:
            sources = message.id if isinstance(message.id, tuple) else (message.id,)
            strings = message.string if isinstance(message.string, tuple) else (message.string,)
            yield sources, strings


def gaps(text):
    return sorted(
        (name, spec) for _, name, spec, _ in string.Formatter().parse(text) if name is not None
    )


@every_translation
def test_a_catalogue_has_the_texts_of_the_code_and_no_others(language):
    in_code = {message.id for message in texts_of_the_code() if message.id}
    in_catalogue = {message.id for message in read_catalogue(language) if message.id}
    assert in_catalogue == in_code, "run make catalogues, and translate what is new"
    assert len(in_code) > 200


@every_translation
def test_every_text_is_translated_in_all_forms(language):
    catalogue = read_catalogue(language)
    for message in catalogue:
        assert not message.fuzzy, message.id
    for sources, strings in entries(catalogue):
        assert all(text and text.strip() for text in strings), sources
        assert len(strings) == (catalogue.num_plurals if len(sources) > 1 else 1), sources


@every_translation
def test_translations_have_the_gaps_and_the_markup_of_their_texts(language):
    for sources, strings in entries(read_catalogue(language)):
        for text in strings:
            # A form for one thing may do without the number: "once".
            assert gaps(text) in [gaps(source) for source in sources], text
            expected = sorted(MARKUP_PATTERN.findall(sources[0]))
            assert sorted(MARKUP_PATTERN.findall(text)) == expected, text


@every_translation
def test_the_compiled_catalogue_is_that_of_the_translations(language):
    path = catalogue_path(language)
    compiled = path.with_suffix(".mo").read_bytes()
    assert compiled == compile_catalogue(read_catalogue(language)), "run make catalogues"
    loaded = gettext.translation(DOMAIN, path.parents[2], [language])
    for (source, *_), (text, *_) in entries(read_catalogue(language)):
        if source != text:
            assert text in (loaded.gettext(source), loaded.ngettext(source, source, 1)), source


@every_language
def test_every_text_has_room_in_a_message(language):
    if language == "en":
        texts = [text for sources, _ in entries(texts_of_the_code()) for text in sources]
    else:
        texts = [text for _, strings in entries(read_catalogue(language)) for text in strings]
    assert max(map(len, texts)) <= MAX_TEXT_CHARS


@every_language
def test_buttons_menus_and_forms_keep_discords_limits(language):
    for item in PERSISTENT_ITEMS:
        label = localised(getattr(item, "label", ""), language)
        assert len(label) <= MAX_BUTTON_CHARS, label
    for button in PRIVACY_BUTTONS:
        label = localised(gettext_lazy(TEXTS[button.label_key]), language)
        assert len(label) <= MAX_BUTTON_CHARS, label
    for label in (ASK_HELP, PROMPT_LABEL, REPLY_LABEL, INSTEAD_LABEL, "What it should remember"):
        assert len(localised(gettext_lazy(label), language)) <= MAX_FIELD_LABEL_CHARS, label
    for reason in (*REASONS.values(), CHOOSE_PERSONA_TEXT):
        assert len(localised(reason, language)) <= MAX_OPTION_CHARS, reason


def command_chars(shape):
    """The size of a command as Discord counts it: of each text, its longest translation."""
    names = [shape["name"], *(shape.get("name_localizations") or {}).values()]
    texts = [shape.get("description", ""), *(shape.get("description_localizations") or {}).values()]
    value = str(shape.get("value", ""))
    parts = [*shape.get("options", ()), *shape.get("choices", ())]
    own = max(map(len, names)) + max(map(len, texts)) + len(value)
    return own + sum(map(command_chars, parts))


async def test_commands_keep_discords_limits_in_all_languages(stage):
    tree = stage.client.tree
    count = 0

    def check(shape):
        nonlocal count
        is_menu = "description" not in shape
        texts = shape.get("description_localizations") or {}
        for text in (shape.get("description", ""), *texts.values()):
            assert len(text) <= MAX_COMMAND_DESCRIPTION_CHARS, text
        names = shape.get("name_localizations") or {}
        assert is_menu or not names, "the names of slash commands stay"
        assert all(len(name) <= MAX_MENU_NAME_CHARS for name in names.values()), names
        assert len(texts or names) == 5, f"in all locales of the catalogues: {shape}"
        count += 1
        for choice in shape.get("choices", ()):
            texts = choice.get("name_localizations") or {}
            assert all(len(text) <= MAX_OPTION_CHARS for text in texts.values()), texts
        for option in shape.get("options", ()):
            check(option)

    for command in tree.get_commands():
        shape = await command.get_translated_payload(tree, CommandTranslator())
        check(shape)
        assert command_chars(shape) <= MAX_COMMAND_CHARS, shape["name"]
    assert count > 150
    shape = await tree.get_command("persona").get_translated_payload(tree, CommandTranslator())
    (duet,) = [each for each in shape["options"] if each["name"] == "duet"]
    assert f"({DEFAULT_TURNS} if left out)" in duet["options"][2]["description"]


@every_language
def test_a_footer_and_the_line_below_it_have_their_place(language):
    reply = ChatReply("hello", "v1", 7, 1, 1, "length", candidates=8)
    with override(language):
        footer = reply_footer(reply, "v" * 300)
    for line in DISCLOSURE_LINES:
        whole = add_below(footer, line)
        assert whole.endswith(line) and len(whole) <= MAX_FOOTER_CHARS


def test_an_empty_text_is_empty_in_all_languages():
    assert join_texts().in_language("de") == ""


def test_a_text_is_english_until_its_language_is_chosen():
    other = gettext_lazy("the base model")
    text = gettext_lazy("Known: {names}.", names=other)
    assert text == "Known: the base model." and isinstance(text, str)
    assert localised(text, "de") == "Bekannt: das Basismodell."
    assert localised(join_texts(text, "{left as it is}"), "de") == (
        "Bekannt: das Basismodell. {left as it is}"
    )
    assert localised("a member's own {words}", "de") == "a member's own {words}"


@pytest.mark.parametrize(
    ("count", "english", "german", "chinese"),
    [
        (1, "1 thing", "1 Sache", "1 件事"),
        (2, "2 things", "2 Dinge", "2 件事"),
    ],
)
def test_a_number_takes_the_form_of_the_language(count, english, german, chinese):
    text = ngettext_lazy(
        "**{persona}** remembers {count} thing for you here.",
        "**{persona}** remembers {count} things for you here.",
        count,
        persona="Oda {x}",
    )
    assert english in text and "Oda {x}" in text
    assert german in localised(text, "de") and chinese in localised(text, "zh_Hans")


def test_numbers_in_the_gaps_of_a_text_are_written_as_the_language_does():
    text = gettext_lazy("{phase}, {count:,} of {wanted:,}", phase="v1.5", count=1734, wanted=2000)
    assert text == "v1.5, 1,734 of 2,000" and localised(text, "zh_Hans").count(",") == 2
    assert localised(text, "de") == "v1.5, 1\u202f734 von 2\u202f000"
    wait = gettext_lazy("wait {seconds:g} s", seconds=2.5)
    assert wait == "wait 2.5 s" and "2,5" in localised(wait, "vi")
    loss = gettext_lazy("{base:.3f} → {share:.0%}", base=2.345, share=0.5)
    assert localised(loss, "es") == "2,345 → 50%"
