"""Lore files that moderators add for a persona; only their guild sees them."""

import asyncio
import logging
import math
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bot.personas.registry import CARD_PART
from bot.personas.revisions import RevisionHistory
from bot.platform.errors import RefusedError
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    join_names,
    localisable_number,
)
from bot.store import CARD_CONTRIBUTION, Contribution, MemberRecords
from personas.errors import LoreError
from personas.home.atomic_files import write_file
from personas.home.lore_sets import LoreSet, find_lore_sets
from personas.home.persona_ids import short_id
from personas.home.shared_personas import CARD_FILE, OPERATOR_GUILD_ID, read_shipped_lore
from personas.home.trash import TrashEntry, entry_folder, find_parts, take_back, throw_away
from personas.ids import first_free
from personas.lore.index import LoreIndex, guild_owner
from personas.lore.lore_folder import fold_key, parse_lore
from personas.lore.passages import Passage, split_passages
from personas.outside_names import UnsafeNameError, require_safe_name
from personas.schemas.chat import Persona, to_nfc

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 100_000
MAX_FILES = 25
"""Files of a persona in a guild: as many as a Discord menu can show."""
# Lore of a guild for all its personas: embedding and searching it takes time from all other guilds.
MAX_GUILD_FILES = 100
MAX_GUILD_BYTES = 1_000_000
MAX_NAME_CHARS = 60
"""Characters of a file's name, without its suffix."""
LORE_PART = "lore"
"""Name of the folder of a persona's lore in the trash."""
NON_NAME_CHARS_PATTERN = re.compile(r"[^\w-]+")


