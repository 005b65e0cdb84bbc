"""Imports and exports character cards with their lore; installs adapters that were trained
elsewhere as versions.
"""

import asyncio
import hashlib
import math
import re
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bot.personas.base_model_compat import CardTokenCount, count_card_tokens, require_token_budget
from bot.personas.guild_lore import MAX_FILE_BYTES, GuildLore, lore_file_name
from bot.personas.registry import ImportedPersona, PersonaRegistry, imported_persona_id
from bot.platform.errors import RefusedError, hide_paths
from bot.platform.request_origin import RequestOrigin
from bot.store import CARD_CONTRIBUTION, Contribution, JobResult, MemberRecords, Store, TrainingJob
from bot.training.store import NewTrainingJob
from personas.card.card_book import card_book
from personas.card.formats import CardExport, CardForm, parse_card, to_persona, write_card
from personas.card.spec_card import Card
from personas.errors import AdapterError, BaseModelError, CardError, UnderstudyError
from personas.home.adapters import (
    MANIFEST_FILE,
    NAME_ADAPTER_ADVICE,
    DialogueAdapter,
    adapter_ref,
    install_adapter_folder,
    verify_adapter,
)
from personas.home.card_adapter import has_adapter, require_plain_lora, unpack_card_adapter
from personas.home.external_files import record_export
from personas.home.lora_checks import base_linear_shapes
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.lore.lorebook_markdown import describe_uses, lorebook_as_markdown
from personas.lore.lorebooks import Lorebook
from personas.models.base_model import fingerprint, locate
from personas.schemas.chat import Persona
from personas.schemas.formatting import count_of
from personas.schemas.import_report import ImportReport, not_taken
from personas.schemas.training import AdapterManifest, TrainingRequest
from personas.schemas.training_events import ScoreSummary

MAX_CARD_BYTES = 25 * 2**20
MAX_UNPACKED_BYTES = 64 * 2**20
"""An adapter of rank 16 for the embedded model, inside a card, has 19 MiB."""
BOOK_LORE_NAME = "character-book"
"""Prefix of the lore files made from a card's character book."""
FILE_SUFFIXES: dict[CardForm, str] = {
    "png": "png",
    "v2": "json",
    "v3": "json",
    "charx": "charx",
    "toml": "toml",
}
IMPORT_JOB_NAME = "imported"
MAX_GUILD_IMPORTS, MAX_GUILD_IMPORTED_BYTES = 25, 2_000_000_000
"""Imported versions of a guild for all its personas: their files stay until somebody removes
them.
"""
MAX_SHOWN_CHARS = 80
RECIPE_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class CardImport:
    """An imported card: the persona, the original card, and its token count."""

    brought: ImportedPersona
    card: Card
    room: CardTokenCount


async def import_card(
    personas: PersonaRegistry,
    base_model: str,
    guild_id: int,
    data: bytes,
    file: str,
    wanted_id: str = "",
    *,
    keeping: bool = False,
    contributing: Callable[[str], AbstractContextManager[None]] = lambda persona_id: nullcontext(),
) -> CardImport:
    """Import a card file as a persona of a guild, 0 for all; with `keeping` a revision of the
    replaced card is kept.

    The card is stored within `contributing`, which is called with the persona's id. Raises
    `CardError` and `RefusedError` as `PersonaRegistry.bring_in` does, and for a card over the token
    budget.
    """

    def read() -> tuple[Card, CardTokenCount, str]:
        card = parse_card(data, file, MAX_UNPACKED_BYTES)
        persona = to_persona(card, file)
        room = count_card_tokens(persona, base_model)
        require_token_budget(persona, file, room)
        return card, room, imported_persona_id(guild_id, card, file, wanted_id)

    card, room, persona_id = await asyncio.to_thread(read)
    with contributing(persona_id):
        brought = await asyncio.to_thread(
            personas.bring_in, guild_id, card, file, wanted_id, keeping=keeping
        )
    return CardImport(brought, card, room)


async def contribute_card(
    personas: PersonaRegistry,
    people: MemberRecords,
    base_model: str,
    origin: RequestOrigin,
    data: bytes,
    file: str,
    wanted_id: str,
) -> CardImport:
    """Import a moderator's card, recorded as theirs from before it is on the disk. Raises as
    `import_card` does.
    """
    guild_id = origin.guild_id

    def contributing(persona_id: str) -> AbstractContextManager[None]:
        contribution = Contribution(
            guild_id=guild_id,
            persona_id=persona_id,
            what=CARD_CONTRIBUTION,
            user_id=origin.user_id,
            at=time.time(),
        )
        return people.contributing(contribution, lambda: personas.card_bytes(guild_id, persona_id))

    return await import_card(
        personas, base_model, guild_id, data, file, wanted_id, contributing=contributing
    )


