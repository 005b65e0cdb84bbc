"""Effect probes of tiny adapters, measured with the trainer's code, and adapters that are wrong on
purpose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from personas.engine.engine_parts import EngineParts, build_engine_parts
from personas.engine.fair_scheduler import AdapterState, SchedulerLimits
from personas.engine.lora_slots import BASE_MODEL_SLOT, read_unverified_adapter
from personas.engine.model_runner import ScheduledTokens
from personas.home.adapters import EFFECT_PROBE_FILE, WEIGHTS_FILE, require_manifest, write_manifest
from personas.home.effect_probe import write_effect_probe
from personas.models.base_model import BaseModel, fingerprint
from personas.models.loading import load_model
from personas.schemas.chat import AdapterRef
from personas.schemas.effect_probe import EffectProbe
from trainer.evaluate.effect_probe import probe_replies

MESSAGES = ("Are you well?", "What is that noise?", "Tell me about the tide.", "Who is there?")
Change = Callable[[str, Any], Any]
"""Returns a tensor in place of one of an adapter's, by its name."""


def open_parts(base: BaseModel, slots: int = 8) -> EngineParts:
    """Build an engine without effect probes."""
    return build_engine_parts(
        load_model(base, "float32"),
        fingerprint(base),
        SchedulerLimits(),
        slots=slots,
        prefix_bytes=10**7,
    )


def measure_probe(parts: EngineParts, ref: AdapterRef, base: BaseModel, tokenizer: Any) -> None:
    """Write the effect probe of an adapter, as its training would have."""
    weights = read_unverified_adapter(ref, parts.peft.layers)
    assert parts.lora.add(weights) and parts.stacked
    slot = parts.lora.acquire(ref)
    opening = "You are a crane at the harbour, and you have seen much. "
    prompts = [tuple(tokenizer(opening + text)["input_ids"]) for text in MESSAGES]
    replies = probe_replies(parts.stacked, slot, prompts, ())
    parts.lora.release(slot)
    probe = EffectProbe(
        weights=require_manifest(ref.folder).checksums[WEIGHTS_FILE],
        base_model_hash=fingerprint(base),
        precision="float32",
        replies=replies,
    )
    write_effect_probe(ref.folder, probe)


def change_weights(ref: AdapterRef, change: Change) -> None:
    """Change an adapter's tensors, and seal it again with the probe that it had."""
    file = ref.folder / WEIGHTS_FILE
    tensors = {name: change(name, tensor) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    write_manifest(ref.folder, require_manifest(ref.folder))
    probe_file = ref.folder / EFFECT_PROBE_FILE
    probe = EffectProbe.model_validate_json(probe_file.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    write_effect_probe(ref.folder, probe.model_copy(update={"weights": digest}))


def halve(name: str, tensor: Any) -> Any:
    """An adapter whose alpha is halved."""
    return tensor / 2 if "lora_B" in name else tensor


def empty_a_layer(name: str, tensor: Any) -> Any:
    """An adapter of which half of the layers do nothing."""
    return tensor * 0 if "lora_B" in name and ".layers.1." in name else tensor


def weights_of(other: AdapterRef) -> Change:
    """Another adapter's weights."""
    tensors = load_file(other.folder / WEIGHTS_FILE)
    return lambda name, tensor: tensors[name]


def results_in(home: Path) -> list[Path]:
    """List the stored results of a home's engines."""
    return sorted((home / "cache" / "effects").glob("*.json"))


class ScoringModel:
    """A tiny model that gives the log-probabilities of a server without one (`VllmServer.scoring`)."""

    def __init__(self, base: BaseModel) -> None:
        self.parts = open_parts(base)

    def prompt_logprobs(self, folder: str | None, prompt: list[int]) -> list[float | None]:
        """Return the log-probability of each token of a prompt but the first, under the adapter in
        a folder.
        """
        logits = self._logits(folder, prompt[:-1], rows=len(prompt) - 1)
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
        return [None, *chosen.tolist()]

    def next_tokens(self, folder: str | None, prompt: list[int], count: int) -> dict[int, float]:
        """Return the likeliest tokens after a prompt with their log-probabilities."""
        highest, tokens = self._logits(folder, prompt, rows=1)[0].log_softmax(-1).topk(count)
        return dict(zip(tokens.tolist(), highest.tolist(), strict=True))

    def _logits(self, folder: str | None, tokens: list[int], rows: int) -> Any:
        runner = self.parts.stacked
        assert runner
        slot = BASE_MODEL_SLOT
        if folder:
            digest = hashlib.sha256((Path(folder) / WEIGHTS_FILE).read_bytes()).hexdigest()
            ref = AdapterRef(digest, "", Path(folder))
            if self.parts.lora.state(ref) is not AdapterState.READY:
                self.parts.lora.add(read_unverified_adapter(ref, self.parts.peft.layers))
            slot = self.parts.lora.acquire(ref)
            self.parts.lora.release(slot)
        kv = runner.new_kv_cache(len(tokens))
        return runner.forward([ScheduledTokens(kv, tuple(tokens), slot, logits=rows)])
