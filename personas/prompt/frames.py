"""The frames of a prompt: how it writes what nobody has typed, such as quotes, files and passages.

Each begins with a bracket at the beginning of a line. Renderer and bot fill them from this table,
and break up whatever members type in the same form: a frame that is added here is covered.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import regex

FILE_TEXT = "text"
"""The one field of a frame that may have several lines."""
PICTURE_PART = "a picture"
VIDEO_PART = "a video"
AUDIO_PART = "an audio file"
FILE_PART = "a file"
STICKER_PART = "a sticker"
POLL_PART = "a poll"
ACTIVITY_PART = "an invitation to an activity"
VOICE_PART = "a voice message"
MEMBER_SUFFIX = " (a member)"
"""Follows the name of a member who is called as the persona is."""
LINE_START_PATTERN = regex.compile(r"^([\s\p{Cf}]*\[)(?=\S)", regex.MULTILINE)
WORDS_PATTERN = regex.compile(r"[\p{L}\p{M}\p{N}@]+")
INVISIBLE_PATTERN = regex.compile(r"[\p{Cf}\ufe0e\ufe0f]+")
SPEAKER_PATTERN = regex.compile(r"(?<=\n)([^\n:：]{0,120}[^\s:：])([:：])")
LIST_PATTERN = regex.compile(r"\s*(?:[>#]|[-*+•]\s|\d+[.)]\s)")
FULL_NAME_PATTERN = regex.compile(
    r"[\s*_~|`]*\p{Lu}[\p{L}\p{M}'’.-]*(?: \p{Lu}[\p{L}\p{M}'’.-]*){1,3}[*_~|`]*[:：]"
    r"[*_~|`]*[ \t]*[^\s*_~|`]"
)
"""Someone's full name before words, even of one who has not spoken."""


@dataclass(frozen=True)
class Frame:
    """A frame with its fields in braces."""

    template: str

    def fill(self, **fields: str) -> str:
        """Return the frame with these fields: one line each, but for the text of a file."""
        cleaned = {}
        for name, value in fields.items():
            cleaned[name] = value if name == FILE_TEXT else " ".join(value.split())
        return self.template.format(**cleaned)


QUOTE = Frame("[replying to {author}: {words}]")
LOST_QUOTE = Frame("[replying to {author}, whose message cannot be read]")
FILE = Frame("[{name}:\n{text}\nend of {name}]")
LONG_FILE = Frame("[{name} is too long to be shown]")
UNREAD_FILE = Frame("[{name} {problem}]")
UNASKED_LINE = Frame("[Nobody has asked. {persona} says to everybody here: {prompt}]")
PASSAGE = Frame("[{heading}] {text}")
NAMED = Frame("[{name}]")
"""A picture, or a part of a message that has been put into words."""
MESSAGE_PARTS = (
    *(
        Frame(f"[{kind}: {{words}}]")
        for kind in (PICTURE_PART, VIDEO_PART, AUDIO_PART, FILE_PART, STICKER_PART, POLL_PART)
    ),
    Frame(f"[{VOICE_PART} of {{words}}]"),
    Frame(f"[{ACTIVITY_PART}]"),
)
"""Parts of a message beside its text. They are stored with it, so the bot breaks them up in what
members type before that.
"""
FRAMES = (
    QUOTE, LOST_QUOTE, FILE, LONG_FILE, UNREAD_FILE, UNASKED_LINE, PASSAGE, NAMED, *MESSAGE_PARTS,
)  # fmt: skip


def _part_pattern() -> str:
    parts = []
    for frame in MESSAGE_PARTS:
        before, _, after = frame.template.partition("{words}")
        parts.append(regex.escape(before) + (r".*" if after else "") + regex.escape(after))
    return "|".join(parts)


PART_PATTERN = regex.compile(rf"^[\s\p{{Cf}}]*(?:{_part_pattern()})[ \t]*$", regex.MULTILINE)


def break_frames(text: str, speakers: Iterable[str] = (), *, has_line_before: bool = False) -> str:
    """Break up what has the form of a frame in a text that somebody has typed, and of a line of one
    of the `speakers`, or of a full name, below the message's first line. Parts of the message stay.
    """
    parts = {part.start() for part in PART_PATTERN.finditer(text)} if "[" in text else set()

    def broken(start: "regex.Match[str]") -> str:
        return start[0] if start.start() in parts else f"{start[1]} "

    text = LINE_START_PATTERN.sub(broken, text)
    called = _called(tuple(speakers))
    if called and (has_line_before or "\n" in text):
        before = "\n" if has_line_before else ""
        text = _break_lines(before + text, called).removeprefix(before)
    return text


def _break_lines(text: str, called: frozenset[str]) -> str:
    def broken(line: "regex.Match[str]") -> str:
        is_name = _name_key(line[1]) in called and not LIST_PATTERN.match(line[1])
        if is_name or FULL_NAME_PATTERN.match(text, line.start()):
            return f"{line[1]} {line[2]}"
        return str(line[0])

    return str(SPEAKER_PATTERN.sub(broken, text))


@lru_cache(maxsize=256)
def _called(names: tuple[str, ...]) -> frozenset[str]:
    """Return names and the words in them as they are compared."""
    called = {_name_key(name) for name in names}
    for name in names:
        words = _name_key(name.removesuffix(MEMBER_SUFFIX)).split()
        called |= {word for word in words if len(word) > 1}
    return frozenset(called - {""})


def break_parts(text: str) -> str:
    """Break up what has the form of a part of a message in a text that somebody has typed."""
    return str(PART_PATTERN.sub(lambda part: part[0].replace("[", "[ ", 1), text))


def break_file_end(text: str, name: str) -> str:
    """Break up lines of a file that have the form of its end."""
    end = rf"^(\s*end of {regex.escape(name)})\]"
    return str(regex.sub(end, r"\1 ]", text, flags=regex.MULTILINE))


def frame_name(name: str) -> str:
    """Return a name as it may stand in a frame, or before the colon of a line: without the signs
    that would end either.
    """
    if not any(sign in name for sign in "[]:：\n"):
        return name.strip()
    for sign, other in (("[", "("), ("]", ")"), (":", " "), ("：", " ")):
        name = name.replace(sign, other)
    return " ".join(name.split())


def member_name(name: str, personas: Iterable[str]) -> str:
    """Return the name of somebody who is none of the personas with these names, as theirs never
    is.
    """
    name = frame_name(name)
    if name and _name_key(name) in map(_name_key, personas):
        return f"{name}{MEMBER_SUFFIX}"
    return name


def _name_key(name: str) -> str:
    """Return what names are compared by: their words; of one without words, its signs."""
    return fold_label(name) or INVISIBLE_PATTERN.sub("", name).strip()


@lru_cache(maxsize=4096)
def fold_label(text: str) -> str:
    """Return a name as labels are compared: its words, without case, signs and form."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return " ".join(WORDS_PATTERN.findall(INVISIBLE_PATTERN.sub("", folded)))