async def import_character_book(
    lore: GuildLore, guild_id: int, persona: Persona, card: Card
) -> tuple[list[str], ImportReport]:
    """Replace the persona's lore from an earlier character book by this card's.

    Returns notes for the moderator, and what became of each entry. A book for which there is no
    room replaces nothing.
    """
    earlier = [file for file in lore.files(guild_id, persona.id) if file.startswith(BOOK_LORE_NAME)]
    book = await asyncio.to_thread(card_book, card)
    texts = enumerate(lorebook_as_markdown(book.entries, card.name, MAX_FILE_BYTES), start=1)
    files = {lore_file_name(f"{BOOK_LORE_NAME}-{number}"): text.encode() for number, text in texts}
    try:
        sizes = {file: len(content) for file, content in files.items()}
        await asyncio.to_thread(lore.require_room, guild_id, persona.id, sizes, earlier)
    except RefusedError as error:
        note = f"Its character book stays in the card, and its lore is as before: {error}"
        return [note], ImportReport((not_taken("character_book", error.message),))
    passages = 0
    for file in earlier:
        await lore.remove(guild_id, persona.id, file)
    try:
        for file, content in files.items():
            _, added = await lore.add(guild_id, persona.id, file, content)
            passages += added
    except UnderstudyError as error:
        note = f"Not all of its character book could be kept as lore: {error}"
        return [note], ImportReport((not_taken("part of character_book", error.message),))
    return ([_book_note(book, passages)] if passages else []), book.report()


def _book_note(book: Lorebook, passages: int) -> str:
    """Say what gives the passages of a book."""
    return (
        f"Its character book is lore now ({count_of(passages, 'passage')}): "
        f"{describe_uses(book.entries)}."
    )


async def remove_persona(
    personas: PersonaRegistry, store: Store, lore: GuildLore, guild_id: int, persona: Persona
) -> None:
    """Remove a guild's persona (0: a shared one) with its lore, memories and channels.

    Raises `RefusedError` for a bundled one.
    """
    is_shared = guild_id == OPERATOR_GUILD_ID
    with store.atomic(shared=is_shared):  # other processes reload the cards when they learn of it
        if is_shared:
            store.guilds.record_persona_removal(persona.id, time.time())
        store.guilds.forget_persona(persona.id)
        personas.remove(guild_id, persona)
    store.people.remove_contribution(guild_id, persona.id, CARD_CONTRIBUTION)
    for file in lore.files(guild_id, persona.id):
        await lore.remove(guild_id, persona.id, file)
        store.people.remove_contribution(guild_id, persona.id, file)
    lore.delete_revisions(guild_id, persona.id)


def export_card(card: Card, form: CardForm, persona: Persona, name: str) -> CardExport:
    """Write a card as a file. Raises `RefusedError` where the format cannot hold it."""
    try:
        return write_card(card, form, persona.name, avatar=name, persona_id=name)
    except CardError as error:
        raise RefusedError(error.message, "Choose another format.") from error


def log_card_export(
    home: Path,
    store: Store,
    guild_id: int,
    persona: Persona,
    file: str,
    content: bytes,
    recipient: str,
) -> None:
    """Log the export of a card to a recipient, under the member who contributed it."""
    contributor = store.people.contributor(guild_id, persona.id, CARD_CONTRIBUTION)
    if contributor is not None:
        people = {keyed_person(HomeKey.of(home).people(), str(contributor))}
        record_export(
            home, "card", f"{file}, {recipient}", people, hashlib.sha256(content).hexdigest()
        )


async def install_bundled_adapter(
    home: Path,
    store: Store,
    base_model: str,
    origin: RequestOrigin,
    persona_id: str,
    card: Card,
    where: str,
) -> tuple[list[str], TrainingJob | None]:
    """Install the adapter of a card as the persona's next version, unless it is one already.

    Returns notes for the moderator, none for a card without an adapter, and the job that stands for
    the installation. An unusable adapter stays in the card; a note says why.
    """
    if not has_adapter(card):
        return [], None
    with tempfile.TemporaryDirectory(prefix="understudy-card-") as unpacked:
        try:
            manifest = await asyncio.to_thread(
                _unpack_adapter, card, Path(unpacked), where, base_model
            )
            request = _import_request(base_model, persona_id, manifest, IMPORT_JOB_NAME)
            name = "The adapter in the card"
            _, note, job = await install_foreign_adapter(
                home, store, origin, request, Path(unpacked), name
            )
        except (AdapterError, BaseModelError, RefusedError) as error:
            return [
                "The adapter in the card stays in it, and is not installed: "
                f"{hide_paths(str(error))}"
            ], None
    return [note], job


async def install_foreign_adapter(
    home: Path,
    store: Store,
    origin: RequestOrigin,
    request: TrainingRequest,
    folder: Path,
    name: str,
) -> tuple[str, str, TrainingJob | None]:
    """Install a checked adapter folder as the next version of the request's persona, unless it is
    one already.

    Returns the version, a note that calls the adapter by this name, and the job that stands for the
    installation. Raises `RefusedError` where the guild has no room for it.
    """
    manifest = await asyncio.to_thread(verify_adapter, folder)
    if version := await _find_installed(
        home, store, origin.guild_id, request.persona or "", manifest
    ):
        return version, f"{name} is installed already: it is {version}.", None
    scorecard = manifest.metrics.model_copy(
        update={"verdict": "", "reasons": (), "advice": ()}
    )  # not this gate's
    job = await _install_version(home, store, origin, request, folder, scorecard)
    return job.version, f"{name} is its version {job.version}: **Promote** makes it live.", job


