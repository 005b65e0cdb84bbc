"""Imports and exports character cards, with their lore and the adapter that a card may bundle."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bot.errors import RefusedError
from bot.personas.base_model_compat import CardTokenCount, count_card_tokens, require_token_budget
from bot.personas.guild_lore import MAX_FILE_BYTES, GuildLore
from bot.personas.registry import ImportedPersona, PersonaRegistry
from bot.store import CARD_CONTRIBUTION, JobResult, Store, TrainingJob
from bot.store.training_jobs import NewTrainingJob
from personas.card.character_book import book_as_lore
from personas.card.formats import CardExport, CardForm, parse_card, to_persona, write_card
from personas.card.spec_card import Card
from personas.errors import AdapterError, BaseModelError, CardError, UnderstudyError
from personas.home.adapters import MANIFEST_FILE, adapter_ref, install_adapter_folder
from personas.home.card_adapter import has_adapter, require_plain_lora, unpack_card_adapter
from personas.home.export_log import record_export
from personas.home.pseudonyms import HomeKey, keyed_person
from personas.models.base_model import fingerprint, locate
from personas.schemas.chat import Persona
from personas.schemas.training import AdapterManifest, TrainingRequest
from personas.schemas.training_events import ScoreSummary

MAX_CARD_BYTES = 25 * 2**20
MAX_UNPACKED_BYTES = 64 * 2**20  # an adapter of rank 16 over the embedded model, inside a card, has 19 MiB
BOOK_LORE_NAME = "character-book"  # prefix of the lore files made from a card's character book
FILE_SUFFIXES: dict[CardForm, str] = {"png": "png", "v2": "json", "v3": "json", "charx": "charx", "toml": "toml"}
IMPORT_JOB_NAME = "imported"
MAX_SHOWN_CHARS = 80
RECIPE_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
RequestOrigin = tuple[int, int, int]  # guild, channel and moderator


@dataclass(frozen=True)
class CardImport:
    """A card that was brought in: the persona, the card as it came, and what it takes of every prompt."""

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
) -> CardImport:
    """Make a card's file a persona of a guild, 0 for all of them; with `keeping` what it replaces is kept.

    Raises `CardError` and `RefusedError` as `Personas.bring_in` does, and for a card that leaves no room to talk.
    """

    def bring_in() -> CardImport:
        card = parse_card(data, file, MAX_UNPACKED_BYTES)
        persona = to_persona(card, file)
        room = count_card_tokens(persona, base_model)
        require_token_budget(persona, file, room)
        return CardImport(personas.bring_in(guild_id, card, file, wanted_id, keeping=keeping), card, room)

    return await asyncio.to_thread(bring_in)


async def import_character_book(lore: GuildLore, guild_id: int, persona: Persona, card: Card) -> list[str]:
    """Make the card's character book the persona's lore, in place of the one before. Says what became of it."""
    passages = 0
    for file in lore.files(guild_id, persona.id):
        if file.startswith(BOOK_LORE_NAME):
            await lore.remove(guild_id, persona.id, file)
    try:
        for number, text in enumerate(book_as_lore(card, MAX_FILE_BYTES), start=1):
            _, found = await lore.add(guild_id, persona.id, f"{BOOK_LORE_NAME}-{number}", text.encode())
            passages += found
    except UnderstudyError as error:
        return [f"Not all of its character book could be kept as lore: {error}"]
    count = "1 passage" if passages == 1 else f"{passages} passages"
    return [f"Its character book is lore now ({count})."] if passages else []


async def remove_persona(
    personas: PersonaRegistry, store: Store, lore: GuildLore, guild_id: int, persona: Persona
) -> None:
    """Remove a guild's own persona, 0 for one of all guilds: card, lore, and from where it lives. Its versions stay.

    Raises `RefusedError` for one that came with the bot.
    """
    personas.remove(guild_id, persona)
    store.people.remove_contribution(guild_id, persona.id, CARD_CONTRIBUTION)
    for file in lore.files(guild_id, persona.id):
        await lore.remove(guild_id, persona.id, file)
        store.people.remove_contribution(guild_id, persona.id, file)
    lore.delete_revisions(guild_id, persona.id)
    for where in [guild_id] if guild_id else [0, *sorted(store.guilds.known())]:
        for channel in store.channels.of_guild(where):
            if channel.persona_id == persona.id:
                store.channels.clear(where, channel.channel_id)


def export_card(card: Card, form: CardForm, persona: Persona, name: str) -> CardExport:
    """A card as a file. Raises `RefusedError` where the form cannot hold it."""
    try:
        return write_card(card, form, persona.name, avatar=name, persona_id=name)
    except CardError as error:
        raise RefusedError(error.message, "Choose another format.") from error


def log_card_export(
    home: Path, store: Store, guild_id: int, persona: Persona, file: str, content: bytes, whither: str
) -> None:
    """List a card that leaves, under whoever gave it; `whither` says where it went."""
    giver = store.people.contributor(guild_id, persona.id, CARD_CONTRIBUTION)
    if giver is not None:
        people = {keyed_person(HomeKey.of(home).people(), str(giver))}
        record_export(home, "card", f"{file}, {whither}", people, hashlib.sha256(content).hexdigest())


async def install_bundled_adapter(
    home: Path, store: Store, base_model: str, asked_in: RequestOrigin, persona_id: str, card: Card, where: str
) -> tuple[list[str], TrainingJob | None]:
    """Install the adapter that a card carries as the persona's next version.

    Gives what to say, nothing for a card without one, and the job that stands for it where it was installed. One that
    cannot be used here stays in the card, and it is said why.
    """
    if not has_adapter(card):
        return [], None

    def place_of(version: str) -> Path:
        return adapter_ref(home, persona_id, version).folder

    with tempfile.TemporaryDirectory(prefix="understudy-card-") as aside:
        try:
            manifest = await asyncio.to_thread(_unpack_adapter, card, Path(aside), where, base_model)
        except (AdapterError, BaseModelError) as error:
            return [f"The adapter in the card stays in it, and is not installed: {error}"], None
        here = {one.version: place_of(one.version) for one in store.versions.installed(persona_id)}
        if version := await asyncio.to_thread(_find_installed, here, manifest):
            return [f"The adapter in the card is here already: it is {version}."], None
        version = store.versions.reserve(persona_id)
        place = place_of(version)
        await asyncio.to_thread(install_adapter_folder, Path(aside), place)
    new = NewTrainingJob(secrets.token_hex(5), *asked_in, _import_request(base_model, persona_id, manifest))
    result = JobResult(adapter=str(place), seconds=0.0, scorecard=_without_verdict(manifest), imported=True)
    job = store.jobs.add_imported(new, version, result, time.time())
    return [f"The adapter in the card is its version {version}: **Promote** makes it live."], job


def _unpack_adapter(card: Card, aside: Path, where: str, served: str) -> AdapterManifest:
    manifest = unpack_card_adapter(card, aside, where)
    require_plain_lora(aside, manifest)
    if manifest.base_model_hash != fingerprint(locate(served, fetch=False)):
        made_for = re.sub(r"[^\w./@:-]", "", manifest.base_model)[:MAX_SHOWN_CHARS]
        raise AdapterError(f"It was made for another base model ({made_for}) than this bot serves.")
    return manifest


def _find_installed(here: Mapping[str, Path], manifest: AdapterManifest) -> str | None:
    """The version that is this very adapter, among those that are here."""
    for version, folder in here.items():
        try:
            if (
                AdapterManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes()).checksums
                == manifest.checksums
            ):
                return version
        except (OSError, ValidationError):  # a damaged one is found when it is to speak
            continue
    return None


def _without_verdict(manifest: AdapterManifest) -> ScoreSummary:
    """Its maker's losses without its maker's verdict: this bot's gate has not seen it."""
    return manifest.metrics.model_copy(update={"verdict": "", "reasons": (), "advice": ()})


def _import_request(base_model: str, persona_id: str, manifest: AdapterManifest) -> TrainingRequest:
    """Build the request stored for an imported adapter: persona, base model, and recipe."""
    request = TrainingRequest(job_name=IMPORT_JOB_NAME, base_model=base_model, persona=persona_id)
    if not RECIPE_NAME_PATTERN.fullmatch(manifest.recipe):  # another program's
        return request
    return TrainingRequest.model_validate({**request.model_dump(exclude_unset=True), "recipe": manifest.recipe})
