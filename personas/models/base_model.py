"""Base models: where they are, their settings and their fingerprints."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError
from personas.models.bundled_model import unpack_bundled_model
from personas.models.gguf_file import gguf_source_hash, unpacked_gguf
from personas.models.gguf_names import expand_home, find_gguf
from personas.models.hub_snapshot import fetch_snapshot, find_snapshot
from personas.models.rope_scaling import (
    DEFAULT_ROPE_TYPE,
    RopeScaling,
    apply_scaling,
    parse_scaling,
)
from personas.models.stored_quantisation import (
    StoredQuantisation,
    stored_quantisation,
    unpacked_weight_bytes,
)
from personas.prompt.chat_template import CHATML_TOKENS, DEFAULT_TEMPLATES, DefaultTemplate
from personas.schemas.chat import SamplingParams
from personas.schemas.hyperparameters import Hyperparameters

EMBEDDED = "embedded"
GENERATION_CONFIG_FILE = "generation_config.json"
RECOMMENDED_SAMPLING = {
    "temperature": (0, 2), "top_p": (0.01, 1), "top_k": (0, 1000), "min_p": (0, 0.99), "repetition_penalty": (1, 2),
}  # fmt: skip
"""Values of `generation_config.json` that are taken over, each with the least and the largest that
is.
"""
FINGERPRINT_SAMPLE_BYTES = 2**20

OWN_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
VOCABULARY_FILES = ("tokenizer.json", "added_tokens.json", "tokenizer_config.json")


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
    path, scaling, template = split_name(name)
    folder = unpack_bundled_model() if path == EMBEDDED else expand_home(path)
    revision = ""
    if path != EMBEDDED and (gguf := find_gguf(path, fetch=fetch)):
        folder = unpacked_gguf(gguf, unpack=fetch)
    elif not folder.is_dir():
        repository, _, wanted_revision = path.partition("@")
        find = fetch_snapshot if fetch else find_snapshot
        folder = find(repository, wanted_revision)
        revision = folder.name
        path = f"{repository}@{revision}"
    if not (folder / "config.json").exists():
        raise BaseModelError(
            f"The folder {folder} has no config.json and no GGUF file.",
            "Name a folder with a transformers model, or a GGUF file.",
        )
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not weights:
        raise BaseModelError(
            f"The folder {folder} has no *.safetensors weights.", "Convert the model."
        )
    stored = stored_quantisation(folder)
    if stored and stored.can_be_unpacked:
        weights = unpacked_weight_bytes(folder, stored)
    base = BaseModel(path, str(folder), weights, revision=revision, quantisation=stored)
    read_config(base)
    if scaling:
        base = replace(base, name=f"{path}#{scaling}", scaling=scaling)
    return _with_template(base, template) if template else base


def apply_rope_factor(base: BaseModel, factor: float) -> BaseModel:
    """Return the model with scaled positions (factor 1: as in its name). Raises `BaseModelError` on
    a conflict.
    """
    if base.scaling and factor not in (1, base.scaling.factor):
        raise BaseModelError(
            f"The base model {base.name} is scaled by {base.scaling}, and the settings ask for "
            f"factor {factor:g}.",
            "Give one of them: rope_scaling_factor, or #TYPE:FACTOR in the name.",
        )
    if factor != 1 and not base.scaling:
        requested = RopeScaling(DEFAULT_ROPE_TYPE, factor)
        base = replace(base, name=f"{base.name}#{requested}", scaling=requested)
    if base.scaling:
        load_config(base)
    return base


def _with_template(base: BaseModel, template: DefaultTemplate) -> BaseModel:
    """Return the model with a default template in place of its own. Raises `BaseModelError` for
    ChatML without its tokens.
    """
    if template == "chatml" and not _has_chatml_tokens(base):
        raise BaseModelError(
            f"The vocabulary of {base.name} has no {' and '.join(CHATML_TOKENS)}, so ChatML cannot "
            "be its template.",
            "Choose the plain one: NAME#plain.",
        )
    return replace(base, name=f"{base.name}#{template}", template=template)


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


def name_from_anywhere(name: str) -> str:
    """Return a base model's name by which it is found from any folder: the path of a file or folder
    becomes an absolute one. Raises `BaseModelError` as `split_name`.
    """
    path, *_ = split_name(name)
    place = expand_home(path)
    if path == EMBEDDED or not place.exists():
        return name
    return f"{place.absolute()}{name.removeprefix(path)}"


def name_with_settings(name: str, settings: Hyperparameters) -> str:
    """Append the settings' RoPE scaling to the name of a base model, unless it has its own."""
    factor = settings.rope_scaling_factor or 1
    path, *suffixes = name.split("#")
    if factor == 1 or any(":" in suffix for suffix in suffixes):
        return name
    return "#".join([path, str(RopeScaling(DEFAULT_ROPE_TYPE, factor)), *suffixes])


