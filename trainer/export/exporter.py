"""Exports an adapter to one of six formats: verify, write to a staging path, load back, compare,
rename.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from personas.engine.peft_runner import PeftSwitcher
from personas.errors import ExportError
from personas.home.adapters import (
    CONFIG_FILE,
    MANIFEST_FILE,
    README_FILE,
    WEIGHTS_FILE,
    write_manifest,
)
from personas.home.atomic_files import fsync_path, replace_durably
from personas.home.card_adapter import embed_adapter, unpack_adapter
from personas.models.base_model import BaseModel, recommended_sampling
from personas.models.loading import load_model
from personas.schemas.chat import AdapterRef
from trainer.export import llama_cpp
from trainer.export.gguf_adapter import (
    add_deltas,
    list_lora_modules,
    read_adapter,
    require_same_deltas,
    write_adapter,
)
from trainer.export.gguf_model import (
    load_gguf_model,
    read_quantised_weights,
    round_weights,
    write_model,
)
from trainer.export.llama_quantize import find_llama_quantize, quantise_file
from trainer.export.loaded_adapter import (
    DEFAULT_CONTEXT_TOKENS,
    LoadedAdapter,
    open_adapter,
    require_card,
)
from trainer.export.logit_comparison import (
    COMPARED_POSITIONS,
    LogitDiff,
    compare_logits,
    compute_logits,
    require_equal_logits,
)
from trainer.export.model_card import render_model_card
from trainer.export.ollama import MODEL_FILE, MODELFILE_NAME, render_modelfile, require_same_prompts
from trainer.export.prompt_check import check_gguf, check_merged

StoredPrecision = Literal["f16", "q8_0", "q4_k_m"]
MAX_KL_BY_PRECISION = {"bfloat16": 0.02, "float16": 0.02, "f16": 0.02, "q8_0": 0.1, "q4_k_m": 0.3}
"""Nats per token that rounding to a format may cost. A model that loses more by it is not fit for
that format.
"""
ProgressCallback = Callable[[str], None]
QUANTISED_TARGETS = ("gguf", "ollama")  # targets that store weights in a chosen precision
LIBRARIES = {"merged": "transformers", "gguf": "gguf", "ollama": "gguf"}
OWN_TEMPLATE_NOTE = (
    "The base model's own chat template writes other prompts than were trained (a date, a thought "
    "or a channel). Give llama.cpp the one that --to adapter exports: --chat-template-file "
    "chat_template.jinja."
)
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)
"""Files by which a multimodal model's processor reads pictures and sounds; transformers writes them
as they are.
"""
DESCRIPTION_SUFFIX = ".export.json"


@dataclass(frozen=True)
class ExportRequest:
    """A request for an export. `path` is the staging path, `quantiser` the program that writes 4
    bits.
    """

    source: LoadedAdapter
    path: Path
    quantise: StoredPrecision
    say: ProgressCallback
    quantiser: str = ""


@dataclass(frozen=True)
class ExportComparison:
    """Difference of the reloaded export from adapter and base: by its format (`rounding`), and
    `beyond` that.
    """

    difference: LogitDiff
    rounding: LogitDiff | None = None
    beyond: LogitDiff | None = None
    llama_cpp: llama_cpp.LlamaCppResult | None = None
    notes: tuple[str, ...] = ()


def export_peft_adapter(request: ExportRequest) -> ExportComparison:
    """Write a peft folder: configuration, unchanged weights, model card, and the manifest of
    these.
    """
    source = request.source
    request.path.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(source.folder / name, request.path / name)
    if source.has_other_template or source.manifest.chat_template != "own":
        source.freeze_template()
        source.tokenizer.save_pretrained(request.path)
        check_merged(request.path, source.renderer, source.persona)
    (request.path / README_FILE).write_text(render_model_card(source, "peft"), encoding="utf-8")
    write_manifest(request.path, source.manifest)
    return ExportComparison(_require_same_adapter(request, request.path))


def export_charx(request: ExportRequest) -> ExportComparison:
    """Write the persona's card with the adapter's folder inside."""
    card, persona = require_card(request.source, "charx")
    request.path.write_bytes(embed_adapter(card, request.source.folder, persona.name))
    request.say("reading the adapter out of the card again")
    unpacked = unpack_adapter(request.path, request.path.with_name(f"{request.path.name}.unpacked"))
    manifest = (request.source.folder / MANIFEST_FILE).read_bytes()
    if (unpacked / MANIFEST_FILE).read_bytes() != manifest:
        raise ExportError("The adapter in the card is another one.", "Report this fault.")
    return ExportComparison(_require_same_adapter(request, unpacked))


def export_merged(request: ExportRequest) -> ExportComparison:
    """Write a 16-bit model folder: merged in float32, then rounded once."""
    source = request.source
    reference = request.source.reference
    request.say("merging in float32")
    model = source.merged()
    stored = str(source.config.dtype).removeprefix("torch.")
    precision = "float16" if stored == "float16" else "bfloat16"
    _cast_weights(model, getattr(torch, precision))
    request.say("writing the model")
    model.save_pretrained(request.path)
    source.freeze_template()
    source.tokenizer.save_pretrained(request.path)
    check_merged(request.path, source.renderer, source.persona)
    for name in PROCESSOR_FILES:
        if (source.base.folder / name).exists():
            shutil.copyfile(source.base.folder / name, request.path / name)
    model_card = render_model_card(source, "transformers")
    (request.path / README_FILE).write_text(model_card, encoding="utf-8")
    # The rounded values, computed as exactly as they are when the folder is loaded back.
    _cast_weights(model, torch.float32)
    rounded = compute_logits(model, source.samples)
    del model
    gc.collect()
    request.say("loading it back")
    written = BaseModel(source.name, str(request.path), source.base.weight_bytes)
    reloaded = compute_logits(load_model(written, "float32"), source.samples)
    return _compare_rounded(reference, rounded, reloaded, precision)


def export_gguf(request: ExportRequest) -> ExportComparison:
    """Write the merged model as one file."""
    source = request.source
    reference = request.source.reference
    request.say("merging in float32")
    model = source.merged()
    _write_rounded(request, model)
    check_gguf(request.path, source.renderer, source.persona)
    rounded = compute_logits(model, source.samples)
    del model
    gc.collect()
    request.say("loading it back")
    reloaded = compute_logits(load_gguf_model(request.path), source.samples)
    outcome = _compare_rounded(reference, rounded, reloaded, request.quantise)
    theirs = llama_cpp.compare_with_llama_cpp(
        request.path, None, source, reference=reference, say=request.say, rounding=outcome.rounding
    )
    return replace(outcome, llama_cpp=theirs, notes=_notes(source))


def _write_rounded(request: ExportRequest, model: Any) -> None:
    """Write a float32 model in the requested precision, and round its weights in place as the file
    has them.
    """
    source = request.source
    request.say(f"writing GGUF ({request.quantise})")
    if request.quantise != "q4_k_m":
        write_model(
            request.path, model, source.renderer, quantise=request.quantise, name=source.name
        )
        round_weights(model, request.quantise)
        return
    whole = request.path.with_name("f16-to-quantise.gguf")
    write_model(whole, model, source.renderer, quantise="f16", name=source.name)
    request.say(f"quantising with {request.quantiser}")
    quantise_file(request.quantiser, whole, request.path)
    whole.unlink()
    read_quantised_weights(model, request.path)


def export_gguf_lora(request: ExportRequest) -> ExportComparison:
    """Write the adapter alone, for llama.cpp's --lora."""
    source = request.source
    outcome = _write_and_compare_gguf_lora(request, request.path)
    template_notes = (OWN_TEMPLATE_NOTE,) if source.has_other_template else ()
    outcome = replace(outcome, notes=(*outcome.notes, *_scaling_notes(source), *template_notes))
    if not llama_cpp.is_installed():
        return outcome
    base = request.path.with_name("base-for-the-comparison.gguf")
    write_model(base, source.base_in_float32(), source.renderer, quantise="f16", name="base")
    theirs = llama_cpp.compare_with_llama_cpp(
        base, request.path, source, reference=source.reference, say=request.say
    )
    base.unlink()
    return replace(outcome, llama_cpp=theirs)


