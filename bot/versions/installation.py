"""Installs adapters that were trained elsewhere as versions: from a card, a folder, or a dialogue
job.
"""

import asyncio
import math
import re
import secrets
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bot.platform.errors import RefusedError, hide_paths
from bot.platform.localisation import (
    LocalisableText,
    gettext_lazy,
    join_names,
    localisable_number,
)
from bot.platform.request_origin import RequestOrigin
from bot.store import JobResult, Store, TrainingJob
from bot.training.store import NewTrainingJob
from personas.card.spec_card import Card
from personas.errors import AdapterError, BaseModelError
from personas.home.adapters import (
    MANIFEST_FILE,
    NAME_ADAPTER_ADVICE,
    DialogueAdapter,
    adapter_ref,
    install_adapter_folder,
    verify_adapter,
)
from personas.home.card_adapter import has_adapter, require_plain_lora, unpack_card_adapter
from personas.home.lora_checks import base_linear_shapes
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.models.base_model import fingerprint, locate
from personas.schemas.training import AdapterManifest, TrainingRequest
from personas.schemas.training_events import ScoreSummary

IMPORT_JOB_NAME = "imported"
# Imported versions of a guild for all its personas: their files stay until somebody removes them.
MAX_GUILD_IMPORTS = 25
MAX_GUILD_IMPORTED_BYTES = 2_000_000_000
MAX_SHOWN_CHARS = 80
RECIPE_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class InstallationResult:
    """The version that an adapter is, a note for the moderator, and the job that stands for the
    installation (None where the adapter was a version already).
    """

    version: str
    note: str
    job: TrainingJob | None


@dataclass(frozen=True)
class VersionInstaller:
    """Installs adapters in a home, unless they are versions of the persona already. A guild's
    imports take turns, and have limited room.
    """

    home: Path
    store: Store

    async def install_bundled(
        self, origin: RequestOrigin, persona_id: str, card: Card, where: str, *, base_model: str
    ) -> tuple[list[str], TrainingJob | None]:
        """Install the adapter of a card as the persona's next version.

        Returns notes for the moderator, none for a card without an adapter, and the job that stands
        for the installation. An unusable adapter stays in the card; a note says why.
        """
        if not has_adapter(card):
            return [], None
        with tempfile.TemporaryDirectory(prefix="understudy-card-") as unpacked:
            folder = Path(unpacked)
            try:
                manifest = await asyncio.to_thread(
                    _unpack_adapter, card, folder, where=where, served=base_model
                )
                request = _import_request(base_model, persona_id, manifest, IMPORT_JOB_NAME)
                result = await self.install_folder(
                    origin, request, folder, "The adapter in the card"
                )
            except (AdapterError, BaseModelError, RefusedError) as error:
                note = gettext_lazy(
                    "The adapter in the card stays in it, and is not installed: {error}",
                    error=hide_paths(str(error)),
                )
                return [note], None
        return [result.note], result.job

    async def install_folder(
        self, origin: RequestOrigin, request: TrainingRequest, folder: Path, name: str
    ) -> InstallationResult:
        """Install a checked adapter folder as the next version of the request's persona; the note
        calls the adapter by this name.

        Raises `RefusedError` where the guild has no room for it.
        """
        manifest = await asyncio.to_thread(verify_adapter, folder)
        version = await self._find_installed(origin.guild_id, request.persona or "", manifest)
        if version:
            note = gettext_lazy(
                "{name} is installed already: it is {version}.", name=name, version=version
            )
            return InstallationResult(version, note, job=None)
        # Another gate has judged it, so its verdict does not count here.
        scorecard = manifest.metrics.model_copy(update={"verdict": "", "reasons": (), "advice": ()})
        job = await self._install(origin, request, folder, scorecard)
        note = gettext_lazy(
            "{name} is its version {version}: **Promote** makes it live.",
            name=name,
            version=job.version,
        )
        return InstallationResult(job.version, note, job)

    async def install_dialogue(
        self, origin: RequestOrigin, persona_id: str, adapter: DialogueAdapter
    ) -> str:
        """Install a copy of a dialogue adapter as the persona's next version; returns the version.

        Raises `AdapterError` for a damaged adapter, and `RefusedError` where the guild has no room
        for it.
        """
        manifest = await asyncio.to_thread(verify_adapter, adapter.folder, NAME_ADAPTER_ADVICE)
        version = await self._find_installed(origin.guild_id, persona_id, manifest)
        if version:
            return version
        request = _import_request(manifest.base_model, persona_id, manifest, adapter.name)
        request = request.model_copy(update={"start_from": adapter.name})
        job = await self._install(origin, request, adapter.folder, manifest.metrics)
        return job.version

    async def _find_installed(
        self, guild_id: int, persona_id: str, manifest: AdapterManifest
    ) -> str | None:
        """Find the version of a persona with the files of this manifest that a guild (0: the
        operator) may use.
        """
        installed = self.store.versions.installed(persona_id, guild_id or None)
        versions = [version.version for version in installed]
        return await asyncio.to_thread(
            _find_same_files, self.home, persona_id, versions=versions, manifest=manifest
        )

    async def _install(
        self, origin: RequestOrigin, request: TrainingRequest, source: Path, scorecard: ScoreSummary
    ) -> TrainingJob:
        """Install an adapter folder as the next version of the request's persona; returns the job
        that stands for it.
        """
        new = NewTrainingJob(
            job_id=secrets.token_hex(5),
            guild_id=origin.guild_id,
            channel_id=origin.channel_id,
            requested_by=origin.user_id,
            request=request,
        )
        async with self.store.versions.imports[new.guild_id]:
            if new.guild_id != OPERATOR_GUILD_ID:
                imported = []
                for job in self.store.jobs.of_versions(new.guild_id):
                    if job.result and job.result.imported:
                        imported.append(job)
                await asyncio.to_thread(_require_room, self.home, imported, source)
            version = self.store.versions.reserve(new.name)
            folder = adapter_ref(self.home, new.name, version).folder
            await asyncio.to_thread(install_adapter_folder, source, folder)
            result = JobResult(adapter=str(folder), seconds=0.0, scorecard=scorecard, imported=True)
            return self.store.jobs.add_imported(new, version, result, time.time())


