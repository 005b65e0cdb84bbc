"""Words of chats: laughter, and the names by which people call a persona
(`data/languages/chat.toml`).
"""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache

import regex

from bot.platform.chat_language import chat_words, is_common_word
from personas.schemas.chat import Persona, fold_name
from personas.schemas.scripts import HANGUL, SPACELESS_SCRIPTS, WORD_SIGNS

MIN_NAME_CHARS = 2
"""Shorter words of a longer name call nobody."""
MARKUP = regex.compile(
    r"<(?:@[!&]?|\#|a?:\w+:|/[^:<>\n]+:|t:)-?\d+(?::\w)?>"  # mentions, custom emoji, commands, times
)
CUSTOM_EMOJI = regex.compile(r"<a?:\w+:\d+>")
LINK = regex.compile(r"<?https?://[^\s<>]+>?|\[[^\]\n]*\]\(https?://[^\s)]+\)")
EMOTICON = regex.compile(
    r"[<>}]?[:;=xX][-o*'^]*[()\[\]dDpP/\\|3oO*]+|[()\[\]dD]+[-o*']*[:;=]|<+3+"
    r"|\^[_.-]?\^|[-oOtTuU;>][_.]+[-oOtTuU;<]"
)
EMOJI = regex.compile(r"[\p{Extended_Pictographic}\p{Emoji_Component}--0-9\#*]+", regex.V1)
BEFORE_NAME = rf"(?<![{WORD_SIGNS}]_*)"
AFTER_NAME = rf"(?!_*[{WORD_SIGNS}])"
"""The borders of a name. Underscores are markup, unless they join words."""
KOREAN_PARTICLES = "|".join(
    """야 아 이 가 은 는 을 를 의 에게 에게서 에 에서 한테 한테서 께 께서 도 만
    와 과 랑 하고 로 처럼 보다 까지 부터 마저 조차 나 라도 라고 라는 라면 네 들
    님 씨 양 군 예요 에요 여 다 입니다 인데 뿐 밖에""".split()
)
"""Endings of a Korean name, of which several may follow each other."""
CYRILLIC_ENDINGS = {
    "а": "а и ы і е у ой ою о",
    "я": "я и і ї е є ю ей ею єю ой ё",
    "й": "й я ю ем єм е ї єві еві",
    "ь": "ь я ю ем єм е і еві ові",
    "о": "о а у ом е ові",
    "": "а у ом ем е і ові еві ы",
}
"""Case endings by the ending of a name in Cyrillic, those of Russian, Ukrainian and their kin."""
LATIN_ENDINGS = {"a": "a ę ą ě ou", "": "owi ovi em"}
"""Case endings of Polish and Czech that make no word of another language."""
MIN_STEM_CHARS = 2
MIN_BARE_STEM_CHARS = 4
"""Letters before an ending that takes the place of another one, or that is added."""


@cache
def _laughter() -> regex.Pattern[str]:
    return regex.compile("|".join(chat_words()["laughter"]), regex.IGNORECASE)


def is_laughter(text: str) -> bool:
    """Report whether a text is laughter, emoji or emoticons alone, such as "lol 😂"."""
    rest, emoji = EMOJI.subn(" ", CUSTOM_EMOJI.sub("😀", text))
    words = [word.strip(".,!~*_-…") for word in rest.split() if not EMOTICON.fullmatch(word)]
    laughs: int = emoji + len(rest.split()) - len(words)
    bare = [word for word in words if word]
    # "ha ha" laughs, while "ha" alone is a word.
    if (
        bare
        and not all(map(_laughter().fullmatch, bare))
        and not _laughter().fullmatch("".join(bare))
    ):
        return False
    laughs += len(bare)
    return laughs > 0


def is_link(text: str) -> bool:
    """Report whether a text is a link, or several, without words of its own."""
    rest, links = LINK.subn(" ", text)
    has_words = regex.search(r"[\p{L}\p{N}]", MARKUP.sub(" ", rest)) is not None
    return links > 0 and not has_words


def is_common(name: str) -> bool:
    """Report whether a name is a single character, or stands in most messages, such as "you"."""
    return is_common_word(name) or len(fold_name(name)) < MIN_NAME_CHARS


