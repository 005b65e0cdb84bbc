"""Removes the thoughts of a reasoning model from its text: servers without a reasoning parser send
them as content.

The tags are those of DeepSeek-R1 and Qwen3 (`<think>`), of models that were tuned with other words,
of Magistral (`[THINK]`), Seed-OSS, Kimi-VL, Command A Reasoning, Sky-T1 and OpenThinker
(`<|begin_of_thought|>`), Gemma 4 (`<|channel>thought`), and gpt-oss, whose last channel begins with
the reply. A reply ends at a token that ends a turn, unless it is quoted as code: some servers send
it as text, and go on.
"""

import re
from dataclasses import dataclass

TAG_WORDS = "think|thinking|thought|thoughts|reason|reasoning|reflection|analysis|seed:think"
MAX_TAG_BLANKS = 4
"""Longest white space after a tag's word or its slash."""
BLANKS = rf"\s{{0,{MAX_TAG_BLANKS}}}"
OPENING_TAGS = (
    rf"(?i:<(?:{TAG_WORDS}){BLANKS}>)",
    r"\[THINK\]",
    r"◁think▷",
    r"<\|START_THINKING\|>",
    r"<\|begin_of_thought\|>",
    r"<\|channel>thought\b",
    r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)<\|message\|>",
)
CLOSING_TAGS = (
    rf"(?i:</{BLANKS}(?:{TAG_WORDS}){BLANKS}>)",
    r"\[/THINK\]",
    r"◁/think▷",
    r"<\|END_THINKING\|>",
    r"<\|end_of_thought\|>",
    r"<channel\|>",
    r"(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>",
)
REPLY_MARKS = ("<|begin_of_solution|>", "<|end_of_solution|>")
"""Marks around a reply; one after a thought that has no end is its end."""
END_TOKENS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|return|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
)
NEXT_MESSAGE = "<|start|>assistant"
"""Follows gpt-oss's `<|end|>` between two messages of one turn."""
TAG_PATTERN = re.compile(
    rf"(?P<opening>{'|'.join(OPENING_TAGS)})|(?P<closing>{'|'.join(CLOSING_TAGS)})"
    rf"|(?P<mark>{'|'.join(map(re.escape, REPLY_MARKS))})"
    rf"|(?P<end>(?<!`)(?:{'|'.join(map(re.escape, END_TOKENS))})(?!{re.escape(NEXT_MESSAGE)}))"
)
TAG_PREFIXES = (
    *(f"<{slash}{word}>" for slash in ("", "/") for word in TAG_WORDS.split("|")),
    "[think]",
    "[/think]",
    "◁think▷",
    "◁/think▷",
    "<|start_thinking|>",
    "<|end_thinking|>",
    "<|begin_of_thought|>",
    "<|end_of_thought|>",
    "<|channel>thought",
    "<channel|>",
    *(
        f"{start}<|channel|>{name}<|message|>"
        for start in ("", NEXT_MESSAGE)
        for name in ("analysis", "commentary", "final")
    ),
    *(tag.lower() for tag in (*REPLY_MARKS, *END_TOKENS)),
)
"""All tags in lower case, without blanks: the end of a growing text may be the beginning of one of
them.
"""
MAX_TAG_CHARS = max(map(len, TAG_PREFIXES)) + 2 * MAX_TAG_BLANKS
TAG_STARTS = ("<", "[", "◁")


@dataclass(frozen=True)
class SpokenText:
    """A text without thoughts. `has_thought`: there was one.

    `is_open`: the last one does not end. `lone_closings` counts the tags that close a thought which
    no tag opened: the text before them was a thought, too. `has_ended`: a token ended the turn,
    and nothing after it is the reply's.
    """

    text: str
    has_thought: bool = False
    is_open: bool = False
    lone_closings: int = 0
    has_ended: bool = False


def remove_thoughts(
    text: str, *, starts_in_thought: bool = False, is_whole: bool = True
) -> SpokenText:
    """Remove thoughts and their tags, the marks of a reply, and text after the end of the turn.

    `starts_in_thought`: the prompt ended with the opening tag. Of a text that goes on (`is_whole`
    False), an end that may become a tag is left out, too.
    """
    if not (starts_in_thought or any(sign in text for sign in TAG_STARTS)):
        return SpokenText(text)
    spoken = ""
    start = lone_closings = 0
    is_open = has_thought = starts_in_thought
    for tag in TAG_PATTERN.finditer(text):
        if tag["end"]:
            is_struck_through = tag["end"] == "</s>" and "<s>" in text[: tag.start()]  # in HTML
            if is_open or is_struck_through:
                continue
            return SpokenText(
                _join(spoken, text[start : tag.start()], has_thought),
                has_thought,
                lone_closings=lone_closings,
                has_ended=_is_end(text[tag.end() :], is_whole=is_whole),
            )
        is_opening = tag["opening"] is not None
        if tag["mark"]:
            if not is_open:
                spoken = _join(spoken, text[start : tag.start()], has_thought)
        elif not is_open:
            spoken = _join(spoken, text[start : tag.start()], has_thought)
            if not is_opening:
                spoken = ""
                lone_closings += 1
        has_thought = has_thought or not tag["mark"]
        is_open = is_opening
        start = tag.end()
    if not is_open:
        rest = text[start:]
        rest = rest if is_whole else rest[: len(rest) - _partial_tag_chars(rest)]
        spoken = _join(spoken, rest, has_thought)
    return SpokenText(spoken, has_thought, is_open, lone_closings)


def _is_end(rest: str, *, is_whole: bool) -> bool:
    """Return whether the text after the end of a message cannot be another message of the same
    turn.
    """
    return is_whole or not NEXT_MESSAGE.startswith(rest)


def _join(before: str, after: str, has_thought: bool) -> str:
    """Join the texts on both sides of a thought: the blank after the thought goes if there is a
    blank before it.
    """
    is_blank = has_thought and (not before or before[-1].isspace())
    return before + (after.lstrip() if is_blank else after)


def _partial_tag_chars(text: str) -> int:
    """Count the characters at the end of a text that may begin a tag."""
    end = text[-MAX_TAG_CHARS:].lower()
    for at, sign in enumerate(end):
        compact = "".join(end[at:].split())
        if sign in TAG_STARTS and any(tag.startswith(compact) for tag in TAG_PREFIXES):
            return len(end) - at
    return 0