def export_ollama(request: ExportRequest) -> ExportComparison:
    """Write the merged model as GGUF, and a Modelfile with the persona.

    From version 0.34.1 on, Ollama refuses a Modelfile with an adapter
    (github.com/ollama/ollama/pull/14969).
    """
    source = request.source
    persona = source.persona
    if source.manifest.persona:
        _, persona = require_card(source, "ollama")
    context = getattr(source.config, "max_position_embeddings", DEFAULT_CONTEXT_TOKENS)
    text = render_modelfile(source.renderer, persona, context, recommended_sampling(source.base))
    request.path.mkdir()
    modelfile = request.path / MODELFILE_NAME
    modelfile.write_text(text, encoding="utf-8")
    require_same_prompts(modelfile.read_text(encoding="utf-8"), source.renderer, persona)
    return export_gguf(replace(request, path=request.path / MODEL_FILE))


EXPORTERS: dict[str, Callable[[ExportRequest], ExportComparison]] = {
    "adapter": export_peft_adapter,
    "merged": export_merged,
    "gguf": export_gguf,
    "gguf-lora": export_gguf_lora,
    "ollama": export_ollama,
    "charx": export_charx,
}


def _write_and_compare_gguf_lora(request: ExportRequest, path: Path) -> ExportComparison:
    """Write the adapter as GGUF and compare the file's deltas and logits."""
    source = request.source
    reference = request.source.reference
    request.say("writing the adapter as GGUF")
    modules = list_lora_modules(source.adapted)
    write_adapter(path, modules, source.config, source.name)
    deltas = read_adapter(path, source.config, [module.name for module in modules])
    require_same_deltas(source.adapted, deltas)
    source.release()
    reloaded = compute_logits(add_deltas(source.base_in_float32(), deltas), source.samples)
    difference = require_equal_logits(reference, reloaded, "The GGUF adapter differs")
    return ExportComparison(difference, notes=_notes(source))


