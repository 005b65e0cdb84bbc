"""Loads base models and their tokenizers with transformers."""

import os
import sys
from importlib.util import find_spec
from typing import Any, Literal

import psutil
from safetensors import SafetensorError

from personas.errors import BaseModelError, NoMemoryError
from personas.models.base_model import (
    BaseModel,
    default_template,
    end_token_ids,
    load_config,
)
from personas.models.packed_weights import unpacked_state
from personas.models.stored_quantisation import (
    BITS_AND_BYTES,
    COMPRESSED_TENSORS,
    MXFP4,
    require_unpackable,
)
from personas.prompt.chat_template import default_template_text

MISMATCHED_SIZES_MARKER = "ignore_mismatched_sizes"
"""Part of transformers' error message about weights with other shapes."""
LOADING_MEMORY_FACTOR = 1.15  # memory while loading, relative to the weights: buffers come on top
TrainingPrecision = Literal["bfloat16", "float16", "float32"]


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

    load_bitsandbytes()
    return torch


def load_bitsandbytes() -> None:
    """Import bitsandbytes without torch's compiler; to be called before peft, which imports it.

    It has functions for devices without kernels of its own compiled as it is imported. Nothing
    here calls them, and loading the compiler takes as long as torch itself.
    """
    is_loaded = "bitsandbytes" in sys.modules or "torch._inductor.compile_fx" in sys.modules
    if is_loaded or not find_spec("bitsandbytes"):
        return
    import torch

    compile_function = torch.compile
    torch.compile = _leave_uncompiled  # type: ignore[assignment]  # whatever its overloads
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compile_function


def _leave_uncompiled(function: Any = None, **options: Any) -> Any:
    """Stand in for `torch.compile`, with and without options."""
    return function or _leave_uncompiled


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
    weight_bytes = base.weight_bytes * (2 if precision == "float32" else 1)
    require_memory(int(weight_bytes * LOADING_MEMORY_FACTOR), f"The base model {base.name}")
    if base.scaling:
        options["config"] = load_config(base)
    dtype = getattr(torch, precision)
    stays_packed = _set_stored_form(base, options)
    if base.quantisation and base.quantisation.is_integer:
        return _load_integer_model(base, dtype, **options).eval()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.source,
            dtype=dtype,
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
        model = _unpack(model, dtype)
    return model.eval()


def _load_integer_model(base: BaseModel, dtype: Any, **options: Any) -> Any:
    """Load a model whose weights are stored in integers, unpacked to `dtype`. Raises
    `BaseModelError`.
    """
    from transformers import AutoModelForCausalLM

    stored = base.quantisation
    assert stored is not None
    config = options.pop("config", None) or load_config(base)
    del config.quantization_config
    weights = unpacked_state(base.folder, stored, dtype)
    try:
        kind = AutoModelForCausalLM._model_mapping[type(config)]
        model = kind.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, **options
        )
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        raise BaseModelError(
            f"The base model {base.name} cannot be loaded: {error}.", "Check the model."
        ) from error
    # Otherwise peft asks a hub for the configuration of a model without a name.
    model.config._name_or_path = model.name_or_path = base.source
    return model


def _unpack(model: Any, dtype: Any) -> Any:
    """Make a plain model of one whose weights were stored quantised, which can be saved, too."""
    if getattr(model, "hf_quantizer", None):
        model = model.dequantize(dtype=dtype)
    # Left over by transformers.
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    vars(model).pop("_weight_conversions", None)
    # Weights that were stored plain have their own precision. The model's own `.to` would round its
    # rotary frequencies, too.
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def _set_stored_form(base: BaseModel, options: dict[str, Any]) -> bool:
    """Set the options for loading quantised weights; return True if they stay packed."""
    stored = base.quantisation
    if stored is None:
        return False
    is_asked_for = options.pop("quantization_config", None) is not None
    if stored.method != BITS_AND_BYTES and not stored.is_integer:
        from transformers import (
            CompressedTensorsConfig,
            FineGrainedFP8Config,
            Mxfp4Config,
        )  # takes seconds

        kinds: dict[str, Any] = {MXFP4: Mxfp4Config, COMPRESSED_TENSORS: CompressedTensorsConfig}
        kind = kinds.get(stored.method, FineGrainedFP8Config)
        options["quantization_config"] = kind(dequantize=True)
    is_on_gpu = options.get("device_map", {}).get("", "cpu") != "cpu"
    return is_asked_for and is_on_gpu and stored.stays_packed