def names_of(persona: Persona, aliases: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names by which a persona is called: its name, nickname and aliases, and the word of
    a longer name that people use, unless most messages have it.
    """
    return _names_of(persona.id, persona.name, persona.nickname, tuple(aliases))


def called_names(name: str) -> tuple[str, ...]:
    """Return the folded names by which somebody is called: all of the name, and the first word of a
    longer one, unless most messages have it.
    """
    return _names_of("", name, "", ())


@lru_cache(maxsize=4096)
def _names_of(
    persona_id: str, name: str, nickname: str, aliases: tuple[str, ...]
) -> tuple[str, ...]:
    names = [name, nickname, *aliases]
    words = fold_name(name).split()
    if len(words) > 1 and words[0].strip(".") not in chat_words()["articles"]:
        given = [word for word in words if word.strip(".") not in chat_words()["titles"]]
        names += [word for word in given[:1] if not is_common(word)]
        names += [word for word in given[1:] if word == persona_id]
    return tuple(dict.fromkeys(filter(None, map(fold_name, names))))


def first_named(text: str, names: tuple[str, ...]) -> int | None:
    """Return where the first of some names stands in a text, between the borders of words; None
    where none does.
    """
    if not names:
        return None
    found = _name_pattern(names).search(_plain(text))
    return found.start() if found else None


def order_named(text: str, names: Sequence[tuple[str, ...]]) -> list[int]:
    """Return which of several bearers of names a text names, by their places in `names`, in the order
    in which it first names them.

    A name that is part of a longer one of somebody else there ("Oda" in "Oda's Cat") does not name
    its bearer; one that several bear names the first of them.
    """
    plain = _plain(text)
    named = list[tuple[int, int, int]]()  # start, negative length, bearer
    for bearer, called in enumerate(names):
        if called:
            for found in _name_pattern(called).finditer(plain):
                named.append((found.start(), found.start() - found.end(), bearer))
    order = dict[int, None]()
    end = 0
    for start, negative_length, bearer in sorted(named):
        if start >= end:
            order[bearer] = None
            end = start - negative_length
    return list(order)


def _plain(text: str) -> str:
    """Return a text as names are looked for in it: folded, without links and markup."""
    return fold_name(LINK.sub(" ", MARKUP.sub(" ", text))).replace("ё", "е")


@lru_cache(maxsize=4096)
def _name_pattern(names: tuple[str, ...]) -> regex.Pattern[str]:
    patterns = []
    forms = dict.fromkeys(form for name in names for form in _inflected(name))
    for name in sorted(forms, key=len, reverse=True):
        words = r"\s+".join(map(regex.escape, name.split()))
        before = BEFORE_NAME
        if regex.match(f"[{SPACELESS_SCRIPTS}]", name):
            # A single sign ends many words.
            before = "" if len(name) > 1 else f"(?<![{SPACELESS_SCRIPTS}])"
        after = AFTER_NAME
        if regex.search(f"[{SPACELESS_SCRIPTS}]$", name):
            after = r"(?!\p{M})"
        elif regex.search(f"[{HANGUL}]$", name):
            after = rf"이?(?:(?:{KOREAN_PARTICLES}){{0,3}}|[였었]\p{{Hangul}}*){AFTER_NAME}"
        patterns.append(f"{before}{words}{after}")
    return regex.compile("|".join(patterns))


def _inflected(name: str) -> list[str]:
    """Return a name of one word in the case forms of its language, with the name itself."""
    name = name.replace("ё", "е")  # most people write it so
    if regex.fullmatch(r"\p{Greek}{4,}σ", name):
        return [name, name[:-1]]
    endings = None
    if regex.fullmatch(r"\p{Cyrillic}+", name):
        endings = CYRILLIC_ENDINGS
    elif regex.fullmatch(r"\p{Latin}+", name):
        endings = LATIN_ENDINGS
    if endings is None:
        return [name]
    last = name[-1] if name[-1] in endings else ""
    stem = name.removesuffix(last)
    is_vowel = not last and name[-1] in "аеёиіїоуыэюяaeiouy"
    if is_vowel or len(stem) < (MIN_STEM_CHARS if last else MIN_BARE_STEM_CHARS):
        return [name]
    forms = [stem + ending for ending in endings[last].split()]
    return [name, *(form for form in forms if form != name and not is_common(form))]
