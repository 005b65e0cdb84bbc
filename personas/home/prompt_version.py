"""The version of the prompts that an adapter has learned, from its manifest."""

import json
from functools import lru_cache
from pathlib import Path

from personas.prompt.renderer import PROMPT_VERSION
from personas.schemas.chat import AdapterRef

MANIFEST_NAME = "manifest.json"
MAX_CACHED_ADAPTERS = 1024


def prompt_version_of(adapter: AdapterRef | None) -> str:
    """Return an adapter's prompt version; the current one for the base model, and where none can be
    read.

    An adapter whose manifest is damaged is refused when it is loaded.
    """
    if adapter is None:
        return PROMPT_VERSION
    file = adapter.folder / MANIFEST_NAME
    try:
        return _read(file, file.stat().st_mtime_ns)
    except (OSError, ValueError):
        return PROMPT_VERSION


@lru_cache(MAX_CACHED_ADAPTERS)
def _read(file: Path, _mtime_ns: int) -> str:
    manifest = json.loads(file.read_text(encoding="utf-8"))
    version = manifest.get("prompt_version") if isinstance(manifest, dict) else None
    return version if isinstance(version, str) else PROMPT_VERSION
