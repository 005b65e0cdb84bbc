"""Dialogues written into one text: `Human: …`, `### Assistant: …`, `[INST] …`, ChatML, `Ada: …` by the line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainer.sources.talk import ROLES

CHATML = re.compile(r"<\|im_start\|>\s*(\w+)\s*\n(.*?)(?=<\|im_end\|>|<\|im_start\|>|\Z)", re.DOTALL)
HEADERS = re.compile(
    r"<\|start_header_id\|>(\w+)<\|end_header_id\|>(.*?)(?=<\|eot_id\|>|<\|start_header_id\|>|\Z)", re.DOTALL
)
TAGGED = re.compile(
    r"<\|(system|user|assistant|prompter|human|bot|model)\|>(.*?)(?=<\|[\w ]+\|>|</s>|<\|endoftext\|>|\Z)", re.DOTALL
)
INST = re.compile(r"\[INST\](?:\s*<<SYS>>(.*?)<</SYS>>)?(.*?)\[/INST\](.*?)(?=</s>|<s>|\[INST\]|\Z)", re.DOTALL)
HASHED = re.compile(rf"###\s*({'|'.join(map(re.escape, ROLES))})\s*[:：]", re.IGNORECASE)
SPEAKING = "human user assistant bot chatbot ai gpt chatgpt system prompter 用户 人类 助手"
"""Roles that begin a line of a transcript. Words such as Input or Answer also begin lines of plain instructions."""
LABEL = re.compile(rf"^[ \t]*(?:\*\*)?({'|'.join(SPEAKING.split())})(?:\*\*)?\s*[:：](?:\*\*)?", re.I | re.M)
NAMED = re.compile(r"^[ \t]*[*_\[\"']{0,2}([^\W\d_][^:：\n*\[\]]{0,31}?)[*_\]\"']{0,2}[:：][*_]{0,2}[ \t]*(.*)$")
MOST_NAMES = 8


def labelled(text: str) -> list[tuple[str, str]]:
    """The turns of a text that begins with a role, such as `Human:`, and has more of them; else none."""
    if not LABEL.match(text.lstrip()):
        return []
    _, *parts = LABEL.split(text)
    turns = list(zip(map(str.lower, parts[::2]), parts[1::2], strict=True))
    return turns if len({ROLES[role] for role, _ in turns}) > 1 else []


def turns_in(text: str) -> list[tuple[str, str]]:
    """Who says what in a transcript; empty when the text is none."""
    for pattern in (CHATML, HEADERS, TAGGED):
        if found := pattern.findall(text):
            return found
    if found := list(_instructions(text)):
        return found
    if len(hashed := HASHED.split(text)) > 3:
        return list(zip(map(str.lower, hashed[1::2]), hashed[2::2], strict=True))
    return labelled(text) or _named(text)


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    for system, asked, answered in INST.findall(text):
        if system:
            yield "system", system
        yield from (("user", asked), ("assistant", answered))


def _named(text: str) -> list[tuple[str, str]]:
    """Lines that begin with a name and a colon; others go on with what was being said."""
    turns: list[tuple[str, str]] = []
    named = 0
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines:
        if match := NAMED.match(line):
            named += 1
            turns.append((match[1].strip(), match[2]))
        elif turns:
            turns[-1] = (turns[-1][0], f"{turns[-1][1]}\n{line}")
        else:
            return []
    names = {name for name, _ in turns}
    is_talk = 2 <= len(names) <= MOST_NAMES and 2 * named >= len(lines)
    return turns if is_talk else []
