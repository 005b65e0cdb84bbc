"""Adapter folders: where they are, manifest, checksums, verification and installation."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas.errors import AdapterError
from personas.home.atomic_files import atomic_folder
from personas.prompt.renderer import PROMPT_VERSION
from personas.schemas.chat import AdapterRef
from personas.schemas.scorecard import ScoreCard
from personas.schemas.training import JOB_NAME_PATTERN, AdapterManifest
from personas.schemas.training_events import Epoch

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
README_FILE = "README.md"
EFFECT_PROBE_FILE = "effect_probe.json"
"""Private to the home (`personas.home.effect_probe`): neither sealed by the manifest nor exported."""
OWN_WORDS_FILE = "own_words.jsonl"
OWN_WORDS_VECTORS_FILE = "own_words.npz"
"""Written exchanges that a version was trained on, and their vectors (`personas.words`); private to
the home, as above.
"""
SCORE_CARD_FILE = "scorecard.json"
COMPLETED_CARD_FOLDER = "completed_card"
"""The files of a score card that was completed after the adapter was sealed; private to the home,
too. They take precedence over the sealed ones.
"""
DIALOGUE_PREFIX = "dialogue/"
"""Prefix of the names of dialogue adapters."""
ROLL_BACK_ADVICE = "Roll back to another version, or train this one again."
NAME_ADAPTER_ADVICE = (
    "Name a complete adapter: its folder has manifest.json and adapter_model.safetensors."
)
"""Advice on adapters that cannot be used: the one above for a live adapter, this one for a named
folder.
"""
NO_LINKS_ADVICE = "Put the files themselves there: `cp -RL` copies what links lead to."


def adapter_ref(home: Path, persona_id: str, version: str) -> AdapterRef:
    """Return the reference to a version in a home, whether or not it exists."""
    return AdapterRef(
        persona_id, version, home / "models" / "persona_adapters" / persona_id / version
    )


@dataclass(frozen=True)
class DialogueAdapter:
    """An adapter without a persona: of a dialogue job (`name` is the job's) or of a run from the
    command line.

    The other fields are read from its manifest, which is verified when the adapter is loaded.
    """

    name: str
    version: str
    job_id: str
    base_model: str
    base_model_hash: str
    created_at: str
    folder: Path

    @property
    def id(self) -> str:
        """Its name as a model: `dialogue/NAME`."""
        return f"{DIALOGUE_PREFIX}{self.name}"

    @property
    def ref(self) -> AdapterRef:
        return AdapterRef(self.id, self.version, self.folder)


def dialogue_adapter_folder(home: Path, job_name: str) -> Path:
    """Return the folder of a dialogue job's adapter, whether or not it exists."""
    return home / "models" / "dialogue" / job_name


def find_dialogue_adapters(home: Path) -> dict[str, DialogueAdapter]:
    """Find the dialogue adapters of a home by name: those of jobs, then those of `trainer train
    --dialogue`.

    One whose manifest cannot be read has no version: it is refused when it is loaded. Folders whose
    names are no job names are left out.
    """
    found = {}
    for folder in (home / "runs").glob("*/adapter/"):
        manifest = _read_manifest(folder)
        is_dialogue = bool(manifest) and manifest.get("persona") is None
        if is_dialogue and not manifest.get("audit"):
            found[folder.parent.name] = _dialogue_adapter(folder.parent.name, folder, manifest)
    # A job's adapter takes precedence over a run's of the same name.
    for folder in dialogue_adapter_folder(home, "any").parent.glob("*/"):
        found[folder.name] = _dialogue_adapter(folder.name, folder, _read_manifest(folder))
    return {name: found[name] for name in sorted(found) if re.fullmatch(JOB_NAME_PATTERN, name)}


def _dialogue_adapter(name: str, folder: Path, manifest: dict[str, Any]) -> DialogueAdapter:
    return DialogueAdapter(
        name=name,
        version=str(manifest.get("version", "")),
        job_id=str(manifest.get("job_id", "")),
        base_model=str(manifest.get("base_model", "")),
        base_model_hash=str(manifest.get("base_model_hash", "")),
        created_at=str(manifest.get("created_at", "")),
        folder=folder,
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest without verifying anything; empty where it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def write_manifest(folder: Path, manifest: AdapterManifest) -> AdapterManifest:
    """Write the manifest with the checksums of all files now in the folder, and return it."""
    complete = manifest.model_copy(update={"checksums": _checksums(folder)})
    (folder / MANIFEST_FILE).write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return complete


def largest_rank(home: Path) -> int:
    """Return the largest LoRA rank of the installed adapters; 0 without any that can be read."""
    ranks = [0]
    for file in (home / "models" / "persona_adapters").glob(f"*/*/{CONFIG_FILE}"):
        try:
            config = json.loads(file.read_bytes())
            ranks += [int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # loading it reports what is wrong
    return max(ranks)


def require_manifest(folder: Path, advice: str = ROLL_BACK_ADVICE) -> AdapterManifest:
    """Read the manifest, whatever the other files hold. Raises `AdapterError`."""
    with _read_errors(folder, advice):
        return _manifest_in(folder)


def _manifest_in(folder: Path) -> AdapterManifest:
    manifest = AdapterManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    learned = manifest.prompt_version  # empty for adapters of other programs
    if learned.isdecimal() and int(learned) > int(PROMPT_VERSION):
        raise AdapterError(
            f"The adapter in {folder} was trained by a newer Understudy (prompts of version "
            f"{learned}, known here {PROMPT_VERSION}).",
            "Update the project, or use another version.",
        )
    return manifest


@contextmanager
def _read_errors(folder: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise AdapterError(f"There is no complete adapter in {folder}.", advice) from None
    except ValidationError as error:
        raise AdapterError(
            f"{MANIFEST_FILE} in {folder} is damaged: {error.errors()[0]['msg']}.", advice
        ) from error
    except OSError as error:
        raise AdapterError(f"The adapter in {folder} cannot be read: {error}.", advice) from error


def verify_adapter(folder: Path, advice: str = ROLL_BACK_ADVICE) -> AdapterManifest:
    """Verify every file against the manifest. Raises `AdapterError` with the first difference and
    the advice.
    """
    with _read_errors(folder, advice):
        manifest = _manifest_in(folder)
        actual = _checksums(folder)
    require_checksums(manifest, actual, f"The adapter in {folder}", advice)
    return manifest


def require_checksums(
    manifest: AdapterManifest, actual: Mapping[str, str], where: str, advice: str
) -> None:
    """Compare the SHA-256 of an adapter's files, by name and without the manifest's own, with its
    manifest.

    Raises `AdapterError` with the first difference.
    """
    # The two files that are loaded are named, or a manifest without checksums would cover nothing.
    for name in sorted({*actual, *manifest.checksums, WEIGHTS_FILE, CONFIG_FILE}):
        if name not in manifest.checksums:
            raise AdapterError(f"{where} has a file that is not in its manifest: {name}.", advice)
        if actual.get(name) != manifest.checksums[name]:
            raise AdapterError(f"{where} is damaged: {name} does not match its checksum.", advice)


def read_epochs(folder: Path) -> tuple[Epoch, ...]:
    """Read the epochs of an adapter's training from its report; none for adapters that have no such
    report.
    """
    try:
        figures = json.loads((folder / "report" / "training.json").read_text(encoding="utf-8"))
        return tuple(Epoch.model_validate(event) for event in figures["epochs"])
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def install_adapter_folder(
    source: Path, target: Path, *, advice: str = ROLL_BACK_ADVICE
) -> AdapterManifest:
    """Copy a verified adapter into place, unless it is there already. Raises `AdapterError`, also
    if another one is.

    `advice` tells what to do about a damaged source.
    """
    manifest = verify_adapter(source, advice)
    require_servable(manifest, source)
    if target.exists():
        if verify_adapter(target).checksums != manifest.checksums:
            raise AdapterError(
                f"{target} already holds another adapter.", "Choose a new version name."
            )
        return manifest
    with atomic_folder(target) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        verify_adapter(temporary)  # the source may have changed since it was verified
    return manifest


def require_servable(manifest: AdapterManifest, folder: Path) -> None:
    """Raise `AdapterError` for a copy trained for an audit: it has memorised texts planted in its
    training.
    """
    if manifest.audit:
        raise AdapterError(
            f"The adapter in {folder} was trained for an audit, with planted texts, and is never "
            "served.",
            "Use the adapter that was audited.",
        )


def _checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file but the manifest and private ones. Raises `AdapterError` at a
    link: it may change or lead away.
    """
    sums = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise AdapterError(f"The adapter in {folder} holds a link: {name}.", NO_LINKS_ADVICE)
        if path.is_file() and name != MANIFEST_FILE and not is_private_file(name):
            with path.open("rb") as file:
                sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def is_private_file(name: str) -> bool:
    """Report whether a file of an adapter folder is the home's own: in no manifest and no export."""
    private = (EFFECT_PROBE_FILE, OWN_WORDS_FILE, OWN_WORDS_VECTORS_FILE)
    return name in private or name.startswith(f"{COMPLETED_CARD_FOLDER}/")


def score_card_file(adapter: Path, name: str) -> Path:
    """Return the newest of a file of an adapter's score card, whether or not it exists."""
    folder = adapter / COMPLETED_CARD_FOLDER
    if not folder.is_dir():
        folder = adapter
    return folder / name


def read_score_card(adapter: Path) -> ScoreCard | None:
    """Read the newest score card of an adapter; None where it has none that can be read."""
    try:
        file = score_card_file(adapter, SCORE_CARD_FILE)
        return ScoreCard.model_validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None


def install_completed_card(source: Path, target: Path) -> None:
    """Copy the completed score card of an adapter folder into another one, unless it is there
    already. Raises `OSError`.
    """
    card = source / COMPLETED_CARD_FOLDER
    installed = target / COMPLETED_CARD_FOLDER
    if card.is_dir() and not installed.exists():
        with atomic_folder(installed) as temporary:
            shutil.copytree(card, temporary, dirs_exist_ok=True)


def verify_for_base_model(adapter: AdapterRef, base_hash: str) -> None:
    """Verify an adapter folder, and its base model against the one that is served. Raises
    `AdapterError`.
    """
    manifest = verify_adapter(adapter.folder)
    require_servable(manifest, adapter.folder)
    if manifest.base_model_hash != base_hash:
        raise AdapterError(
            f"{adapter.persona_id} {adapter.version} was trained on another base model "
            f"({manifest.base_model}).",
            "Serve that base model again, or train the persona on this one.",
        )
