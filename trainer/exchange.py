"""What was said in a sample, in words: for what is measured beside losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GENERAL = "general"
"""The kind of samples in a data set that are nobody's own talk."""


@dataclass(frozen=True)
class Exchange:
    """The last message before a reply, and the reply. `talk` tells conversations apart, `by_persona` who speaks.

    The message is without its lore, and without the name of whoever says it.
    """

    talk: str
    message: str
    reply: str
    by_persona: bool = True


def exchange_in_line(line: Mapping[str, Any]) -> Exchange:
    """Of a line of a data set's file. Lines of sets that do not say which talk they are of count as one each."""
    *before, reply = line["messages"]
    talk = f"{line.get('source')} {line.get('talk') or line.get('row')}"
    message = _without_name(before[-1]["content"] if before else "", line.get("speakers") or ())
    return Exchange(talk, message, reply["content"], line.get("kind") != GENERAL)


def _without_name(content: str, speakers: tuple[str, ...] | list[str]) -> str:
    """The rendered message without what stands before it: lore, and the speaker's name."""
    for name in speakers:
        lead = f"{name}: "
        if content.startswith(lead):
            return content.removeprefix(lead)
        lore, found, said = content.rpartition(f"\n\n{lead}")
        if found and lore.startswith("["):
            return said
    return content
