"""The six exports. Each writes into a place of its own, loads what it wrote, and says how far off that is."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from personas.adapters import CONFIG, MANIFEST, WEIGHTS
from personas.base_model import BaseModel, load_model
from personas.contracts import AdapterRef
from personas.engine.weights import AdaptedModel
from trainer.exports import llama_cpp
from trainer.exports.charx import unpack_adapter, with_adapter
from trainer.exports.errors import ExportError
from trainer.exports.gguf_adapter import add_to, modules_of, read_adapter, require_same_deltas, write_adapter
from trainer.exports.gguf_files import Quantise
from trainer.exports.gguf_model import load_model_back, round_to, write_model
from trainer.exports.logits import Difference, compare, logits_of, require_equal
from trainer.exports.model_card import write_readme
from trainer.exports.ollama import ADAPTER, BASE, MODELFILE, modelfile, require_same_prompts
from trainer.exports.source import DEFAULT_CONTEXT, Source, require_card

MOST_KL = {"bfloat16": 0.02, "float16": 0.02, "f16": 0.02, "q8_0": 0.1}
"""Nats per token that rounding to a format may cost. A model that loses more by it is not fit for that format."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What was asked for. `path` is where the export is written, before it gets its final name."""

    source: Source
    path: Path
    quantise: Quantise
    say: Say


@dataclass(frozen=True)
class Outcome:
    """What the export says when it is loaded back, against adapter and base; `rounding` is what its format alone would
    change (None where nothing is rounded), `beyond` how far from that it is. `llama_cpp` is what llama.cpp says."""

    difference: Difference
    rounding: Difference | None = None
    beyond: Difference | None = None
    llama_cpp: llama_cpp.Found | None = None
    notes: tuple[str, ...] = ()


def plain_adapter(order: Order) -> Outcome:
    """peft's folder: configuration, weights as they are, model card."""
    source = order.source
    order.path.mkdir()
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(source.folder / name, order.path / name)
    write_readme(order.path, source, "peft")
    return Outcome(_equal_adapter(order, order.path))


def charx_card(order: Order) -> Outcome:
    """The persona's card with the adapter's folder inside."""
    card, persona = require_card(order.source, "charx")
    order.path.write_bytes(with_adapter(card, order.source.folder, persona.name))
    order.say("reading the adapter out of the card again")
    unpacked = unpack_adapter(order.path, order.path.with_name(f"{order.path.name}.unpacked"))
    if (unpacked / MANIFEST).read_bytes() != (order.source.folder / MANIFEST).read_bytes():
        raise ExportError("The adapter in the card is another one.", "Report this fault.")
    return Outcome(_equal_adapter(order, unpacked))


def merged_model(order: Order) -> Outcome:
    """A model folder in 16 bits: merged in float32, then rounded once."""
    source, reference = order.source, order.source.reference
    order.say("merging in float32")
    model = source.merged()
    stored = str(source.config.dtype).removeprefix("torch.")
    precision = "float16" if stored == "float16" else "bfloat16"
    _cast(model, getattr(torch, precision))
    order.say("writing the model")
    model.save_pretrained(order.path)
    source.tokenizer.save_pretrained(order.path)
    write_readme(order.path, source, "transformers")
    _cast(model, torch.float32)
    rounded = logits_of(model, source.samples)
    del model
    gc.collect()
    order.say("loading it back")
    again = load_model(BaseModel(source.name, str(order.path), source.base.weight_bytes), "float32")
    found = logits_of(again, source.samples)
    return _judged(reference, rounded, found, precision)


def gguf_model(order: Order) -> Outcome:
    """The merged model as one file."""
    source, reference = order.source, order.source.reference
    order.say("merging in float32")
    model = source.merged()
    order.say(f"writing GGUF ({order.quantise})")
    write_model(order.path, model, source.renderer, order.quantise, source.name)
    round_to(model, order.quantise)
    rounded = logits_of(model, source.samples)
    del model
    gc.collect()
    order.say("loading it back")
    outcome = _judged(reference, rounded, logits_of(load_model_back(order.path), source.samples), order.quantise)
    theirs = llama_cpp.compared(order.path, None, source, reference, order.say)
    return Outcome(outcome.difference, outcome.rounding, outcome.beyond, theirs, _notes(source))


def gguf_adapter(order: Order) -> Outcome:
    """The adapter alone, for llama.cpp's --lora."""
    outcome = _adapter_file(order, order.path)
    outcome = replace(outcome, notes=(*outcome.notes, *_scaling_notes(order.source)))
    if not llama_cpp.installed():
        return outcome
    base = order.path.with_name("base-for-the-comparison.gguf")
    write_model(base, order.source.base_in_float32(), order.source.renderer, "f16", "base")
    theirs = llama_cpp.compared(base, order.path, order.source, order.source.reference, order.say)
    base.unlink()
    return Outcome(outcome.difference, None, None, theirs, outcome.notes)