def _require_same_adapter(request: ExportRequest, folder: Path) -> LogitDiff:
    """Load a peft folder on a new copy of the base model and require equal logits."""
    source = request.source
    reference = request.source.reference
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if (folder / name).read_bytes() != (source.folder / name).read_bytes():
            raise ExportError(f"{name} is not as it was.", "Nothing was kept; try again.")
    source.release()
    request.say("loading it back")
    again = PeftSwitcher(source.base_in_float32(), source.manifest.base_model_hash)
    again.attach(AdapterRef(source.ref.persona_id, "exported", folder))
    reloaded = compute_logits(again.model, source.samples)
    return require_equal_logits(reference, reloaded, "The exported adapter differs")


def _compare_rounded(
    reference: Any, rounded: Any, reloaded: Any, precision: str
) -> ExportComparison:
    """Require that a rounded export differs only by its rounding. Raises `ExportError`."""
    rounding = compare_logits(reference, rounded)
    if not rounding.kl <= MAX_KL_BY_PRECISION[precision]:  # so that NaN fails
        raise ExportError(
            f"Rounded to {precision} this model says something else ({rounding}; allowed is a KL "
            f"of {MAX_KL_BY_PRECISION[precision]}).",
            "Export --to adapter or gguf-lora, or --quantise f16.",
        )
    beyond = require_equal_logits(
        rounded, reloaded, "Loaded back, the export differs by more than its format explains"
    )
    return ExportComparison(compare_logits(reference, reloaded), rounding, beyond)


def _cast_weights(model: Any, precision: torch.dtype) -> None:
    """Cast the parameters only: a model's `.to` would also round its rotary frequencies."""
    for weight in model.parameters():
        weight.data = weight.data.to(precision)


def _notes(source: LoadedAdapter) -> tuple[str, ...]:
    """Return notes on behaviour of GGUF runtimes that may differ for this model."""
    window = getattr(source.config, "sliding_window", None)
    if window and window < source.config.max_position_embeddings:
        return (f"llama.cpp attends to all tokens where this model attends to the last {window}.",)
    return ()


def _scaling_notes(source: LoadedAdapter) -> tuple[str, ...]:
    """Return llama.cpp's options for position scaling, which a GGUF of the plain base model
    lacks.
    """
    scaling = source.base.scaling
    rope = source.config.rope_parameters
    if scaling is None:
        return ()
    flags = f"--rope-scaling {scaling.type} --rope-scale {scaling.factor:g}"
    if scaling.type == "yarn":
        flags += f" --yarn-orig-ctx {rope['original_max_position_embeddings']}"
    if scaling.type == "dynamic":
        flags = f"--rope-freq-base {rope['rope_theta']:.1f}"
    return (
        f"Trained with RoPE scaling ({scaling}): with a GGUF of the plain base model, give "
        f"llama.cpp {flags}.",
    )