@dataclass(frozen=True)
class GuildLore:
    """The lore files of all guilds, and their index. `home` is UNDERSTUDY_HOME.

    `shipped` is the folder of the bundled lore; without it the operator's files do not replace
    bundled ones. With `keeping` changed and removed files keep revisions; without it their
    revisions are deleted.
    """

    home: Path
    index: LoreIndex
    shipped: Path | None = None
    keeping: bool = False

    def files(self, guild_id: int, persona_id: str) -> list[str]:
        """The sorted names of a persona's files in a guild."""
        return sorted(path.name for path in self._folder(guild_id, persona_id).glob("*.md"))

    async def add(
        self, guild_id: int, persona_id: str, name: str, content: bytes
    ) -> tuple[str, int]:
        """Store a file; returns its name and number of passages. Raises `RefusedError` (too many)
        and `LoreError`.
        """
        # No guild takes more than one thread, or more room than it has.
        async with self.index.edits[guild_id]:
            return await asyncio.to_thread(
                self._add, guild_id, persona_id, name=name, content=content
            )

    def require_room(
        self, guild_id: int, persona_id: str, sizes: Mapping[str, int], without: Iterable[str] = ()
    ) -> None:
        """Raise `RefusedError` if a guild has no room for these files of a persona once those
        `without` are removed.

        `sizes` is in bytes, by name. Lore that is over a limit already may change, but not grow.
        """
        folder = self._folder(guild_id, persona_id)
        before = _file_sizes(folder.parent)
        removed = {folder / name for name in without}
        after = {path: size for path, size in before.items() if path not in removed}
        after |= {folder / name: size for name, size in sizes.items()}
        own = sum(path.parent == folder for path in after)
        if own > max(MAX_FILES, sum(path.parent == folder for path in before)):
            raise RefusedError(
                gettext_lazy(
                    "There would be {count} files; {most} is the most.",
                    count=own,
                    most=MAX_FILES,
                ),
                gettext_lazy("Remove some, or merge them."),
            )
        if guild_id == OPERATOR_GUILD_ID:
            return
        size = sum(after.values())
        if len(after) > max(MAX_GUILD_FILES, len(before)):
            wanted = gettext_lazy(
                "{count} files; {most} is the most", count=len(after), most=MAX_GUILD_FILES
            )
            raise _no_room(guild_id, wanted, before)
        if size > max(MAX_GUILD_BYTES, sum(before.values())):
            wanted = gettext_lazy(
                "{size}; {most} is the most",
                size=_kilobytes(size),
                most=_kilobytes(MAX_GUILD_BYTES),
            )
            raise _no_room(guild_id, wanted, before)

    async def exclude_file(self, persona_id: str, file: str) -> None:
        """Exclude a bundled file from the index; the operator's replacement goes, too."""
        await asyncio.to_thread(self._put, OPERATOR_GUILD_ID, persona_id, file=file, text="")
        await self.refresh(OPERATOR_GUILD_ID, persona_id)

    def is_known(self, guild_id: int, persona_id: str, file: str) -> bool:
        """Report whether a persona has a file of this name, or one that can be brought back."""
        paths = [self._folder(guild_id, persona_id) / file]
        if guild_id == OPERATOR_GUILD_ID and self.shipped:
            paths.append(self.shipped / persona_id / file)
        paths += find_parts(self.home, guild_id, persona_id, f"{LORE_PART}/{file}")
        return any(path.exists() for path in paths)

    def free_name(self, guild_id: int, persona_id: str, wanted: str) -> str:
        """Return the name of a new file, with a number where another one has the wanted name.
        Raises `LoreError` when nothing is left of it.
        """
        stem = lore_file_name(wanted).removesuffix(".md")

        def is_taken(name: str) -> bool:
            return self.is_known(guild_id, persona_id, f"{name}.md")

        return first_free(stem, is_taken, MAX_NAME_CHARS) + ".md"

    async def throw_away(self, guild_id: int, persona_id: str, file: str) -> TrashEntry:
        """Move a file into the trash; its revisions and the record of who contributed it stay as
        long. Raises `RefusedError`, which lists the files, and `OSError`.
        """
        self._require_file(guild_id, persona_id, file)
        entry = TrashEntry(
            guild_id=guild_id, kind="lore-file", id=persona_id, name=file, at=time.time()
        )
        await asyncio.to_thread(throw_away, self.home, entry, self._trash_parts(entry))
        await self.refresh(guild_id, persona_id)
        return entry

    async def bring_back(self, entry: TrashEntry) -> None:
        """Bring a file back from the trash. Raises `RefusedError` where there is another one of its
        name by now, no room, or where it was erased, and `OSError`.
        """
        ((part, path),) = self._trash_parts(entry).items()
        kept = entry_folder(self.home, entry) / part
        if not kept.exists():
            raise RefusedError(gettext_lazy("That can be brought back no more."))
        if path.exists():
            raise RefusedError(
                gettext_lazy("There is another lore file {file!r} by now.", file=entry.name),
                gettext_lazy("Remove it first; that can be undone, too."),
            )
        self.require_room(entry.guild_id, entry.id, {entry.name: kept.stat().st_size})
        await asyncio.to_thread(take_back, self.home, entry, {part: path})
        await self.refresh(entry.guild_id, entry.id)

    def _trash_parts(self, entry: TrashEntry) -> dict[str, Path]:
        """Return the path of a file's entry by that in the entry, which is the one of whole folders
        of lore, so that `find_parts` finds either.
        """
        path = self._folder(entry.guild_id, entry.id) / entry.name
        return {f"{LORE_PART}/{entry.name}": path}

    async def remove(self, guild_id: int, persona_id: str, file: str) -> None:
        """Remove a file from disk and index. Raises `RefusedError`, which lists the files."""
        self._require_file(guild_id, persona_id, file)
        self._keep_or_forget(guild_id, persona_id, file)
        (self._folder(guild_id, persona_id) / file).unlink()
        await self.refresh(guild_id, persona_id)

    def _require_file(self, guild_id: int, persona_id: str, file: str) -> None:
        known = self.files(guild_id, persona_id)
        if file not in known:
            names = join_names(f"`{name}`" for name in known) or gettext_lazy("none")
            raise RefusedError(
                gettext_lazy("This server has no lore file {file!r}.", file=file),
                gettext_lazy("There are: {names}.", names=names),
            )

    async def refresh(self, guild_id: int, persona_id: str) -> None:
        """Update the index from the disk."""
        await asyncio.to_thread(self._refresh, guild_id, persona_id)

    def text(self, guild_id: int, persona_id: str, file: str) -> str | None:
        """Read a file; None where there is none."""
        if file not in self.files(guild_id, persona_id):
            return None
        return (self._folder(guild_id, persona_id) / file).read_text(encoding="utf-8")

    def earlier(self, guild_id: int, persona_id: str, file: str) -> RevisionHistory:
        """The revisions of a file."""
        return RevisionHistory.of(self.home, self._folder(guild_id, persona_id) / file)

    def delete_revisions(self, guild_id: int, persona_id: str) -> None:
        """Delete the revisions of all of a persona's files."""
        shutil.rmtree(
            self.earlier(guild_id, persona_id, "any.md").folder.parent, ignore_errors=True
        )

    def removed(self, guild_id: int, persona_id: str) -> list[str]:
        """The sorted names of removed files with revisions."""
        files = self.files(guild_id, persona_id)
        revisions = self.earlier(guild_id, persona_id, "any.md").folder.parent.glob("*.md")
        return sorted(folder.name for folder in revisions if folder.name not in files)

    def _add(self, guild_id: int, persona_id: str, name: str, content: bytes) -> tuple[str, int]:
        file = lore_file_name(name)
        text = _check_content(file, content, {persona_id, _short_id(guild_id, persona_id)})
        self.require_room(guild_id, persona_id, {file: len(text.encode())})
        added = _passages(guild_id, persona_id, file, text)
        if not added:
            raise LoreError(
                gettext_lazy("{file} holds no text.", file=file),
                gettext_lazy("Write below its headings."),
            )
        others = read_guild_lore(self.home, guild_id, persona_id, without=file)
        # Another pronoun may be the most frequent one now, so all of the persona's passages are
        # prepared.
        self.index.prepare([*others, *added])
        self._put(guild_id, persona_id, file, text)  # no front matter: the folder names the persona
        self._refresh(guild_id, persona_id)
        return file, len(added)

    def _refresh(self, guild_id: int, persona_id: str) -> None:
        owner = guild_owner(guild_id, persona_id)
        self.index.replace(owner, lambda: read_guild_lore(self.home, guild_id, persona_id))
        if guild_id == OPERATOR_GUILD_ID and self.shipped:
            shipped = self.shipped
            others = self.index.owners
            self.index.replace(
                persona_id, lambda: read_shipped_lore(shipped, [persona_id], self.home, others)
            )

    def _put(self, guild_id: int, persona_id: str, file: str, text: str) -> None:
        folder = self._folder(guild_id, persona_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.keeping:
            self._keep_or_forget(guild_id, persona_id, file)
        write_file(folder / file, text.encode())
        if not self.keeping:  # last, so that a full disk costs nothing
            self._keep_or_forget(guild_id, persona_id, file)

    def _keep_or_forget(self, guild_id: int, persona_id: str, file: str) -> None:
        earlier = self.earlier(guild_id, persona_id, file)
        path = self._folder(guild_id, persona_id) / file
        if not self.keeping:
            earlier.forget()
        elif path.exists() and (before := path.read_bytes()):
            earlier.keep(before, time.time())

    def _folder(self, guild_id: int, persona_id: str) -> Path:
        return lore_parts(self.home, guild_id, persona_id)[LORE_PART]


def lore_parts(home: Path, guild_id: int, persona_id: str) -> dict[str, Path]:
    """Return the folder of a persona's lore in a guild, by its name in the trash."""
    return {LORE_PART: home / "lore" / str(guild_id) / persona_id}


async def contribute_lore(
    people: MemberRecords,
    lore: GuildLore,
    guild_id: int,
    persona_id: str,
    name: str,
    content: bytes,
    user_id: int,
) -> tuple[str, int]:
    """Store a member's file like `GuildLore.add`; from before it is on the disk their erasure
    deletes it.
    """
    contribution = Contribution(
        guild_id=guild_id,
        persona_id=persona_id,
        what=lore_file_name(name),
        user_id=user_id,
        at=time.time(),
    )
    with people.contributing(
        contribution, lambda: lore.text(guild_id, persona_id, contribution.what)
    ):
        return await lore.add(guild_id, persona_id, name, content)


def remove_stale_contributions(people: MemberRecords, home: Path) -> list[Contribution]:
    """Delete the records of files that neither exist nor have revisions, as a crash leaves them;
    returns them.
    """
    stale = [gift for gift in people.contributions() if not _exists(home, gift)]
    for gift in stale:
        people.remove_contribution(gift.guild_id, gift.persona_id, gift.what)
    return stale


def _exists(home: Path, contribution: Contribution) -> bool:
    guild = str(contribution.guild_id)
    if contribution.what == CARD_CONTRIBUTION:
        path = home / "personas" / guild / contribution.persona_id / CARD_FILE
        part = f"{CARD_PART}/{CARD_FILE}"
    else:
        path = home / "lore" / guild / contribution.persona_id / contribution.what
        part = f"{LORE_PART}/{contribution.what}"
    if path.exists() or RevisionHistory.of(home, path).folder.exists():
        return True
    return bool(find_parts(home, contribution.guild_id, contribution.persona_id, part))


def read_all_lore(shipped: Path, persona_ids: Iterable[str], home: Path) -> list[Passage]:
    """Read the bundled lore, and the lore that guilds and the operator have added."""
    owners = [*persona_ids, *find_lore_sets(shipped, home)]
    return read_shipped_lore(shipped, owners, home) + read_all_guild_lore(home)


def read_all_guild_lore(home: Path) -> list[Passage]:
    """Read the lore that guilds have added. Unreadable lore of one persona does not affect the
    others.
    """
    passages = []
    for folder in sorted((home / "lore").glob("[0-9]*/*/")):
        try:
            passages += read_guild_lore(home, int(folder.parent.name), folder.name)
        except (LoreError, OSError, ValueError) as error:
            log.error("the lore in %s is left out: %s", folder, error)
    return passages


def read_guild_lore(home: Path, guild_id: int, persona_id: str, without: str = "") -> list[Passage]:
    """Read the lore that a guild has added to a persona, except one file. Raises `LoreError` for a
    damaged file.
    """
    passages: list[Passage] = []
    for path in sorted((home / "lore" / str(guild_id) / persona_id).glob("*.md")):
        if path.name != without:
            text = _check_content(path.name, path.read_bytes(), {persona_id})
            passages += _passages(guild_id, persona_id, path.name, text)
    return passages


def lore_file_name(wanted: str) -> str:
    """Make a file name of letters of any script, digits, - and _. Raises `LoreError` when nothing
    is left.
    """
    stem = to_nfc(wanted.strip()).casefold()
    for suffix in (".md", ".markdown", ".txt"):
        stem = stem.removesuffix(suffix)
    name = NON_NAME_CHARS_PATTERN.sub("-", stem).strip("-_")[:MAX_NAME_CHARS]
    if not name:
        raise LoreError(
            gettext_lazy("{wanted!r} makes no file name.", wanted=wanted),
            gettext_lazy("Use letters and digits."),
        )
    file = f"{name}.md"
    try:
        require_safe_name(file)
    except UnsafeNameError as error:
        raise LoreError(f"A file's name {error}.", "Choose another name.") from None
    return file


def _file_sizes(folder: Path) -> dict[Path, int]:
    """Return the sizes of all lore files of a guild."""
    sizes = {}
    for path in folder.glob("*/*.md"):
        with suppress(FileNotFoundError):  # removed meanwhile
            sizes[path] = path.stat().st_size
    return sizes


def _no_room(guild_id: int, wanted: str, sizes: Mapping[Path, int]) -> RefusedError:
    """Refuse more lore; names the personas that have most of it."""
    by_persona = Counter[str]()
    for path, size in sizes.items():
        by_persona[_short_id(guild_id, path.parent.name)] += size
    advice = gettext_lazy("Add less.")
    if by_persona:
        largest = []
        for name, size in by_persona.most_common(3):
            held = {"name": name, "size": _kilobytes(size)}
            largest.append(LocalisableText("`{name}` ({size})", values=held))
        advice = gettext_lazy(
            "Remove some with `/persona lore remove`. Largest: {files}.", files=join_names(largest)
        )
    return RefusedError(
        gettext_lazy("The lore of all personas of this server would have {wanted}.", wanted=wanted),
        advice,
    )


def _kilobytes(size: int) -> LocalisableText:
    return localisable_number(f"{math.ceil(size / 1000):,} KB")


def _passages(guild_id: int, persona_id: str, file: str, text: str) -> list[Passage]:
    return split_passages(
        guild_owner(guild_id, persona_id), f"{_short_id(guild_id, persona_id)}/{file}", text
    )


def _short_id(guild_id: int, persona_id: str) -> str:
    return short_id(Persona(persona_id, persona_id), guild_id)


def _check_content(file: str, content: bytes, ids: set[str]) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise LoreError(
            gettext_lazy("{file} has more than {size} KB.", file=file, size=MAX_FILE_BYTES // 1000),
            gettext_lazy("Split it into several files."),
        )
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoreError(
            gettext_lazy("{file} is not UTF-8 text (byte {start}).", file=file, start=error.start),
            gettext_lazy("Save it as UTF-8."),
        ) from None
    if "\0" in decoded:
        raise LoreError(
            gettext_lazy("{file} is not text.", file=file), gettext_lazy("Lore is markdown.")
        )
    owners, text = parse_lore(decoded, file)
    own_keys = {fold_key(persona_id) for persona_id in ids}
    if owners and own_keys.isdisjoint(fold_key(owner) for owner in owners):
        raise LoreError(
            gettext_lazy(
                "The front matter of {file} says that it is {names}'s.",
                file=file,
                names=", ".join(owners),
            ),
            gettext_lazy("Name that persona."),
        )
    return text


def set_choice_text(whose: str, is_taken: bool | None, lore_set: LoreSet) -> str:
    """Say for the audit channel that somebody's use of a set was chosen; None: no longer."""
    values = {"persona": whose, "set": f"**{lore_set.name}**"}
    if is_taken is None:
        return gettext_lazy("reset to the default whether {persona} uses the lore {set}", **values)
    if is_taken:
        return gettext_lazy("let {persona} use the lore {set}", **values)
    return gettext_lazy("let {persona} no longer use the lore {set}", **values)
