"""Loads a verified adapter with its base model, tokenizer, renderer and persona."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from personas.card.card_reader import read_card_file
from personas.card.spec_card import Card
from personas.card.toml_card import SHIPPED_CARDS, read_card, to_persona
from personas.engine.peft_runner import PeftSwitcher
from personas.errors import AdapterError, ExportError
from personas.home.adapters import MANIFEST_FILE, require_servable, verify_adapter
from personas.home.card_adapter import unpack_adapter
from personas.home.home_personas import home_card_file
from personas.models.base_model import BaseModel, fingerprint, load_config, locate
from personas.models.loading import load_model, load_tokenizer, load_torch
from personas.prompt.chat_template import bind_speaker
from personas.prompt.renderer import Renderer, TokenizedSample
from personas.schemas.chat import AdapterRef, Persona
from personas.schemas.training import AdapterManifest
from trainer.export.logit_comparison import (
    comparison_samples,
    compute_logits,
    require_equal_logits,
)
from trainer.process.environment import find_home

DEFAULT_CONTEXT_TOKENS = 2048


@dataclass
class LoadedAdapter:
    """A verified adapter. Models are loaded on demand, one at a time, and compute in float32."""

    folder: Path
    manifest: AdapterManifest
    base: BaseModel
    tokenizer: Any
    renderer: Renderer
    persona: Persona | None
    card: Card | None
    config: Any
    own_template: str
    _adapted: PeftSwitcher | None = None
    _reference: Tensor | None = None
    _samples: list[TokenizedSample] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The persona and version of the adapter."""
        return f"{self.manifest.persona or 'dialogue'}-{self.manifest.version}"

    @property
    def has_other_template(self) -> bool:
        """Tell whether the base model's own chat template writes other prompts than were
        trained.
        """
        return self.renderer.frozen_template() != self.own_template.removesuffix("\n")

    def freeze_template(self) -> None:
        """Make the tokenizer's chat template write the trained prompts in other programs, before it
        is saved.
        """
        # The base model's own template may add what was not trained, such as today's date.
        self.tokenizer.chat_template = self.renderer.frozen_template()

    @property
    def samples(self) -> list[TokenizedSample]:
        """Prompts with replies on which exports are compared."""
        if not self._samples:
            context = getattr(self.config, "max_position_embeddings", DEFAULT_CONTEXT_TOKENS)
            self._samples = comparison_samples(self.renderer, self.persona, context)
        return self._samples

    @property
    def adapted(self) -> Any:
        """The peft model: the active adapter on the values of the 16-bit base model."""
        if self._adapted is None:
            self._adapted = PeftSwitcher(self.base_in_float32(), self.manifest.base_model_hash)
            self._adapted.load(self.ref)
        return self._adapted.model

    @property
    def ref(self) -> AdapterRef:
        """The adapter as the engine references it."""
        return AdapterRef(self.manifest.persona or "dialogue", self.manifest.version, self.folder)

    @property
    def reference(self) -> Tensor:
        """Logits of adapter and base on the prompts, the reference for every export."""
        if self._reference is None:
            self._reference = compute_logits(self.adapted, self.samples)
        return self._reference

    @property
    def doubt(self) -> str:
        """A warning if the card may belong to another persona than the adapter; otherwise empty."""
        trained = self.manifest.persona
        if trained and self.persona is None and self.manifest.chat_template == "plain":
            return (
                f"There is no card of {trained} here: the exported chat template names it "
                "Assistant. Name its card."
            )
        if self.card is None or trained is None or to_persona(self.card, "").id == trained:
            return ""
        return (
            f"The card is {self.card.name}'s, and the adapter was trained as {trained}: is it the "
            "right card?"
        )

    def base_in_float32(self) -> Any:
        """Load a new copy of the base model: its 16-bit weights in float32."""
        torch = load_torch()
        stored = str(getattr(self.config, "dtype", "")).removeprefix("torch.")
        if stored in ("bfloat16", "float16"):
            return load_model(self.base, "float32")
        return load_model(self.base, "bfloat16").to(torch.float32)

    def merged(self) -> Any:
        """Merge the adapter into the loaded model, in float32. Raises `ExportError` if its logits
        differ then.
        """
        reference = self.reference
        adapted = self.adapted
        # Merging changes the base model's weights: nobody may compute with adapter and base again.
        self._adapted = None
        model = adapted.merge_and_unload()
        logits = compute_logits(model, self.samples)
        require_equal_logits(reference, logits, "The merged model differs from adapter and base")
        return model

    def release(self) -> None:
        """Release the loaded model; the reference remains."""
        self._adapted = None
        gc.collect()


@contextmanager
def open_adapter(adapter: Path, card: Path | None) -> Iterator[LoadedAdapter]:
    """Open an adapter in a folder or a CHARX card. Raises `AdapterError`, `BaseModelError` or
    `CardError`.
    """
    if adapter.is_file():
        with tempfile.TemporaryDirectory(prefix="understudy-export-") as scratch:
            folder = unpack_adapter(adapter, Path(scratch) / "adapter")
            yield _load(folder, card or adapter)
    else:
        if not (adapter / MANIFEST_FILE).exists():
            raise AdapterError(
                f"There is no adapter in {adapter}.",
                "Name the folder of one version: it holds manifest.json and "
                "adapter_model.safetensors.",
            )
        yield _load(adapter, card)


def _load(folder: Path, card_file: Path | None) -> LoadedAdapter:
    manifest = verify_adapter(folder)
    require_servable(manifest, folder)
    base = locate(manifest.base_model)
    if fingerprint(base) != manifest.base_model_hash:
        raise AdapterError(
            f"The base model {manifest.base_model} is not the one that this adapter was trained "
            "on.",
            "Restore that base model, or train the persona on this one.",
        )
    card, persona = _find_card(manifest, card_file)
    tokenizer = load_tokenizer(base)
    own_template = tokenizer.get_chat_template()
    tokenizer.chat_template = bind_speaker(own_template, persona.name if persona else "")
    renderer = Renderer(tokenizer).for_version(manifest.prompt_version)
    return LoadedAdapter(
        folder=folder,
        manifest=manifest,
        base=base,
        tokenizer=tokenizer,
        renderer=renderer,
        persona=persona,
        card=card,
        config=load_config(base),
        own_template=own_template,
    )


def _find_card(manifest: AdapterManifest, file: Path | None) -> tuple[Card | None, Persona | None]:
    if file is not None:
        card = read_card_file(file)
        return card, to_persona(card, str(file), manifest.persona or "")
    file = home_card_file(SHIPPED_CARDS, find_home(), manifest.persona or "")
    if file is None:
        return None, None
    return read_card_file(file), read_card(file)


def require_card(source: LoadedAdapter, to: str) -> tuple[Card, Persona]:
    """Return card and persona of the adapter. Raises `ExportError` if there is no card."""
    if source.card is None or source.persona is None:
        fault = "This adapter belongs to no persona"
        if source.manifest.persona:
            fault = f"There is no card of {source.manifest.persona} here"
        raise ExportError(f"{fault}, and --to {to} needs one.", "Name its card: --card FILE.")
    return source.card, source.persona
