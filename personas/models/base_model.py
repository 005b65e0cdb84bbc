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
from personas.models.stored_quantisation import (
    BITS_AND_BYTES,
    MXFP4,
    StoredQuantisation,
    require_unpackable,
    stored_quantisation,
    unpacked_weight_bytes,
)
from personas.prompt.chat_template import CHATML_TOKENS, DEFAULT_TEMPLATES, default_template_text
from personas.schemas.chat import SamplingParams
from personas.schemas.hyperparameters import (
    DEFAULT_ROPE_TYPE,
    DefaultTemplate,
    Hyperparameters,
    RopeType,
    TemplateChoice,
)

SNAPSHOT_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
"""Files of a model repository that are downloaded."""

EMBEDDED = "embedded"
GENERATION_CONFIG_FILE = "generation_config.json"
RECOMMENDED_SAMPLING = {
    "temperature": (0, 2), "top_p": (0.01, 1), "top_k": (0, 1000), "min_p": (0, 0.99), "repetition_penalty": (1, 2),
}  # fmt: skip
"""Values of `generation_config.json` that are taken over, each with the least and the largest that
is.
"""
FINGERPRINT_SAMPLE_BYTES = 2**20
MISMATCHED_SIZES_MARKER = "ignore_mismatched_sizes"
"""Part of transformers' error message about weights with other shapes."""

OWN_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
VOCABULARY_FILES = ("tokenizer.json", "added_tokens.json", "tokenizer_config.json")
LOADING_MEMORY_FACTOR = 1.15  # memory while loading, relative to the weights: buffers come on top
TrainingPrecision = Literal["bfloat16", "float16", "float32"]


HUB_TIMEOUT_S = 3.0
HUB_OFFLINE_ERROR = "HF_HUB_OFFLINE is set"


