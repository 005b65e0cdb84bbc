"""What is handed from part to part while a reply is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import discord

from bot.place import Place, SpeakChannel, place_of
from bot.store import Votes
from personas.contracts import Persona


class ReplyViews(Protocol):
    """Makes the buttons under a reply; they carry the id of the event, so that they outlive a restart."""

    def growing(self, event_id: int) -> discord.ui.View:
        """While it is being written."""
        ...

    def ended(self, event_id: int, votes: Votes) -> discord.ui.View:
        """Once it is there."""
        ...


@dataclass(frozen=True)
class Asked:
    """A message to answer. `event_id` is Discord's id of what asked: the message or the interaction."""

    event_id: int
    author_id: int
    author_name: str
    text: str


@dataclass(frozen=True)
class ReplyTask:
    """A reply to be made: who answers which stored message, where. `parts` are the messages of an earlier attempt."""

    event_id: int
    asked_by: int
    persona: Persona
    channel: SpeakChannel
    trigger_seq: int
    parts: tuple[int, ...] = ()
    before: str = ""

    @property
    def place(self) -> Place:
        return place_of(self.channel)
