"""What the cogs work with, and the kind of client that has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from discord.ext import commands

from bot.answering import Answerer
from bot.catalogue import Catalogue
from bot.conversation import Conversations
from bot.queue import JobQueue
from bot.store import Store


@dataclass(frozen=True)
class House:
    """What the cogs work with; made once in `bot.app`."""

    store: Store
    conversations: Conversations
    answerer: Answerer
    queue: JobQueue
    catalogue: Catalogue
    base_model: str
    home: Path


class HouseBot(commands.Bot):
    """A client whose cogs find everything in `house`."""

    house: House