def find_hub_error() -> str:
    """Return why a model hub cannot be asked, as the end of a sentence; empty if it can. Takes up
    to 3 s.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return HUB_OFFLINE_ERROR
    from huggingface_hub import constants  # reads the environment when it is loaded

    answers = list[bool]()
    thread = threading.Thread(
        target=lambda: answers.append(_is_reachable(constants.ENDPOINT)), daemon=True
    )
    thread.start()
    thread.join(HUB_TIMEOUT_S)  # looking up a name can take longer than any time-out allows
    return "" if any(answers) else f"no hub can be reached at {constants.ENDPOINT}"


def _is_reachable(address: str) -> bool:
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):  # nosec B310
            return True
    except urllib.error.HTTPError:
        return True  # it says no, but it is there
    except (OSError, ValueError):
        return False


def fetch_snapshot(name: str, revision: str = "") -> Path:
    """Download a model at a commit, tag or branch; without network the cache is used. Raises
    `BaseModelError`.
    """
    from huggingface_hub import (
        errors,
        snapshot_download,
    )  # takes 0.15 s; local models do not need it

    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=SNAPSHOT_PATTERNS)
        )
    except errors.GatedRepoError as error:
        why = "the hub offers it only to those who accepted its terms"
        advice = "Accept them there and set HF_TOKEN."
        raise BaseModelError(
            f"The base model {name!r} cannot be fetched: {why}.", advice
        ) from error
    except errors.RepositoryNotFoundError as error:
        why = "the hub has no such model, or it is private"
        advice = "Check the spelling; a private one needs HF_TOKEN."
        raise BaseModelError(
            f"The base model {name!r} cannot be fetched: {why}.", advice
        ) from error
    except errors.RevisionNotFoundError as error:
        why = f"the hub has no commit, tag or branch {revision!r} of it"
        advice = "Check the revision after the @, or leave it out for the newest."
        raise BaseModelError(
            f"The base model {name!r} cannot be fetched: {why}.", advice
        ) from error
    except errors.HFValidationError as error:
        why = f"The base model {name!r} is neither a folder nor a model's id on a hub."
        advice = "Set BASE_MODEL to `embedded`, a model folder, or an id such as owner/name."
        raise BaseModelError(why, advice) from error
    except Exception as error:  # network errors have many types
        kind = (
            ""
            if isinstance(error, errors.LocalEntryNotFoundError)
            else f" ({type(error).__name__})"
        )
        raise BaseModelError(
            f"The base model {_with_revision(name, revision)!r} is no local folder, and no hub "
            f"could be reached{kind}.",
            "Check the network and try again, or set BASE_MODEL to `embedded` or a model folder.",
        ) from error


def find_snapshot(name: str, revision: str = "") -> Path:
    """Find the same folder in the cache, without network. Raises `BaseModelError`."""
    from huggingface_hub import (
        errors,
        snapshot_download,
    )  # takes 0.15 s; local models do not need it

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
    """A base model in the folder `source`. A hub model's `name` includes its commit, which is its
    `revision`.

    `template` is a chat template chosen instead of the model's own. `quantisation` is the form of
    weights that are stored quantised; `weight_bytes` is their size with these in 16 bits.
    """

    name: str
    source: str
    weight_bytes: int
    revision: str = ""
    scaling: RopeScaling | None = None
    template: DefaultTemplate | None = None
    quantisation: StoredQuantisation | None = None

    @property
    def folder(self) -> Path:
        return Path(self.source)

    @property
    def repository(self) -> str:
        """Name without revision, scaling and chat template, as other programs know the model."""
        path = self.name.removesuffix(f"#{self.template}").removesuffix(f"#{self.scaling}")
        return path.removesuffix(f"@{self.revision}") if self.revision else path


def locate(name: str, *, fetch: bool = True) -> BaseModel:
    """Find a base model; `fetch` downloads a hub id if a hub can be reached. Raises
    `BaseModelError`.
    """
    path, scaling, template = _split_name(name)
    folder = unpack_bundled_model() if path == EMBEDDED else Path(path).expanduser()
    revision = ""
    if not folder.is_dir():
        repository, _, wanted_revision = path.partition("@")
        folder = (fetch_snapshot if fetch else find_snapshot)(repository, wanted_revision)
        revision = folder.name
        path = f"{repository}@{revision}"
    if not (folder / "config.json").exists():
        raise BaseModelError(
            f"The folder {folder} has no config.json.", "Name a folder with a transformers model."
        )
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not weights:
        raise BaseModelError(
            f"The folder {folder} has no *.safetensors weights.", "Convert the model."
        )
    stored = stored_quantisation(folder)
    if stored and stored.can_be_unpacked:
        weights = unpacked_weight_bytes(folder)
    found = BaseModel(path, str(folder), weights, revision, quantisation=stored)
    read_config(found)
    found = replace(found, name=f"{path}#{scaling}", scaling=scaling) if scaling else found
    return apply_template_setting(found, template or "auto")


def apply_rope_settings(base: BaseModel, kind: RopeType, factor: float) -> BaseModel:
    """Return the model with scaled positions (factor 1: as in its name). Raises `BaseModelError` on
    a conflict.
    """
    requested = RopeScaling(kind, factor)
    if base.scaling and factor != 1 and base.scaling != requested:
        raise BaseModelError(
            f"The base model {base.name} is scaled by {base.scaling}, and the settings ask for "
            f"{requested}.",
            "Give one of them: rope_scaling_type and rope_scaling_factor, or #TYPE:FACTOR in the "
            "name.",
        )
    if factor != 1 and not base.scaling:
        base = replace(base, name=f"{base.name}#{requested}", scaling=requested)
    if base.scaling:
        load_config(base)
    return base


def apply_template_setting(base: BaseModel, choice: TemplateChoice) -> BaseModel:
    """Return the model with a chat template chosen by hand (`auto`: as in its name).

    Raises `BaseModelError` on a conflict, and for ChatML without its tokens.
    """
    if choice == "auto" or choice == base.template:
        return base
    if base.template:
        raise BaseModelError(
            f"The base model {base.name} has the chat template {base.template}, and the settings "
            f"ask for {choice}.",
            "Give one of them: chat_template, or #chatml or #plain in the name.",
        )
    if choice == "chatml" and not _has_chatml_tokens(base):
        raise BaseModelError(
            f"The vocabulary of {base.name} has no {' and '.join(CHATML_TOKENS)}, so ChatML cannot "
            "be its template.",
            "Choose the plain one: chat_template=plain, or #plain in the name.",
        )
    return replace(base, name=f"{base.name}#{choice}", template=choice)


def default_template(base: BaseModel) -> DefaultTemplate | None:
    """Return which default template the model uses: a chosen one, or one for want of its own; None
    for its own.
    """
    if base.template:
        return base.template
    if _has_own_template(base):
        return None
    return "chatml" if _has_chatml_tokens(base) else "plain"


def template_note(base: BaseModel) -> str:
    """Say which default template the model uses and why; empty for a model's own."""
    kind = default_template(base)
    if kind is None:
        return ""
    why = f"{base.name} has no chat template of its own"
    if base.template and _has_own_template(base):
        why = "The base model's own chat template is not used, as requested"
    form = "ChatML (its vocabulary has <|im_start|> and <|im_end|>)"
    if kind == "plain":
        form = (
            "the plain one (the card, then lines of `name: text`; a reply ends with the "
            "end-of-text token)"
        )
    return f"{why}: the template is {form}."


