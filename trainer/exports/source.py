"""What is exported: a verified adapter with its base model, tokenizer, renderer and persona."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from personas.adapters import MANIFEST, require_servable, verify
from personas.base_model import BaseModel, config_of, fingerprint, load_model, load_tokenizer, load_torch, locate
from personas.card import SHIPPED_CARDS, Card, read_any, read_card, to_persona
from personas.contracts import AdapterRef, Manifest, Persona
from personas.engine.weights import AdaptedModel
from personas.errors import AdapterError
from personas.for_everybody import card_files
from personas.prompt import Renderer, Sample
from trainer.exports.charx import unpack_adapter
from trainer.exports.errors import ExportError
from trainer.exports.logits import comparison_samples, logits_of, require_equal
from trainer.home import home

DEFAULT_CONTEXT = 2048


@dataclass
class Source:
    """An adapter that was verified. Models are loaded when asked for, one at a time, and computed in float32."""

    folder: Path
    manifest: Manifest
    base: BaseModel
    tokenizer: Any
    renderer: Renderer
    persona: Persona | None
    card: Card | None
    config: Any
    _adapted: AdaptedModel | None = None
    _reference: Tensor | None = None
    _samples: list[Sample] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Whose adapter it is, with its version."""
        return f"{self.manifest.persona or 'dialogue'}-{self.manifest.version}"

    @property
    def samples(self) -> list[Sample]:
        """The prompts, with replies, on which exports are compared."""
        if not self._samples:
            context = getattr(self.config, "max_position_embeddings", DEFAULT_CONTEXT)
            self._samples = comparison_samples(self.renderer, self.persona, context)
        return self._samples

    @property
    def adapted(self) -> Any:
        """The peft model: the adapter, active, over the values of the 16-bit base model."""
        if self._adapted is None:
            self._adapted = AdaptedModel(self.base_in_float32(), self.manifest.base_model_hash)
            self._adapted.load(self.ref)
        return self._adapted.model

    @property
    def ref(self) -> AdapterRef:
        """The adapter as the engine names it."""
        return AdapterRef(self.manifest.persona or "dialogue", self.manifest.version, self.folder)

    @property
    def reference(self) -> Tensor:
        """What adapter and base say to the prompts: the logits that every export is compared with."""
        if self._reference is None:
            self._reference = logits_of(self.adapted, self.samples)
        return self._reference

    @property
    def doubt(self) -> str:
        """Whether the card may be another persona's than the adapter; empty where it is that persona's own."""
        trained = self.manifest.persona
        if self.card is None or trained is None or to_persona(self.card, "").id == trained:
            return ""
        return f"The card is {self.card.name}'s, and the adapter was trained as {trained}: is it the right card?"

    def base_in_float32(self) -> Any:
        """A new copy of the base model: the values of its 16-bit weights, in float32."""
        torch = load_torch()
        stored = str(getattr(self.config, "dtype", "")).removeprefix("torch.")
        if stored in ("bfloat16", "float16"):
            return load_model(self.base, "float32")
        return load_model(self.base, "bfloat16").to(torch.float32)

    def merged(self) -> Any:
        """The model with the adapter added to its weights, in float32. The source holds no model afterwards.

        Raises `ExportError` when it does not say what adapter and base say.
        """
        reference, adapted = self.reference, self.adapted
        self._adapted = None
        model = adapted.merge_and_unload()
        require_equal(reference, logits_of(model, self.samples), "The merged model differs from adapter and base")
        return model

    def release(self) -> None:
        """Forget the loaded model; the reference stays."""
        self._adapted = None
        gc.collect()


@contextmanager
def opened(adapter: Path, card: Path | None) -> Iterator[Source]:
    """The adapter in a folder, or in a CHARX card, with all that belongs to it.

    Raises `AdapterError` for a damaged one or one of another base model, `BaseModelError`, `CardError`.
    """
    if adapter.is_file():
        with tempfile.TemporaryDirectory(prefix="understudy-export-") as scratch:
            folder = unpack_adapter(adapter, Path(scratch) / "adapter")
            yield _source(folder, card or adapter)
    else:
        if not (adapter / MANIFEST).exists():
            raise AdapterError(
                f"There is no adapter in {adapter}.",
                "Name the folder of one version: it holds manifest.json and adapter_model.safetensors.",
            )
        yield _source(adapter, card)


def _source(folder: Path, card_file: Path | None) -> Source:
    manifest = verify(folder)
    require_servable(manifest, folder)
    base = locate(manifest.base_model)
    if fingerprint(base) != manifest.base_model_hash:
        raise AdapterError(
            f"The base model {manifest.base_model} is not the one that this adapter was trained on.",
            "Restore that base model, or train the persona on this one.",
        )
    card, persona = _card(manifest, card_file)
    tokenizer = load_tokenizer(base)
    return Source(folder, manifest, base, tokenizer, Renderer(tokenizer), persona, card, config_of(base))


def _card(manifest: Manifest, file: Path | None) -> tuple[Card | None, Persona | None]:
    if file is not None:
        card = read_any(file)
        return card, to_persona(card, str(file), manifest.persona or "")
    file = card_files(SHIPPED_CARDS, home()).get(manifest.persona or "")
    if file is None:
        return None, None
    return read_any(file), read_card(file)


def require_card(source: Source, to: str) -> tuple[Card, Persona]:
    """Card and persona of the adapter. Raises `ExportError` where none is known."""
    if source.card is None or source.persona is None:
        whose = source.manifest.persona
        known = f"There is no card of {whose} here" if whose else "This adapter belongs to no persona"
        raise ExportError(f"{known}, and --to {to} needs one.", "Name its card: --card FILE.")
    return source.card, source.persona
