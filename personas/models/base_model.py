"""Base models: find, fetch, fingerprint and load them."""

import hashlib
import json
import os
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from safetensors import SafetensorError

from personas.errors import BaseModelError, NoMemoryError
from personas.models.bundled_model import unpack_bundled_model
from personas.models.rope_scaling import RopeScaling, apply_scaling, parse_scaling
from personas.schemas.hyperparameters import DEFAULT_ROPE_TYPE, RopeType

SNAPSHOT_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
"""Files of a model repository that are downloaded."""

EMBEDDED = "embedded"
FINGERPRINT_SAMPLE_BYTES = 2**20
MISMATCHED_SIZES_MARKER = "ignore_mismatched_sizes"
"""Part of transformers' error message about weights with other shapes."""

LOADING_MEMORY_FACTOR = 1.15  # memory while loading, relative to the weights: buffers come on top
TrainingPrecision = Literal["bfloat16", "float16", "float32"]


HUB_TIMEOUT_S = 3.0
HUB_OFFLINE_ERROR = "HF_HUB_OFFLINE is set"


def find_hub_error() -> str:
    """Return why a model hub cannot be asked, as the end of a sentence; empty if it can. Takes up to 3 s."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return HUB_OFFLINE_ERROR
    from huggingface_hub import constants  # reads the environment when it is loaded

    answers = list[bool]()
    thread = threading.Thread(target=lambda: answers.append(_is_reachable(constants.ENDPOINT)), daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)  # looking up a name can take longer than any time-out allows
    return "" if any(answers) else f"no hub can be reached at {constants.ENDPOINT}"


def _is_reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True  # it says no, but it is there
    except (OSError, ValueError):
        return False


def fetch_snapshot(name: str, revision: str = "") -> Path:
    """Download a model at a commit, tag or branch; without network the cache is used. Raises `BaseModelError`."""
    from huggingface_hub import errors, snapshot_download  # takes 0.15 s; local models do not need it

    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=SNAPSHOT_PATTERNS))
    except errors.GatedRepoError as error:
        why, advice = "the hub offers it only to those who accepted its terms", "Accept them there and set HF_TOKEN."
        raise BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice) from error
    except errors.RepositoryNotFoundError as error:
        why, advice = "the hub has no such model, or it is private", "Check the spelling; a private one needs HF_TOKEN."
        raise BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice) from error
    except errors.RevisionNotFoundError as error:
        why = f"the hub has no commit, tag or branch {revision!r} of it"
        advice = "Check the revision after the @, or leave it out for the newest."
        raise BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice) from error
    except errors.HFValidationError as error:
        why = f"The base model {name!r} is neither a folder nor a model's id on a hub."
        advice = "Set BASE_MODEL to `embedded`, a model folder, or an id such as owner/name."
        raise BaseModelError(why, advice) from error
    except Exception as error:  # network errors have many types
        kind = "" if isinstance(error, errors.LocalEntryNotFoundError) else f" ({type(error).__name__})"
        raise BaseModelError(
            f"The base model {_with_revision(name, revision)!r} is no local folder, and no hub could be reached{kind}.",
            "Check the network and try again, or set BASE_MODEL to `embedded` or a model folder.",
        ) from error


def find_snapshot(name: str, revision: str = "") -> Path:
    """Find the same folder in the cache, without network. Raises `BaseModelError`."""
    from huggingface_hub import errors, snapshot_download  # takes 0.15 s; local models do not need it

    try:
        options: dict[str, Any] = {"allow_patterns": SNAPSHOT_PATTERNS, "local_files_only": True}
        return Path(snapshot_download(name, revision=revision or None, **options))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        raise BaseModelError(
            f"The base model {_with_revision(name, revision)!r} is not on this machine.",
            "Name `embedded`, a model folder, or a model that was fetched from a hub before.",
        ) from None


def _with_revision(name: str, revision: str) -> str:
    return f"{name}@{revision}" if revision else name


@dataclass(frozen=True)
class BaseModel:
    """A base model in the folder `source`. A hub model's `name` includes its commit, which is its `revision`."""

    name: str
    source: str
    weight_bytes: int
    revision: str = ""
    scaling: RopeScaling | None = None

    @property
    def folder(self) -> Path:
        return Path(self.source)

    @property
    def repository(self) -> str:
        """Name without revision and scaling, as other programs know the model."""
        path = self.name.removesuffix(f"#{self.scaling}")
        return path.removesuffix(f"@{self.revision}") if self.revision else path