def ollama_folder(order: Order) -> Outcome:
    """Base model and adapter as GGUF, and a Modelfile."""
    source = order.source
    persona = require_card(source, "ollama")[1] if source.manifest.persona else source.persona
    context = getattr(source.config, "max_position_embeddings", DEFAULT_CONTEXT)
    text = modelfile(source.renderer, persona, context)
    order.path.mkdir()
    (order.path / MODELFILE).write_text(text, encoding="utf-8")
    require_same_prompts((order.path / MODELFILE).read_text(encoding="utf-8"), source.renderer, persona)
    exact = _adapter_file(order, order.path / ADAPTER)
    order.say(f"writing the base model ({order.quantise})")
    base = source.base_in_float32()
    write_model(order.path / BASE, base, source.renderer, order.quantise, source.base.name)
    round_to(base, order.quantise)
    deltas = read_adapter(order.path / ADAPTER, source.config)
    rounded = logits_of(add_to(base, deltas), source.samples)
    del base
    gc.collect()
    order.say("loading both back")
    found = logits_of(add_to(load_model_back(order.path / BASE), deltas), source.samples)
    outcome = _judged(source.reference, rounded, found, order.quantise)
    theirs = llama_cpp.compared(order.path / BASE, order.path / ADAPTER, source, source.reference, order.say)
    return Outcome(outcome.difference, outcome.rounding, outcome.beyond, theirs, exact.notes)


TARGETS: dict[str, Callable[[Order], Outcome]] = {
    "adapter": plain_adapter,
    "merged": merged_model,
    "gguf": gguf_model,
    "gguf-lora": gguf_adapter,
    "ollama": ollama_folder,
    "charx": charx_card,
}
QUANTISED = ("gguf", "ollama")
"""The targets for which it makes a difference how weights are stored."""


def _adapter_file(order: Order, path: Path) -> Outcome:
    """Write the adapter as GGUF and compare what the file adds: weight by weight, and in what the model says."""
    source, reference = order.source, order.source.reference
    order.say("writing the adapter as GGUF")
    write_adapter(path, modules_of(source.adapted), source.config, source.name)
    deltas = read_adapter(path, source.config)
    require_same_deltas(source.adapted, deltas)
    source.release()
    found = logits_of(add_to(source.base_in_float32(), deltas), source.samples)
    return Outcome(require_equal(reference, found, "The GGUF adapter differs"), notes=_notes(source))


def _equal_adapter(order: Order, folder: Path) -> Difference:
    """Load a peft folder over a new copy of the base model: it has to say the same."""
    source, reference = order.source, order.source.reference
    for name in (CONFIG, WEIGHTS):
        if (folder / name).read_bytes() != (source.folder / name).read_bytes():
            raise ExportError(f"{name} is not as it was.", "Nothing was kept; try again.")
    source.release()
    order.say("loading it back")
    again = AdaptedModel(source.base_in_float32(), source.manifest.base_model_hash)
    again.attach(AdapterRef(source.ref.persona_id, "exported", folder))
    return require_equal(reference, logits_of(again.model, source.samples), "The exported adapter differs")


def _judged(reference: Any, rounded: Any, found: Any, precision: str) -> Outcome:
    """An export that rounds: it may differ by what rounding explains, and by nothing beyond. Raises `ExportError`."""
    rounding = compare(reference, rounded)
    if not rounding.kl <= MOST_KL[precision]:
        raise ExportError(
            f"Rounded to {precision} this model says something else ({rounding}; allowed is a KL of "
            f"{MOST_KL[precision]}).",
            "Export --to adapter or gguf-lora, or --quantise f16.",
        )
    beyond = require_equal(rounded, found, "Loaded back, the export differs by more than its format explains")
    return Outcome(compare(reference, found), rounding, beyond)


def _cast(model: Any, precision: torch.dtype) -> None:
    """The weights alone: a model's `.to` would round the frequencies of its positions too."""
    for weight in model.parameters():
        weight.data = weight.data.to(precision)


def _notes(source: Source) -> tuple[str, ...]:
    """What a runtime of GGUF may do otherwise, for this model."""
    window = getattr(source.config, "sliding_window", None)
    if window and window < source.config.max_position_embeddings:
        return (f"llama.cpp attends to all tokens where this model attends to the last {window}.",)
    return ()


def _scaling_notes(source: Source) -> tuple[str, ...]:
    """What llama.cpp has to be told beside an adapter: a GGUF of the base model as it is says nothing of scaling."""
    scaling, rope = source.base.scaling, source.config.rope_parameters
    if scaling is None:
        return ()
    told = f"--rope-scaling {scaling.type} --rope-scale {scaling.factor:g}"
    if scaling.type == "yarn":
        told += f" --yarn-orig-ctx {rope['original_max_position_embeddings']}"
    if scaling.type == "dynamic":
        told = f"--rope-freq-base {rope['rope_theta']:.1f}"
    return (f"Trained with RoPE scaling ({scaling}): with a GGUF of the plain base model, give llama.cpp {told}.",)