async def install_dialogue_adapter(
    home: Path, store: Store, origin: RequestOrigin, persona_id: str, adapter: DialogueAdapter
) -> str:
    """Install a copy of a dialogue adapter as the persona's next version; returns it, or the one
    that it is already.

    Raises `AdapterError` for a damaged adapter, and `RefusedError` where the guild has no room for
    it.
    """
    manifest = await asyncio.to_thread(verify_adapter, adapter.folder, NAME_ADAPTER_ADVICE)
    if version := await _find_installed(home, store, origin.guild_id, persona_id, manifest):
        return version
    request = _import_request(manifest.base_model, persona_id, manifest, adapter.name)
    request = request.model_copy(update={"start_from": adapter.name})
    return (
        await _install_version(home, store, origin, request, adapter.folder, manifest.metrics)
    ).version


async def _install_version(
    home: Path,
    store: Store,
    origin: RequestOrigin,
    request: TrainingRequest,
    source: Path,
    scorecard: ScoreSummary,
) -> TrainingJob:
    """Install an adapter folder as the next version of the request's persona; returns the job that
    stands for it.
    """
    new = NewTrainingJob(
        job_id=secrets.token_hex(5),
        guild_id=origin.guild_id,
        channel_id=origin.channel_id,
        requested_by=origin.user_id,
        request=request,
    )
    async with store.versions.imports[new.guild_id]:
        imported = [
            job
            for job in store.jobs.of_versions(new.guild_id)
            if job.result and job.result.imported
        ]
        await asyncio.to_thread(_require_room, home, new.guild_id, imported, source)
        version = store.versions.reserve(new.name)
        folder = adapter_ref(home, new.name, version).folder
        await asyncio.to_thread(install_adapter_folder, source, folder)
        result = JobResult(adapter=str(folder), seconds=0.0, scorecard=scorecard, imported=True)
        return store.jobs.add_imported(new, version, result, time.time())


def _require_room(home: Path, guild_id: int, imported: list[TrainingJob], source: Path) -> None:
    """Raise `RefusedError` if a guild that has these imported versions has no room for an adapter
    folder.
    """
    if guild_id == OPERATOR_GUILD_ID:
        return
    sizes = Counter(
        {
            f"{it.name} {it.version}": _size_bytes(adapter_ref(home, it.name, it.version).folder)
            for it in imported
        }
    )
    size = sizes.total() + _size_bytes(source)
    if len(sizes) >= MAX_GUILD_IMPORTS:
        wanted = f"{len(sizes) + 1} versions; {MAX_GUILD_IMPORTS} is the most"
    elif size > MAX_GUILD_IMPORTED_BYTES:
        wanted = f"{_megabytes(size)}; {_megabytes(MAX_GUILD_IMPORTED_BYTES)} is the most"
    else:
        return
    largest = ", ".join(f"`{name}` ({_megabytes(size)})" for name, size in sizes.most_common(3))
    raise RefusedError(
        f"The imported versions of this server would have {wanted}.",
        f"Remove one with `/finetune remove`. Largest: {largest}."
        if largest
        else "Import a smaller one.",
    )


def _megabytes(size: int) -> str:
    return f"{math.ceil(size / 1e6):,} MB"


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _unpack_adapter(card: Card, folder: Path, where: str, served: str) -> AdapterManifest:
    manifest = unpack_card_adapter(card, folder, where)
    base = locate(served, fetch=False)
    if manifest.base_model_hash != fingerprint(base):
        made_for = re.sub(r"[^\w./@:-]", "", manifest.base_model)[:MAX_SHOWN_CHARS]
        raise AdapterError(f"It was made for another base model ({made_for}) than this bot serves.")
    require_plain_lora(folder, manifest, base_linear_shapes(base))
    return manifest


async def _find_installed(
    home: Path, store: Store, guild_id: int, persona_id: str, manifest: AdapterManifest
) -> str | None:
    """Find the version of a persona with the files of this manifest that a guild (0: the operator)
    may use.
    """
    versions = [
        installed.version for installed in store.versions.installed(persona_id, guild_id or None)
    ]
    return await asyncio.to_thread(_find_same_files, home, persona_id, versions, manifest)


def _find_same_files(
    home: Path, persona_id: str, versions: list[str], manifest: AdapterManifest
) -> str | None:
    for version in versions:
        try:
            file = adapter_ref(home, persona_id, version).folder / MANIFEST_FILE
            installed = AdapterManifest.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):  # damaged ones are found when they are loaded
            continue
        if installed.checksums == manifest.checksums:
            return version
    return None


def _import_request(
    base_model: str, persona_id: str, manifest: AdapterManifest, job_name: str
) -> TrainingRequest:
    request = TrainingRequest(job_name=job_name, base_model=base_model, persona=persona_id)
    if not RECIPE_NAME_PATTERN.fullmatch(manifest.recipe):  # another program's
        return request
    return TrainingRequest.model_validate(
        {**request.model_dump(exclude_unset=True), "recipe": manifest.recipe}
    )