def locate(name: str, *, fetch: bool = True) -> BaseModel:
    """Find a base model; `fetch` downloads a hub id if a hub can be reached. Raises `BaseModelError`."""
    path, scaling = _split_scaling(name)
    folder, revision = unpack_bundled_model() if path == EMBEDDED else Path(path).expanduser(), ""
    if not folder.is_dir():
        repository, _, wanted_revision = path.partition("@")
        folder = (fetch_snapshot if fetch else find_snapshot)(repository, wanted_revision)
        revision = folder.name
        path = f"{repository}@{revision}"
    if not (folder / "config.json").exists():
        raise BaseModelError(f"The folder {folder} has no config.json.", "Name a folder with a transformers model.")
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not weights:
        raise BaseModelError(f"The folder {folder} has no *.safetensors weights.", "Convert the model.")
    found = BaseModel(path, str(folder), weights, revision)
    read_config(found)
    return replace(found, name=f"{path}#{scaling}", scaling=scaling) if scaling else found


def apply_rope_settings(base: BaseModel, kind: RopeType, factor: float) -> BaseModel:
    """Return the model with scaled positions (factor 1: as in its name). Raises `BaseModelError` on a conflict."""
    requested = RopeScaling(kind, factor)
    if base.scaling and factor != 1 and base.scaling != requested:
        raise BaseModelError(
            f"The base model {base.name} is scaled by {base.scaling}, and the settings ask for {requested}.",
            "Give one of them: rope_scaling_type and rope_scaling_factor, or #TYPE:FACTOR in the name.",
        )
    if factor != 1 and not base.scaling:
        base = replace(base, name=f"{base.name}#{requested}", scaling=requested)
    if base.scaling:
        load_config(base)
    return base


def name_with_scaling(name: str, kind: RopeType | None, factor: float | None) -> str:
    """Append a scaling to the name of a base model; a name that has one already is unchanged."""
    if factor in (None, 1) or "#" in name:
        return name
    return f"{name}#{RopeScaling(kind or DEFAULT_ROPE_TYPE, factor or 1)}"


def read_config(base: BaseModel) -> dict[str, Any]:
    """Read the text model's part of `config.json`. Raises `BaseModelError`."""
    try:
        config: Any = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable_file_error(base, "config.json", error) from error
    text = config.get("text_config", config) if isinstance(config, dict) else None
    if not isinstance(text, dict):
        raise unreadable_file_error(base, "config.json", "it is not a JSON object")
    return text


def unreadable_file_error(base: BaseModel, file: str, why: object) -> BaseModelError:
    """Build the error about a model file that is damaged or incomplete."""
    return BaseModelError(f"The {file} of {base.name} cannot be read: {why}.", "Fetch it again.")


def max_positions(base: BaseModel) -> int | None:
    """Return the maximum sequence length, with scaling; None if the configuration does not state it."""
    config = read_config(base)
    own: int | None = config.get("max_position_embeddings", config.get("n_positions"))
    return own and round(own * base.scaling.factor) if base.scaling else own


