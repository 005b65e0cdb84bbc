"""Removes what a reasoning model thinks from its text: servers without a reasoning parser send it as content.

The tags are those of DeepSeek-R1 and Qwen3 (`<think>`), of models that were tuned with other words, of Magistral
(`[THINK]`), Seed-OSS, Kimi-VL, Command A Reasoning and gpt-oss, whose last channel begins with the reply.
"""

import re
from dataclasses import dataclass

TAG_WORDS = "think|thinking|thought|thoughts|reasoning|reflection|seed:think"
OPENING_TAGS = (
    rf"(?i:<(?:{TAG_WORDS})>)",
    r"\[THINK\]",
    r"◁think▷",
    r"<\|START_THINKING\|>",
    r"<\|channel\|>(?:analysis|commentary)<\|message\|>",
)
CLOSING_TAGS = (
    rf"(?i:</(?:{TAG_WORDS})>)",
    r"\[/THINK\]",
    r"◁/think▷",
    r"<\|END_THINKING\|>",
    r"<\|channel\|>final<\|message\|>",
)
TAG_PATTERN = re.compile(rf"(?P<opening>{'|'.join(OPENING_TAGS)})|(?P<closing>{'|'.join(CLOSING_TAGS)})")
TAG_PREFIXES = (
    *(f"<{slash}{word}>" for slash in ("", "/") for word in TAG_WORDS.split("|")),
    "[think]",
    "[/think]",
    "◁think▷",
    "◁/think▷",
    "<|start_thinking|>",
    "<|end_thinking|>",
    *(f"<|channel|>{name}<|message|>" for name in ("analysis", "commentary", "final")),
)
"""All tags in lower case: the end of a growing text may be the beginning of one of them."""
MAX_TAG_CHARS = max(map(len, TAG_PREFIXES))
TAG_STARTS = ("<", "[", "◁")


@dataclass(frozen=True)
class SpokenText:
    """A text without thoughts. `has_thought`: there was one.

    `is_open`: the last one does not end. `lone_closings` counts the tags that close a thought which no tag opened: what
    stood before them was a thought, too.
    """

    text: str
    has_thought: bool = False
    is_open: bool = False
    lone_closings: int = 0


def remove_thoughts(text: str, *, starts_in_thought: bool = False, is_whole: bool = True) -> SpokenText:
    """Remove thoughts and their tags.

    `starts_in_thought`: the prompt ended with the opening tag. Of a text that goes on (`is_whole` False), an end that
    may become a tag is left out, too.
    """
    if not (starts_in_thought or any(sign in text for sign in TAG_STARTS)):
        return SpokenText(text)
    spoken = ""
    start = lone_closings = 0
    is_open = has_thought = starts_in_thought
    for tag in TAG_PATTERN.finditer(text):
        is_opening = tag["opening"] is not None
        if not is_open:
            spoken = _join(spoken, text[start : tag.start()], has_thought)
            if not is_opening:
                spoken = ""
                lone_closings += 1
        is_open, has_thought, start = is_opening, True, tag.end()
    if not is_open:
        rest = text[start:]
        rest = rest if is_whole else rest[: len(rest) - _partial_tag_chars(rest)]
        spoken = _join(spoken, rest, has_thought)
    return SpokenText(spoken, has_thought, is_open, lone_closings)


def _join(before: str, after: str, has_thought: bool) -> str:
    """Join what stands on both sides of a thought: the blank after it goes if there is one before it."""
    is_blank = has_thought and (not before or before[-1].isspace())
    return before + (after.lstrip() if is_blank else after)


def _partial_tag_chars(text: str) -> int:
    """Count the characters at the end of a text that may begin a tag."""
    end = text[-MAX_TAG_CHARS:].lower()
    starts = [at for at, sign in enumerate(end) if sign in TAG_STARTS]
    return next((len(end) - at for at in starts if any(tag.startswith(end[at:]) for tag in TAG_PREFIXES)), 0)