def _has_own_template(base: BaseModel) -> bool:
    if any((base.folder / name).exists() for name in OWN_TEMPLATE_FILES):
        return True
    try:
        config: Any = json.loads(
            (base.folder / "tokenizer_config.json").read_text(encoding="utf-8")
        )
    except (OSError, ValueError):  # loading the tokenizer says what is wrong with it
        return False
    return bool(isinstance(config, dict) and config.get("chat_template"))


def _has_chatml_tokens(base: BaseModel) -> bool:
    files = [base.folder / name for name in VOCABULARY_FILES]
    texts = [file.read_bytes() for file in files if file.exists()]
    return all(any(json.dumps(token).encode() in text for text in texts) for token in CHATML_TOKENS)


def name_with_settings(name: str, settings: Hyperparameters) -> str:
    """Append the settings' RoPE scaling and chat template to the name of a base model, unless it
    has its own.
    """
    factor = settings.rope_scaling_factor
    template = settings.chat_template
    suffixes = name.split("#")[1:]
    if factor not in (None, 1) and not any(":" in suffix for suffix in suffixes):
        scaling = RopeScaling(settings.rope_scaling_type or DEFAULT_ROPE_TYPE, factor or 1)
        path, *own = name.split("#")
        name = "#".join([path, str(scaling), *own])
    if template not in (None, "auto") and not set(suffixes) & DEFAULT_TEMPLATES.keys():
        name = f"{name}#{template}"
    return name


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


def recommended_sampling(base: BaseModel) -> SamplingParams:
    """Return the sampling of `generation_config.json`, where the model's makers have it sample;
    else the defaults.

    What the file does not set, or out of range, has its default too. Raises `BaseModelError` if it
    cannot be read.
    """
    config = _read_generation_config(base)
    if not config.get("do_sample"):
        return SamplingParams()
    values: dict[str, Any] = {name: config.get(name) for name in RECOMMENDED_SAMPLING}
    return replace(
        SamplingParams(), **{name: it for name, it in values.items() if _is_taken_over(name, it)}
    )


def end_token_ids(base: BaseModel) -> tuple[int, ...]:
    """Return the tokens that end a text by `generation_config.json`, or by `config.json` where that
    names none.

    As in transformers' `generate`, there may be several. Raises `BaseModelError` if a file cannot
    be read.
    """
    config: Any = _read_generation_config(base).get("eos_token_id")
    if config is None:
        config = read_config(base).get("eos_token_id")
    ids = config if isinstance(config, list) else [config]
    return tuple(dict.fromkeys(it for it in ids if type(it) is int and it >= 0))


