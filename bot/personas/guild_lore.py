"""Lore files that moderators add for a persona; only their guild sees them."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bot.errors import RefusedError
from bot.personas.registry import short_id
from bot.personas.revisions import RevisionHistory
from personas.errors import LoreError
from personas.home.shared_personas import OPERATOR_GUILD_ID, read_shipped_lore
from personas.lore.index import LoreIndex, guild_owner
from personas.lore.passages import WORLD, Passage, parse_lore, split_passages
from personas.schemas.chat import Persona

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 100_000
MAX_FILES = 25
"""Files a persona can have in a guild: as many as one menu of Discord shows."""
NON_NAME_CHARS_PATTERN = re.compile(r"[^\w-]+")


@dataclass(frozen=True)
class GuildLore:
    """The files of all guilds, and the index in which they are found. `home` is UNDERSTUDY_HOME.

    `shipped` is the folder of what ships; without it the operator's files do not change what is found of that. With
    `keeping` the text before a change is kept, to be brought back; without, earlier texts of the file go.
    """

    home: Path
    index: LoreIndex
    shipped: Path | None = None
    keeping: bool = False

    def files(self, guild_id: int, persona_id: str) -> list[str]:
        """The names of a persona's files in a guild, in order."""
        return sorted(path.name for path in self._folder(guild_id, persona_id).glob("*.md"))

    async def add(self, guild_id: int, persona_id: str, name: str, content: bytes) -> tuple[str, int]:
        """Keep a file, in place of one of the same name; it is found from now on. Returns its name and its passages.

        Raises `RefusedError` where there is no room, and `LoreError` for what is no lore.
        """
        file = lore_file_name(name)
        text = _check_content(file, content, {persona_id, _short_id(guild_id, persona_id)})
        known = self.files(guild_id, persona_id)
        if file not in known and len(known) >= MAX_FILES:
            raise RefusedError(f"There are {MAX_FILES} files already.", "Remove one: `/persona lore remove`.")
        added = _passages(guild_id, persona_id, file, text)
        if not added:
            raise LoreError(f"{file} holds no text.", "Write below its headings.")
        kept = read_guild_lore(self.home, guild_id, persona_id, without=file)
        # Another pronoun may be the most frequent one now, so all of the persona's vectors are looked through.
        await asyncio.to_thread(self.index.prepare, [*kept, *added])
        # Without front matter: the folder says whose it is.
        await asyncio.to_thread(self._put, guild_id, persona_id, file, text)
        await self.refresh(guild_id, persona_id)
        return file, len(added)

    async def exclude_file(self, persona_id: str, file: str) -> None:
        """Find nothing any more of a file that ships; what the operator has in its place goes, too."""
        await asyncio.to_thread(self._put, OPERATOR_GUILD_ID, persona_id, file, "")
        await self.refresh(OPERATOR_GUILD_ID, persona_id)

    async def remove(self, guild_id: int, persona_id: str, file: str) -> None:
        """Remove a file; it is not found any more. Raises `RefusedError` naming the files there are."""
        known = self.files(guild_id, persona_id)
        if file not in known:
            names = ", ".join(f"`{name}`" for name in known) or "none"
            raise RefusedError(f"This server has given no lore called {file!r}.", f"There is: {names}.")
        self._keep_or_forget(guild_id, persona_id, file)
        (self._folder(guild_id, persona_id) / file).unlink()
        await self.refresh(guild_id, persona_id)

    async def refresh(self, guild_id: int, persona_id: str) -> None:
        """Bring the index up to what lies on the disk."""
        passages = read_guild_lore(self.home, guild_id, persona_id)
        await asyncio.to_thread(self.index.prepare, passages)
        self.index.replace(guild_owner(guild_id, persona_id), passages)
        if guild_id == OPERATOR_GUILD_ID and self.shipped:
            others = {passage.owner for passage in self.index.passages}
            shipped = await asyncio.to_thread(read_shipped_lore, self.shipped, [persona_id], self.home, others)
            await asyncio.to_thread(self.index.prepare, shipped)
            self.index.replace(persona_id, shipped)

    def text(self, guild_id: int, persona_id: str, file: str) -> str | None:
        """Read a file; None where there is none."""
        if file not in self.files(guild_id, persona_id):
            return None
        return (self._folder(guild_id, persona_id) / file).read_text(encoding="utf-8")

    def earlier(self, guild_id: int, persona_id: str, file: str) -> RevisionHistory:
        """Earlier contents of a file that was changed with `keeping`."""
        return RevisionHistory.of(self.home, self._folder(guild_id, persona_id) / file)

    def delete_revisions(self, guild_id: int, persona_id: str) -> None:
        """Keep nothing any longer of what a persona's files held."""
        shutil.rmtree(self.earlier(guild_id, persona_id, "any.md").folder.parent, ignore_errors=True)

    def removed(self, guild_id: int, persona_id: str) -> list[str]:
        """The names of files that are gone, of which an earlier text is kept."""
        there = self.files(guild_id, persona_id)
        kept = self.earlier(guild_id, persona_id, "any.md").folder.parent.glob("*.md")
        return sorted(folder.name for folder in kept if folder.name not in there)

    def _put(self, guild_id: int, persona_id: str, file: str, text: str) -> None:
        self._keep_or_forget(guild_id, persona_id, file)
        folder = self._folder(guild_id, persona_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = folder / f"{file}.part"
        aside.write_bytes(text.encode())
        aside.replace(folder / file)

    def _keep_or_forget(self, guild_id: int, persona_id: str, file: str) -> None:
        earlier, path = self.earlier(guild_id, persona_id, file), self._folder(guild_id, persona_id) / file
        if not self.keeping:
            earlier.forget()
        elif path.exists() and (before := path.read_bytes()):
            earlier.keep(before, time.time())

    def _folder(self, guild_id: int, persona_id: str) -> Path:
        return self.home / "lore" / str(guild_id) / persona_id


def read_all_lore(shipped: Path, persona_ids: Iterable[str], home: Path) -> list[Passage]:
    """Read the lore of shared personas and the world, and what all guilds and the operator have added."""
    return read_shipped_lore(shipped, [*persona_ids, WORLD], home) + read_all_guild_lore(home)


def read_all_guild_lore(home: Path) -> list[Passage]:
    """Read what all guilds have added. Unreadable lore of one persona does not affect the others."""
    passages = []
    for folder in sorted((home / "lore").glob("[0-9]*/*/")):
        try:
            passages += read_guild_lore(home, int(folder.parent.name), folder.name)
        except (LoreError, OSError, ValueError) as error:
            log.error("the lore in %s is left out: %s", folder, error)
    return passages


def read_guild_lore(home: Path, guild_id: int, persona_id: str, without: str = "") -> list[Passage]:
    """Read what a guild has added to a persona, but for one file. Raises `LoreError` for one damaged on the disk."""
    passages: list[Passage] = []
    for path in sorted((home / "lore" / str(guild_id) / persona_id).glob("*.md")):
        if path.name != without:
            text = _check_content(path.name, path.read_bytes(), {persona_id})
            passages += _passages(guild_id, persona_id, path.name, text)
    return passages


def lore_file_name(wanted: str) -> str:
    """A name for a file, made of letters of any script, digits, - and _. Raises `LoreError` when nothing is left."""
    stem = wanted.strip().casefold().removesuffix(".md").removesuffix(".markdown").removesuffix(".txt")
    name = NON_NAME_CHARS_PATTERN.sub("-", stem).strip("-_")[:60]
    if not name:
        raise LoreError(f"{wanted!r} makes no file name.", "Use letters and digits.")
    return f"{name}.md"


def _passages(guild_id: int, persona_id: str, file: str, text: str) -> list[Passage]:
    return split_passages(guild_owner(guild_id, persona_id), f"{_short_id(guild_id, persona_id)}/{file}", text)


def _short_id(guild_id: int, persona_id: str) -> str:
    """The id as members see it."""
    return short_id(Persona(persona_id, persona_id), guild_id)


def _check_content(file: str, content: bytes, ids: set[str]) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise LoreError(f"{file} has more than {MAX_FILE_BYTES // 1000} KB.", "Split it into several files.")
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoreError(f"{file} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    if "\0" in decoded:
        raise LoreError(f"{file} is not text.", "Lore is markdown.")
    owners, text = parse_lore(decoded, file)
    if owners and not ids & {*owners}:
        raise LoreError(f"The front matter of {file} says that it is {', '.join(owners)}'s.", "Name that persona.")
    return text
