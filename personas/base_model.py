"""Base models: where they are, whether they fit, how they are loaded. A name is `embedded`, a folder or a hub id."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from safetensors import SafetensorError

from personas.embedded import embedded_folder
from personas.errors import BaseModelError

EMBEDDED = "embedded"
FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
"""Of a model of a hub."""

SAMPLED_BYTES = 2**20
LOADING_OVERHEAD = 1.15
"""Room for buffers beside the weights themselves while a model is loaded."""

Precision = Literal["bfloat16", "float32"]
TrainingPrecision = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class BaseModel:
    """A base model that was found. `source` is a folder or, for models of a hub, the id and revision to load."""

    name: str
    source: str
    weight_bytes: int

    @property
    def folder(self) -> Path:
        """The folder that holds the model's files."""
        return Path(self.source)


def locate(name: str, *, fetch: bool = True) -> BaseModel:
    """Find a base model; one named by hub id is downloaded where a hub can be reached. Raises `BaseModelError`.

    Without `fetch` nothing is asked of a hub: only what was downloaded before is found.
    """
    folder = embedded_folder() if name == EMBEDDED else Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub(name) if fetch else _fetched_before(name)
    if not (folder / "config.json").exists():
        raise BaseModelError(f"The folder {folder} holds no config.json.", "Name a folder with a transformers model.")
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not weights:
        raise BaseModelError(f"The folder {folder} holds no *.safetensors weights.", "Convert the model.")
    return BaseModel(name, str(folder), weights)


def fingerprint(base: BaseModel) -> str:
    """SHA-256 over configuration, tokenizer and, of each weight file, its size, first and last MiB.

    The first MiB holds the safetensors header with every tensor's name, shape and place.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        file = base.folder / name
        digest.update(file.read_bytes() if file.exists() else b"absent")
    for file in sorted(base.folder.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as weights:
            digest.update(f"{file.name}:{size}".encode() + weights.read(SAMPLED_BYTES))
            weights.seek(max(0, size - SAMPLED_BYTES))
            digest.update(weights.read())
    return digest.hexdigest()


def require_memory(needed_bytes: int, what: str) -> None:
    """Raise `BaseModelError` when so much memory is not free now."""
    free = psutil.virtual_memory().available
    if needed_bytes > free:
        raise BaseModelError(
            f"{what} needs about {needed_bytes / 2**30:.1f} GiB of memory; {free / 2**30:.1f} GiB are free.",
            "Close other programs, or choose a smaller BASE_MODEL.",
        )


def load_torch() -> Any:
    """torch, with threads that sleep while they wait for their next piece of work.

    By default they spin. Where the cores are shared, with a retrain above all, each process then waits for threads that
    wait for each other's turn, and replies take several times as long. Read once, when the library is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    return torch


def best_precision() -> Precision:
    """bfloat16 where this machine computes it natively, float32 elsewhere."""
    torch = load_torch()
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def load_tokenizer(base: BaseModel) -> Any:
    """The model's tokenizer. Raises `BaseModelError` when it has no chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"The tokenizer of {base.name} cannot be read: {error}.", "Check the model.") from error
    if not tokenizer.chat_template:
        raise BaseModelError(f"The model {base.name} has no chat template.", "Choose an instruct or chat model.")
    return tokenizer


def load_model(base: BaseModel, precision: TrainingPrecision, **options: Any) -> Any:
    """The causal language model in evaluation mode. `options` go to `from_pretrained`. Raises `BaseModelError`."""
    torch = load_torch()
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would garble logs and pipes
    factor = 2 if precision == "float32" else 1
    require_memory(int(base.weight_bytes * factor * LOADING_OVERHEAD), f"The base model {base.name}")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.source, dtype=getattr(torch, precision), trust_remote_code=False, use_safetensors=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BaseModelError(f"The base model {base.name} cannot be loaded: {error}.", "Check the model.") from error
    return model.eval()


def _from_hub(name: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except errors.GatedRepoError as error:
        why, advice = "the hub gives it only to those who accepted its terms", "Accept them there and set HF_TOKEN."
        raise BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice) from error
    except errors.RepositoryNotFoundError as error:
        why, advice = "the hub has no such model, or it is private", "Check the spelling; a private one needs HF_TOKEN."
        raise BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice) from error
    except errors.HFValidationError as error:
        why = f"The base model {name!r} is neither a folder nor a model's id on a hub."
        raise BaseModelError(
            why, "Set BASE_MODEL to `embedded`, a model folder, or an id such as owner/name."
        ) from error
    except Exception as error:  # what the network says comes in many kinds
        raise BaseModelError(
            f"The base model {name!r} is no folder here, and no hub could be reached ({type(error).__name__}).",
            "Check the network and try again, or set BASE_MODEL to `embedded` or a model folder.",
        ) from error


def _fetched_before(name: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=FILES, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        raise BaseModelError(
            f"The base model {name!r} is not on this machine.",
            "Name `embedded`, a model folder, or a model that was fetched from a hub before.",
        ) from None