def _read_generation_config(base: BaseModel) -> dict[str, Any]:
    try:
        config: Any = json.loads((base.folder / GENERATION_CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise unreadable_file_error(base, GENERATION_CONFIG_FILE, error) from error
    return config if isinstance(config, dict) else {}


def _is_taken_over(name: str, value: object) -> bool:
    least, largest = RECOMMENDED_SAMPLING[name]
    kinds = (int,) if name == "top_k" else (int, float)
    return type(value) in kinds and least <= value <= largest  # type: ignore[operator]  # a number


def max_positions(base: BaseModel) -> int | None:
    """Return the maximum sequence length, with scaling; None if the configuration does not state
    it.
    """
    config = read_config(base)
    own: int | None = config.get("max_position_embeddings", config.get("n_positions"))
    return own and round(own * base.scaling.factor) if base.scaling else own


def load_config(base: BaseModel) -> Any:
    """Load the model's transformers configuration with scaled positions. Raises
    `BaseModelError`.
    """
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
    """SHA-256 over configuration, tokenizer, chat template, scaling and weights (size, first and
    last MiB).

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
    if kind := default_template(base):
        digest.update(DEFAULT_TEMPLATES[kind].encode())
    return digest.hexdigest()


def require_memory(needed_bytes: int, purpose: str) -> None:
    free = psutil.virtual_memory().available
    if needed_bytes > free:
        raise NoMemoryError(
            f"{purpose} needs about {needed_bytes / 2**30:.1f} GiB of memory; {free / 2**30:.1f} "
            "GiB are free.",
            "Close other programs, or choose a smaller BASE_MODEL.",
        )


def load_torch() -> Any:
    """Import torch with worker threads that sleep while they wait for work.

    By default they spin. On shared cores, above all beside a training run, processes then wait for
    spinning threads of each other, and replies take several times as long. OMP_WAIT_POLICY is read
    once, when the library is loaded.
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
    """Load the model's tokenizer, with a default chat template if it has none. Raises
    `BaseModelError`.
    """
    from transformers import AutoTokenizer  # takes seconds

    return read_tokenizer(AutoTokenizer, base, trust_remote_code=False)


def read_tokenizer(tokenizer_class: Any, base: BaseModel, **options: Any) -> Any:
    """Load the model's tokenizer with a tokenizer class of transformers. Raises `BaseModelError`.

    Its `end_token_ids` are the model's, which a tokenizer itself does not know.
    """
    try:
        tokenizer = tokenizer_class.from_pretrained(base.source, **options)
    except Exception as error:  # the library has no error type of its own for damaged files
        why = f"{type(error).__name__}: {error}"
        raise BaseModelError(
            f"The tokenizer of {base.name} cannot be read ({why}).",
            "Fetch its tokenizer.json again.",
        ) from error
    if kind := default_template(base):
        if kind == "plain" and not tokenizer.eos_token:
            raise BaseModelError(
                f"The tokenizer of {base.name} names no end-of-text token, which ends replies in "
                "the plain template.",
                "Set eos_token in its tokenizer_config.json.",
            )
        tokenizer.chat_template = default_template_text(kind, tokenizer)
    tokenizer.end_token_ids = end_token_ids(base)
    return tokenizer


def load_model(base: BaseModel, precision: TrainingPrecision, **options: Any) -> Any:
    """Load the causal language model in evaluation mode; `options` go to `from_pretrained`. Raises
    `BaseModelError`.

    Weights that are stored quantised are unpacked, except that bitsandbytes' stay as they are on a
    GPU if `options` ask for 4 bits; a stored form takes the place of the one in `options`.
    """
    require_unpackable(base.name, base.quantisation)
    torch = load_torch()
    from transformers import AutoModelForCausalLM  # takes seconds
    from transformers.utils import logging

    logging.disable_progress_bar()  # it garbles logs and pipes
    factor = 2 if precision == "float32" else 1
    require_memory(
        int(base.weight_bytes * factor * LOADING_MEMORY_FACTOR), f"The base model {base.name}"
    )
    if base.scaling:
        options["config"] = load_config(base)
    stays_packed = _set_stored_form(base, options)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.source,
            dtype=getattr(torch, precision),
            trust_remote_code=False,
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if MISMATCHED_SIZES_MARKER in str(error):  # its message refers to a report printed above
            raise BaseModelError(
                f"The weights of {base.name} have other shapes than its config.json says.",
                "Fetch the model again.",
            ) from None
        raise BaseModelError(
            f"The base model {base.name} cannot be loaded: {error}.", "Check the model."
        ) from error
    if base.quantisation and not stays_packed:
        model = _unpack(model, getattr(torch, precision))
    return model.eval()


def _unpack(model: Any, dtype: Any) -> Any:
    """Make a plain model of one whose weights were stored quantised, which can be saved, too."""
    if getattr(model, "hf_quantizer", None):
        model = model.dequantize(dtype=dtype)
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = (
        False  # left over by transformers, as are these
    )
    vars(model).pop("_weight_conversions", None)
    for weight in model.parameters():  # what was stored plain has its own precision
        weight.data = weight.data.to(
            dtype
        )  # the model's own `.to` would round its rotary frequencies, too
    return model


def _set_stored_form(base: BaseModel, options: dict[str, Any]) -> bool:
    """Set the options for loading quantised weights; return True if they stay packed."""
    stored = base.quantisation
    if stored is None:
        return False
    is_asked_for = options.pop("quantization_config", None) is not None
    if stored.method != BITS_AND_BYTES:
        from transformers import FineGrainedFP8Config, Mxfp4Config  # takes seconds

        kind = Mxfp4Config if stored.method == MXFP4 else FineGrainedFP8Config
        options["quantization_config"] = kind(dequantize=True)
    is_on_gpu = options.get("device_map", {}).get("", "cpu") != "cpu"
    return is_asked_for and is_on_gpu and stored.stays_packed


def _split_name(name: str) -> tuple[str, RopeScaling | None, DefaultTemplate | None]:
    """Split the scaling and the chat template off a base model's name. Raises `BaseModelError` for
    another suffix.
    """
    scaling = None
    template = None
    path = name
    while "#" in path and not Path(path).expanduser().is_dir():
        path, _, suffix = path.rpartition("#")
        if suffix in DEFAULT_TEMPLATES and template is None:
            template = suffix
        elif scaling is None:
            scaling = parse_scaling(suffix)
        else:
            raise BaseModelError(
                f"The base model's name {name!r} has two scalings or templates.",
                "Keep one of each.",
            )
    return path, scaling, template
