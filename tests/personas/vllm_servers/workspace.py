"""A small base model and homes with adapters for the real servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from personas.home.adapters import adapter_ref
from personas.models.base_model import EMBEDDED, BaseModel, locate
from personas.models.loading import load_tokenizer
from personas.prompt.renderer import Renderer
from personas.schemas.chat import AdapterRef
from tests.tiny_models import make_adapter, make_tiny_model

WIDTH = 128
"""Width with which the heads have 32 dimensions, the fewest that vLLM's attention takes on CPUs."""


@dataclass(frozen=True)
class TinyWorkspace:
    """The two-layer model of the tests, and a home with versions `v1`, `v2`, … of the persona
    `ada`.
    """

    base: BaseModel
    home: Path
    renderer: Renderer

    def version(self, number: int, rank: int = 8) -> AdapterRef:
        """Return a version of `ada`, made on first use."""
        ref = adapter_ref(self.home, "ada", f"v{number}")
        return (
            ref
            if ref.folder.exists()
            else make_adapter(self.home, self.base, "ada", ref.version, number, rank)
        )


def make_workspace(folder: Path) -> TinyWorkspace:
    """Write the model into a folder unless it is there, and return it with an empty home."""
    tokenizer = load_tokenizer(locate(EMBEDDED))
    if not (folder / "model" / "config.json").exists():
        make_tiny_model(folder / "model", tokenizer, width=WIDTH)
    (folder / "home").mkdir(exist_ok=True)
    return TinyWorkspace(locate(str(folder / "model")), folder / "home", Renderer(tokenizer))
