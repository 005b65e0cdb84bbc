"""Adapter folders on disk: `<home>/models/persona_adapters/<persona id>/<version>/`.

A folder is written aside, sealed with a manifest that holds the checksum of every file, and renamed into place. It is
read only after its checksums have been compared, and only from safetensors.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from personas.contracts import AdapterRef, Manifest
from personas.durable import sync, sync_tree
from personas.errors import AdapterError

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def adapter_ref(home: Path, persona_id: str, version: str) -> AdapterRef:
    """Where a version lies, whether or not it is there."""
    return AdapterRef(persona_id, version, home / "models" / "persona_adapters" / persona_id / version)


@contextmanager
def written_aside(final: Path) -> Iterator[Path]:
    """A folder to fill; it gets its final name when the block ends well and vanishes otherwise.

    Raises `FileExistsError` when the final name is taken.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield aside
        sync_tree(aside)
        if final.exists():
            raise FileExistsError(f"{final} exists already")
        aside.rename(final)
        sync(final.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the checksums of all files that are in the folder now."""
    sealed = manifest.model_copy(update={"checksums": _checksums(folder)})
    (folder / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return sealed


ROLL_BACK = "Roll back to another version, or train this one again."
NAME_ANOTHER = "Name a whole adapter: its folder holds manifest.json and adapter_model.safetensors."
"""What to do about an adapter that cannot be used: one that is live, and one that somebody named."""


def verify(folder: Path, advice: str = ROLL_BACK) -> Manifest:
    """Compare every file with the manifest. Raises `AdapterError` naming the first that differs, with the advice."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        found = _checksums(folder)
    except FileNotFoundError:
        raise AdapterError(f"There is no complete adapter in {folder}.", advice) from None
    except ValidationError as error:
        raise AdapterError(f"{MANIFEST} in {folder} is damaged: {error.errors()[0]['msg']}.", advice) from error
    except OSError as error:
        raise AdapterError(f"The adapter in {folder} cannot be read: {error}", advice) from error
    for name in sorted({*found, *manifest.checksums, WEIGHTS, CONFIG}):
        if name not in manifest.checksums:
            raise AdapterError(f"The adapter in {folder} has a file that its manifest does not know: {name}.", advice)
        if found.get(name) != manifest.checksums[name]:
            raise AdapterError(f"The adapter in {folder} is damaged: {name} is not as it was written.", advice)
    return manifest


def install(source: Path, target: Path) -> Manifest:
    """Copy a verified adapter folder to its place; one that is already there and whole is left as it is.

    Raises `AdapterError` for a damaged one, one that is never served, and where another one lies there.
    """
    manifest = verify(source)
    require_servable(manifest, source)
    if target.exists():
        if verify(target).checksums != manifest.checksums:
            raise AdapterError(f"{target} already holds another adapter.", "Choose a new version name.")
        return manifest
    with written_aside(target) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True)
        verify(aside)
    return manifest


def require_servable(manifest: Manifest, folder: Path) -> None:
    """Raise `AdapterError` for a copy that was trained for an audit: it has learned texts that were planted in it."""
    if manifest.audit:
        raise AdapterError(
            f"The adapter in {folder} was trained for an audit, with planted texts: it is never served.",
            "Use the adapter that the audit was of.",
        )


def _checksums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST:
            with path.open("rb") as file:
                sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
