"""Adapters of the shipped personas, a folder each in `data/adapters` (`make adapters` builds them)."""

import logging
from pathlib import Path

from personas.errors import AdapterError
from personas.home.adapters import MANIFEST_FILE, require_manifest
from personas.schemas.training import AdapterManifest

SHIPPED_ADVICE = (
    "The base model answers for it. Fetch the project's files again (`git checkout data/adapters`, "
    "or install the package again), and start the bot again."
)
log = logging.getLogger(__name__)


def find_shipped_adapters(folder: Path, base_hash: str) -> dict[str, tuple[Path, AdapterManifest]]:
    """Find the shipped adapters for the base model with this fingerprint: folder and manifest, by
    persona.

    None of their other files is verified. An adapter whose manifest cannot be read is logged and
    left out.
    """
    adapters = {}
    for file in sorted(folder.glob(f"*/{MANIFEST_FILE}")):
        try:
            manifest = require_manifest(file.parent, SHIPPED_ADVICE)
        except AdapterError as error:
            log.error("a shipped adapter is left out: %s", error)
            continue
        if manifest.base_model_hash == base_hash and manifest.persona == file.parent.name:
            adapters[file.parent.name] = (file.parent, manifest)
    return adapters