def read_config(base: BaseModel) -> dict[str, Any]:
    """Read the text model's part of `config.json`. Raises `BaseModelError`."""
    config = _read_whole_config(base)
    text = config.get("text_config", config)
    if not isinstance(text, dict):
        raise unreadable_file_error(base, "config.json", "it is not a JSON object")
    return text


def has_vision_encoder(base: BaseModel) -> bool:
    """Report whether a model has an encoder for pictures, as its `config.json` says. Raises
    `BaseModelError`.
    """
    return "vision_config" in _read_whole_config(base)


def _read_whole_config(base: BaseModel) -> dict[str, Any]:
    try:
        config: Any = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable_file_error(base, "config.json", error) from error
    if not isinstance(config, dict):
        raise unreadable_file_error(base, "config.json", "it is not a JSON object")
    return config


def unreadable_file_error(base: BaseModel, file: str, why: object) -> BaseModelError:
    """Build the error about a model file that is damaged or incomplete."""
    return BaseModelError(f"The {file} of {base.name} cannot be read: {why}.", "Fetch it again.")


def recommended_sampling(base: BaseModel) -> SamplingParams:
    """Return the sampling of `generation_config.json`, where the model's makers have it sample;
    else the defaults.

    What the file does not set, or out of range, has its default too. Raises `BaseModelError` if it
    cannot be read.
    """
    return replace(SamplingParams(), **recommended_values(base))


def recommended_values(base: BaseModel) -> dict[str, Any]:
    """Return the parameters of sampling that `generation_config.json` recommends, by name. Raises
    `BaseModelError` if it cannot be read.
    """
    config = _read_generation_config(base)
    values: dict[str, Any] = {}
    if not config.get("do_sample"):
        return values
    for name in RECOMMENDED_SAMPLING:
        if _is_taken_over(name, config.get(name)):
            values[name] = config[name]
    return values


def end_token_ids(base: BaseModel) -> tuple[int, ...]:
    """Return the tokens that end a text by `generation_config.json`, or by `config.json` where that
    names none.

    As in transformers' `generate`, there may be several. Raises `BaseModelError` if a file cannot
    be read.
    """
    stated: Any = _read_generation_config(base).get("eos_token_id")
    if stated is None:
        stated = read_config(base).get("eos_token_id")
    ids = stated if isinstance(stated, list) else [stated]
    valid = [token for token in ids if type(token) is int and token >= 0]
    return tuple(dict.fromkeys(valid))


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
    if own and base.scaling:
        return round(own * base.scaling.factor)
    return own


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
    last MiB); of a GGUF file, over its SHA-256 too.

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
    digest.update(gguf_source_hash(base.folder).encode())
    if base.scaling:
        digest.update(str(base.scaling).encode())
    if kind := default_template(base):
        digest.update(DEFAULT_TEMPLATES[kind].encode())
    return digest.hexdigest()


def split_name(name: str) -> tuple[str, RopeScaling | None, DefaultTemplate | None]:
    """Split the scaling and the chat template off a base model's name. Raises `BaseModelError` for
    another suffix.
    """
    scaling = None
    template = None
    path = name
    while "#" in path and not expand_home(path).is_dir():
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