@dataclass(frozen=True)
class ExportReport:
    """The content of `export.json`; `made_for_it` is the outermost folder that was created, if
    any.
    """

    out: Path
    held: dict[str, Any]
    outcome: ExportComparison
    model_card: str
    made_for_it: Path | None = None


def export_adapter(
    adapter: Path,
    to: str,
    out: Path,
    quantise: StoredPrecision | None,
    card: Path | None,
    say: ProgressCallback,
) -> ExportReport:
    """Export to `out` and `<out>.export.json`; nothing is left on failure. Raises `UnderstudyError`
    or `OSError`.
    """
    started = time.perf_counter()
    beside = out.with_name(out.name + DESCRIPTION_SUFFIX)
    _require_free(out)
    missing = _missing_folders(out)
    if quantise and to not in QUANTISED_TARGETS:
        targets = " and ".join(QUANTISED_TARGETS)
        raise ExportError(
            f"--quantise is for {targets}; {to} is never rounded so.", "Leave it out."
        )
    stored: StoredPrecision = quantise or "f16"
    quantiser = find_llama_quantize() if stored == "q4_k_m" else ""
    with open_adapter(adapter, card) as source, _staging_path(out) as path:
        say(f"{source.name}: verified; what it says is computed over {source.base.name}")
        outcome = EXPORTERS[to](ExportRequest(source, path, stored, say=say, quantiser=quantiser))
        doubt = source.doubt
        if doubt:
            outcome = replace(outcome, notes=(*outcome.notes, doubt))
        written_as = stored if to in QUANTISED_TARGETS else None
        held = _describe(source, to, path, quantise=written_as, outcome=outcome)
        held["seconds"] = round(time.perf_counter() - started, 2)
        model_card = render_model_card(source, LIBRARIES.get(to, "peft"))
        _install(path, out, beside, held)
    return ExportReport(
        out=out,
        held=held,
        outcome=outcome,
        model_card=model_card,
        made_for_it=missing[-1] if missing else None,
    )


def _describe(
    source: LoadedAdapter,
    to: str,
    path: Path,
    *,
    quantise: StoredPrecision | None,
    outcome: ExportComparison,
) -> dict[str, Any]:
    manifest = source.manifest
    return {
        "format": 1,
        "to": to,
        "quantise": quantise,
        "bytes": _size(path),
        "adapter": {
            "persona": manifest.persona,
            "version": manifest.version,
            "job": manifest.job_id,
        },
        "base_model": {"name": manifest.base_model, "hash": manifest.base_model_hash},
        "compared": {
            "prompts": len(source.samples),
            "positions": len(source.samples) * COMPARED_POSITIONS,
        },
        "difference": asdict(outcome.difference),
        "rounding": _as_json(outcome.rounding),
        "beyond_rounding": _as_json(outcome.beyond),
        "llama_cpp": _as_json(outcome.llama_cpp),
        "notes": list(outcome.notes),
    }


def _as_json(result: LogitDiff | llama_cpp.LlamaCppResult | None) -> dict[str, Any] | None:
    return None if result is None else asdict(result)


@contextmanager
def _staging_path(out: Path) -> Iterator[Path]:
    """Yield a path with the final name in a temporary folder; created parents are removed on
    failure.
    """
    missing = _missing_folders(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # On the file system of `out`, so that the export is renamed in one step.
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield scratch / out.name
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # the export is in it
            for folder in missing:
                folder.rmdir()


def _install(path: Path, out: Path, beside: Path, held: dict[str, Any]) -> None:
    """Rename the export to its final name, right after its description."""
    note = path.with_name(beside.name)
    note.write_text(json.dumps(held, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for written in (note, path, *path.rglob("*")):
        fsync_path(written)
    # Again: something may have been put there meanwhile.
    _require_free(out)
    # The description first: an export with its name has one, whenever the machine stops.
    replace_durably(note, beside)
    try:
        replace_durably(path, out)
    except OSError:
        beside.unlink()
        raise


def _missing_folders(out: Path) -> list[Path]:
    """Return the folders that must be created, innermost first."""
    return [folder for folder in out.parents if not folder.exists()]


def _require_free(out: Path) -> None:
    if out.exists():
        raise ExportError(f"{out} is there already.", "Name another --out, or remove it first.")


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
