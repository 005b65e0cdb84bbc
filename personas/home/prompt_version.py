"""The prompts that an adapter has learned, from its manifest, and the renderer that writes them."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from personas.prompt.renderer import PROMPT_VERSION, Renderer
from personas.schemas.chat import AdapterRef

MANIFEST_NAME = "manifest.json"
MAX_CACHED_ADAPTERS = 1024
SHORT_CARD_COUNT = "samples_with_short_card"
"""Key of a manifest's `dataset`: the number of trained samples under the short card. Left out if
there are none.
"""


def renderer_of(renderer: Renderer, adapter: AdapterRef | None) -> Renderer:
    """Return the renderer of an adapter's prompts: of their version, and with the card that it is
    served with. The base model always has the full card.
    """
    card = adapter.card if adapter else "full"
    return renderer.for_version(prompt_version_of(adapter)).with_card(card)


def prompt_version_of(adapter: AdapterRef | None) -> str:
    """Return an adapter's prompt version; the current one for the base model, and where none can be
    read.

    An adapter whose manifest is damaged is refused when it is loaded.
    """
    version = _manifest_of(adapter)[0] if adapter else None
    return version or PROMPT_VERSION


def has_learned_short_card(adapter: AdapterRef) -> bool:
    """Report whether an adapter was trained under the short card, too, by its manifest."""
    return _manifest_of(adapter)[1] > 0


def _manifest_of(adapter: AdapterRef) -> tuple[str | None, int]:
    """Return an adapter's prompt version, None where it cannot be read, and its number of samples
    under the short card.
    """
    file = adapter.folder / MANIFEST_NAME
    try:
        return _read(file, file.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None, 0


@lru_cache(MAX_CACHED_ADAPTERS)
def _read(file: Path, _mtime_ns: int) -> tuple[str | None, int]:
    manifest: Any = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        return None, 0
    version = manifest.get("prompt_version")
    counts = manifest.get("dataset")
    samples = counts.get(SHORT_CARD_COUNT) if isinstance(counts, dict) else None
    return (
        version if isinstance(version, str) else None,
        samples if isinstance(samples, int) else 0,
    )