def load_config(base: BaseModel) -> Any:
    """Load the model's transformers configuration with scaled positions. Raises `BaseModelError`."""
    from transformers import AutoConfig  # takes seconds

    try:
        config = AutoConfig.from_pretrained(base.source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        why = f"The configuration of {base.name} cannot be read: {error}."
        raise BaseModelError(why, "Check the model.") from error
    if base.scaling:
        apply_scaling(config, base.scaling, base.name)
    return config


def fingerprint(base: BaseModel) -> str:
    """SHA-256 over configuration, tokenizer, scaling and, of each weight file, its size and its first and last MiB.

    The first MiB contains the safetensors header with name, shape and offset of every tensor.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        file = base.folder / name
        digest.update(file.read_bytes() if file.exists() else b"absent")
    for file in sorted(base.folder.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as weights:
            digest.update(f"{file.name}:{size}".encode() + weights.read(FINGERPRINT_SAMPLE_BYTES))
            weights.seek(max(0, size - FINGERPRINT_SAMPLE_BYTES))
            digest.update(weights.read())
    if base.scaling:
        digest.update(str(base.scaling).encode())
    return digest.hexdigest()


def require_memory(needed_bytes: int, purpose: str) -> None:
    free = psutil.virtual_memory().available
    if needed_bytes > free:
        raise NoMemoryError(
            f"{purpose} needs about {needed_bytes / 2**30:.1f} GiB of memory; {free / 2**30:.1f} GiB are free.",
            "Close other programs, or choose a smaller BASE_MODEL.",
        )


def load_torch() -> Any:
    """Import torch with worker threads that sleep while they wait for work.

    By default they spin. On shared cores, above all beside a training run, processes then wait for spinning threads of
    each other, and replies take several times as long. OMP_WAIT_POLICY is read once, when the library is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch  # takes a second, and reads the variable above

    return torch


def best_precision() -> Literal["bfloat16", "float32"]:
    """Return bfloat16 where this machine computes it natively, else float32."""
    torch = load_torch()
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def load_tokenizer(base: BaseModel) -> Any:
    """Load the model's tokenizer. Raises `BaseModelError` if it has no chat template."""
    from transformers import AutoTokenizer  # takes seconds

    tokenizer = read_tokenizer(AutoTokenizer, base, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise BaseModelError(f"The model {base.name} has no chat template.", "Choose an instruct or chat model.")
    return tokenizer


def read_tokenizer(kind: Any, base: BaseModel, **options: Any) -> Any:
    """Load the model's tokenizer with a tokenizer class of transformers. Raises `BaseModelError`."""
    try:
        return kind.from_pretrained(base.source, **options)
    except Exception as error:  # the library has no error type of its own for damaged files
        why = f"{type(error).__name__}: {error}"
        raise BaseModelError(
            f"The tokenizer of {base.name} cannot be read ({why}).", "Fetch its tokenizer.json again."
        ) from error


def load_model(base: BaseModel, precision: TrainingPrecision, **options: Any) -> Any:
    """Load the causal language model in evaluation mode; `options` go to `from_pretrained`. Raises `BaseModelError`."""
    torch = load_torch()
    from transformers import AutoModelForCausalLM  # takes seconds
    from transformers.utils import logging

    logging.disable_progress_bar()  # it garbles logs and pipes
    factor = 2 if precision == "float32" else 1
    require_memory(int(base.weight_bytes * factor * LOADING_MEMORY_FACTOR), f"The base model {base.name}")
    if base.scaling:
        options["config"] = load_config(base)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.source, dtype=getattr(torch, precision), trust_remote_code=False, use_safetensors=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if MISMATCHED_SIZES_MARKER in str(error):  # its message refers to a report printed above
            raise BaseModelError(
                f"The weights of {base.name} have other shapes than its config.json says.", "Fetch the model again."
            ) from None
        raise BaseModelError(f"The base model {base.name} cannot be loaded: {error}.", "Check the model.") from error
    return model.eval()


def _split_scaling(name: str) -> tuple[str, RopeScaling | None]:
    path, separator, scaling = name.rpartition("#")
    if not separator or Path(name).expanduser().is_dir():
        return name, None
    return path, parse_scaling(scaling)
