"""Adds uploaded lore: a markdown file as it is, and a lorebook of another program as markdown
files.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from bot.personas.guild_lore import MAX_FILE_BYTES, GuildLore, lore_file_name
from bot.platform.localisation import LocalisableText, gettext_lazy
from personas.errors import LoreError
from personas.lore.lorebook_markdown import lorebook_as_markdown
from personas.lore.lorebooks import (
    LOREBOOK_SUFFIXES,
    MAX_LOREBOOK_BYTES,
    NAMES,
    parse_lorebook,
    read_lorebook,
)
from personas.lore.passages import is_lore_set
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import Persona
from personas.schemas.import_report import ImportReport

StoreFile = Callable[[str, bytes], Awaitable[tuple[str, int]]]
"""Stores a lore file by its wanted name; returns its name and number of passages."""


@dataclass(frozen=True)
class AddedLore:
    """Lore that was added: its files, and how many passages they have. `report` is None for a
    markdown file.

    `kind` names the lorebook that it was. `is_beside` tells that another file had the wanted name.
    """

    files: tuple[str, ...]
    passages: int
    report: ImportReport | None = None
    kind: str = ""
    is_beside: bool = False


def max_upload_bytes(name: str) -> int:
    """Return the largest size of an uploaded file with this name: a lorebook has much that is not
    text.
    """
    if name.lower().endswith(LOREBOOK_SUFFIXES):
        return MAX_LOREBOOK_BYTES
    return MAX_FILE_BYTES


def beside_text(added: AddedLore) -> LocalisableText | None:
    """Say that another file had the name of new lore; None where none had."""
    if not added.is_beside:
        return None
    return gettext_lazy(
        "Another file of lore has its name, or had it within the last day, so that it got a number. "
        "Neither replaces the other."
    )


def titled_text(title: str, text: str) -> str:
    """Return a text that was written into a form with its title as a heading, unless it has one or
    is a lorebook.
    """
    if text.lstrip().startswith("#") or _is_lorebook(text):
        return text
    return f"# {title}\n\n{text}"


def _is_lorebook(text: str) -> bool:
    try:
        return parse_lorebook(text.encode("utf-8", "replace"), "the text") is not None
    except LoreError:
        return False


async def add_lore(
    lore: GuildLore,
    guild_id: int,
    persona: Persona,
    name: str,
    *,
    content: bytes,
    store: StoreFile,
    replace: bool,
) -> AddedLore:
    """Store an uploaded file of lore with `store`, under a name that is free unless it is to
    `replace` the one of its name. Raises `LoreError`, and `RefusedError` where there is no room.

    A lorebook replaces the files that an earlier one of its name has become; nothing is stored if
    there is no room.
    """

    def file_name(wanted: str) -> str:
        return lore_file_name(wanted) if replace else lore.free_name(guild_id, persona.id, wanted)

    document = await asyncio.to_thread(parse_lorebook, content, name)
    if document is None:
        file, passages = await store(file_name(name), content)
        return AddedLore((file,), passages, is_beside=file != lore_file_name(name))
    speaker = "{{char}}" if is_lore_set(persona.id) else persona.nickname or persona.name
    book = await asyncio.to_thread(read_lorebook, document, speaker, EXAMPLE_USER)
    stem = PurePosixPath(name).stem if name.lower().endswith(LOREBOOK_SUFFIXES) else name
    texts = await asyncio.to_thread(
        lorebook_as_markdown, book.entries, book.title or stem, MAX_FILE_BYTES
    )
    if not texts:
        why = "; ".join(book.report().lines()) or "It has no entries."
        raise LoreError(f"{name} is {NAMES[book.kind]}, but nothing of it can be used.", why)
    files = {}
    for number, text in enumerate(texts, start=1):
        part = stem if number == 1 else f"{stem}-part-{number}"
        files[file_name(part)] = text.encode()
    sizes = {file: len(part_bytes) for file, part_bytes in files.items()}
    # An earlier lorebook of this name may have become more files.
    prefix = lore_file_name(f"{stem}-part-2").removesuffix("2.md")
    outdated = []
    for file in lore.files(guild_id, persona.id):
        if replace and file.startswith(prefix) and file not in files:
            outdated.append(file)
    await asyncio.to_thread(lore.require_room, guild_id, persona.id, sizes=sizes, without=outdated)
    passages = 0
    for file, part_bytes in files.items():
        _, added = await store(file, part_bytes)
        passages += added
    for file in outdated:
        await lore.remove(guild_id, persona.id, file)
    is_beside = lore_file_name(stem) not in files
    return AddedLore(
        tuple(files), passages, book.report(), kind=NAMES[book.kind], is_beside=is_beside
    )