def _require_room(home: Path, imported: list[TrainingJob], source: Path) -> None:
    """Raise `RefusedError` if a guild that has these imported versions has no room for an adapter
    folder.
    """
    sizes = Counter[str]()
    for job in imported:
        folder = adapter_ref(home, job.name, job.version).folder
        sizes[f"{job.name} {job.version}"] = _size_bytes(folder)
    size = sizes.total() + _size_bytes(source)
    if len(sizes) >= MAX_GUILD_IMPORTS:
        message = gettext_lazy(
            "The imported versions of this server would have {count} versions; {most} is the most.",
            count=len(sizes) + 1,
            most=MAX_GUILD_IMPORTS,
        )
    elif size > MAX_GUILD_IMPORTED_BYTES:
        message = gettext_lazy(
            "The imported versions of this server would have {size}; {most} is the most.",
            size=_megabytes(size),
            most=_megabytes(MAX_GUILD_IMPORTED_BYTES),
        )
    else:
        return
    advice = gettext_lazy("Import a smaller one.")
    if sizes:
        largest = []
        for name, size in sizes.most_common(3):
            held = {"name": name, "size": _megabytes(size)}
            largest.append(LocalisableText("`{name}` ({size})", values=held))
        advice = gettext_lazy(
            "Remove one with `/finetune remove`. Largest: {versions}.", versions=join_names(largest)
        )
    raise RefusedError(message, advice)


def _megabytes(size: int) -> LocalisableText:
    return localisable_number(f"{math.ceil(size / 1e6):,} MB")


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _unpack_adapter(card: Card, folder: Path, where: str, served: str) -> AdapterManifest:
    manifest = unpack_card_adapter(card, folder, where)
    base = locate(served, fetch=False)
    if manifest.base_model_hash != fingerprint(base):
        made_for = re.sub(r"[^\w./@:-]", "", manifest.base_model)[:MAX_SHOWN_CHARS]
        raise AdapterError(
            gettext_lazy(
                "It was made for another base model ({made_for}) than this bot serves.",
                made_for=made_for,
            )
        )
    require_plain_lora(folder, manifest, base_linear_shapes(base))
    return manifest


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
