"""Checks of an adapter's two peft files against its configuration and the base model, on import and
on each load.

Only LoRA and DoRA of linear layers pass: peft puts any other tensor in its place, also over the
weights of the base model, which all guilds share.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from personas.errors import AdapterError
from personas.home.adapters import CONFIG_FILE, WEIGHTS_FILE
from personas.models.base_model import BaseModel, load_config
from personas.models.loading import load_torch

PLAIN_LORA_SETTINGS = frozenset(
    "alpha_pattern base_model_name_or_path bias fan_in_fan_out inference_mode init_lora_weights "
    "lora_alpha lora_dropout megatron_core peft_type peft_version qalora_group_size r "
    "rank_pattern revision target_modules task_type use_dora use_rslora".split()
)
"""Settings of peft's `LoraConfig` that may be set: none loads code, builds on other models or needs
other tensors.
"""
# peft would accept any regular expression.
MODULE_NAME_PATTERN = re.compile(r"[\w.]{1,200}", re.ASCII)
MAGNITUDE = "lora_magnitude_vector"
TENSOR_NAME_PATTERN = re.compile(
    rf"base_model\.model\.(.+)\.(lora_A|lora_B|{MAGNITUDE})(\.weight)?"
)
SERVED_DTYPES = ("F32", "F16", "BF16")
DEFAULT_RANK = DEFAULT_ALPHA = 8  # peft's
MAX_RANK = 256
MAX_ALPHA = 10_000
MAX_HEADER_BYTES = 2**22
MAX_ABSOLUTE_WEIGHT = 65_504.0  # float16's largest number; trained weights are below 10
MAX_SHOWN_CHARS = 80
PLAIN_LORA_ADVICE = "Only plain LoRA and DoRA of linear layers are served."
CHOOSE_OTHER_ADVICE = "Save it again with peft, train it again, or choose another."
LayerShapes = Mapping[str, tuple[int, int]]
"""Inputs and outputs of the base model's linear layers, by name."""


def check_lora(
    folder: Path,
    layers: LayerShapes | None,
    name: str = "The adapter",
    *,
    has_all_layers: bool = True,
) -> dict[str, Any]:
    """Check the configuration, and names, kinds and shapes of the tensors, which are not read;
    return the first.

    Without `layers`, nothing is compared with the base model; without `has_all_layers`, others may
    be adapted too. Raises `AdapterError`, which calls the adapter by `name`.
    """
    complete = layers is not None and has_all_layers
    layers = layers or {}
    config = _read_config(folder, name)
    with _weights_errors(name):
        _require_small_header(folder / WEIGHTS_FILE)
        with safe_open(folder / WEIGHTS_FILE, "numpy") as weights:
            _check_tensors(weights, config, layers, complete)
    return config


def read_lora(
    folder: Path, layers: LayerShapes | None, name: str = "The adapter"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the files, and return configuration and tensors, whose numbers are in range. Raises
    `AdapterError`.
    """
    config = check_lora(folder, layers, name)
    with _weights_errors(name):
        return config, dict(_checked_tensors(folder, config))


def check_lora_and_values(folder: Path, layers: LayerShapes, name: str = "The adapter") -> None:
    """Check the same with one tensor at a time in memory. Raises `AdapterError`."""
    config = check_lora(folder, layers, name)
    with _weights_errors(name):
        for _ in _checked_tensors(folder, config):
            pass


def linear_shapes(model: Any) -> dict[str, tuple[int, int]]:
    """Return inputs and outputs of each linear layer of a loaded model, before peft wraps them."""
    torch = load_torch()
    from transformers.pytorch_utils import Conv1D  # takes seconds

    linears = {}
    convolutions = {}  # linear layers too, as GPT-2 has them
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            linears[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            convolutions[name] = (module.nx, module.nf)
    return linears | convolutions


def base_linear_shapes(base: BaseModel) -> dict[str, tuple[int, int]]:
    """Return the same for a base model, without loading its weights. Raises `BaseModelError`."""
    torch = load_torch()
    from transformers import AutoModelForCausalLM  # takes seconds

    config = load_config(base)
    with torch.device("meta"):
        return linear_shapes(AutoModelForCausalLM.from_config(config, trust_remote_code=False))


def stored_linear_shapes(base: BaseModel) -> dict[str, tuple[int, int]]:
    """Return the same for the layers stored as plain matrices, by the files' headers, without
    torch.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for file in sorted(base.folder.glob("*.safetensors")):
        with safe_open(file, "numpy") as weights:
            for key in weights.keys():  # noqa: SIM118 - it is no mapping
                if not key.endswith(".weight"):
                    continue
                tensor = weights.get_slice(key)
                shape = tensor.get_shape()
                if tensor.get_dtype() in SERVED_DTYPES and len(shape) == 2:
                    outputs, inputs = shape
                    shapes[key.removesuffix(".weight")] = (inputs, outputs)
    return shapes


def find_by_pattern(patterns: Mapping[str, Any] | None, layer: str, default: Any) -> Any:
    """Return a layer's value in `rank_pattern` or `alpha_pattern`: of the first name that it ends
    with, as in peft.
    """
    for name, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({name})", layer):
            return value
    return default


def lora_scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """Return the factor of A and B's product: α / r, or α / √r with rsLoRA (arXiv 2312.03732)."""
    common = config.get("lora_alpha", DEFAULT_ALPHA)
    alpha = float(find_by_pattern(config.get("alpha_pattern"), layer, common))
    if config.get("use_rslora"):
        return alpha / math.sqrt(rank)
    return alpha / rank


# ------------------------------------------------------------------------------------ configuration


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_bytes())
        wrong = [key for key, value in config.items() if value and key not in PLAIN_LORA_SETTINGS]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        what = f"{name}'s {CONFIG_FILE} cannot be read: {_shorten(error)}."
        raise AdapterError(what, CHOOSE_OTHER_ADVICE) from error
    if problem := ", ".join(wrong)[:MAX_SHOWN_CHARS] or _config_fault(config):
        raise AdapterError(f"{name} is more than a plain LoRA: {problem}.", PLAIN_LORA_ADVICE)
    return config


def _config_fault(config: dict[str, Any]) -> str:
    """Describe the first setting that is not a plain LoRA's; empty if there is none."""
    modules = config.get("target_modules") or {}
    ranks = config.get("rank_pattern") or {}
    alphas = config.get("alpha_pattern") or {}
    if config.get("peft_type") != "LORA":
        return f"its type is {str(config.get('peft_type'))[:MAX_SHOWN_CHARS]!r}"
    if config.get("bias", "none") != "none":
        return "it trains biases"
    if (init := config.get("init_lora_weights", True)) not in (True, False, "gaussian", None):
        return f"init_lora_weights {str(init)[:MAX_SHOWN_CHARS]!r} changes the base model"
    has_names = isinstance(modules, list) and bool(modules)
    if not has_names or not isinstance(ranks, dict) or not isinstance(alphas, dict):
        return "target_modules is no list of names"
    bad: list[object] = [name for name in (*modules, *ranks, *alphas) if not _is_module_name(name)]
    for rank in (config.get("r", DEFAULT_RANK), *ranks.values()):
        if not _is_number(rank, MAX_RANK, int):
            bad.append(f"rank {rank}")
    for alpha in (config.get("lora_alpha", DEFAULT_ALPHA), *alphas.values()):
        if not _is_number(alpha, MAX_ALPHA):
            bad.append(f"alpha {alpha}")
    return f"{str(bad[0])[:40]!r} is not accepted" if bad else ""


def _is_module_name(name: object) -> bool:
    return isinstance(name, str) and MODULE_NAME_PATTERN.fullmatch(name) is not None


def _is_number(value: object, most: int, kind: Any = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and 0 < value <= most


# ------------------------------------------------------------------------------------------ tensors


@contextmanager
def _weights_errors(name: str) -> Iterator[None]:
    """Translate the errors of a block into `AdapterError`."""
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        fault = f"it cannot be read ({_shorten(error)})"
        if type(error) is ValueError:  # of the checks here
            fault = str(error)
        raise AdapterError(
            f"{name}'s {WEIGHTS_FILE} does not fit: {fault}.", CHOOSE_OTHER_ADVICE
        ) from error


def _shorten(error: Exception) -> str:
    """Return an error's reason without the path of the file."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return (text or type(error).__name__)[:MAX_SHOWN_CHARS]


def _require_small_header(file: Path) -> None:
    with file.open("rb") as content:
        size = int.from_bytes(content.read(8), "little")
    # safetensors itself refuses a header beyond the file's end.
    if MAX_HEADER_BYTES < size < file.stat().st_size:
        raise ValueError(
            f"its header has {size:,} bytes, and at most {MAX_HEADER_BYTES:,} are read"
        )


def _check_tensors(
    weights: Any, config: dict[str, Any], layers: LayerShapes, complete: bool
) -> None:
    """Check the tensors of an open file by its header. Raises `ValueError` with the first fault."""
    sides: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for key in weights.keys():  # noqa: SIM118 - it is no mapping
        found = TENSOR_NAME_PATTERN.fullmatch(key)
        if not found or found[2] in sides[found[1]] or not (found[3] or found[2] == MAGNITUDE):
            raise ValueError(f"it has {key[:MAX_SHOWN_CHARS]!r}, which is no part of a plain LoRA")
        tensor = weights.get_slice(key)
        if tensor.get_dtype() not in SERVED_DTYPES:
            raise ValueError(
                f"{key} is stored as {tensor.get_dtype()}, not as {', '.join(SERVED_DTYPES)}"
            )
        sides[found[1]][found[2]] = tuple(tensor.get_shape())
    if not sides:
        raise ValueError("it has no matrices")
    for layer, shapes in sides.items():
        if complete and layer not in layers:
            raise ValueError(
                f"it adapts {layer[:MAX_SHOWN_CHARS]}, which the base model does not have as a "
                "linear layer"
            )
        _check_layer(layer, shapes, config, layers.get(layer))


def _check_layer(
    layer: str,
    shapes: dict[str, tuple[int, ...]],
    config: dict[str, Any],
    widths: tuple[int, int] | None,
) -> None:
    name = layer[:MAX_SHOWN_CHARS]
    expected = {"lora_A", "lora_B"}
    if config.get("use_dora"):
        expected.add(MAGNITUDE)
    if set(shapes) != expected:
        raise ValueError(f"{name} has {' and '.join(sorted(shapes))} only")
    a = shapes["lora_A"]
    b = shapes["lora_B"]
    rank = find_by_pattern(config.get("rank_pattern"), layer, config.get("r", DEFAULT_RANK))
    if len(a) != 2 or len(b) != 2:
        raise ValueError(f"{name} has shapes {a} and {b}, which are no matrices")
    inputs, outputs = widths or (a[1], b[0])
    if (a[1], b[0]) != (inputs, outputs):
        raise ValueError(
            f"{name} has shapes {a} and {b}; the base model's layer has {inputs} inputs and "
            f"{outputs} outputs"
        )
    if not a[0] == b[1] == rank:
        raise ValueError(f"{name} has rank {a[0]} and {b[1]}, and {CONFIG_FILE} states {rank}")
    if shapes.get(MAGNITUDE, (outputs,)) != (outputs,):
        raise ValueError(
            f"{name} has magnitudes of shape {shapes[MAGNITUDE]} for {outputs} outputs"
        )


def _checked_tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of checked files. Raises `ValueError` for numbers that no precision of
    serving can hold.
    """
    load_torch()  # safetensors imports it otherwise, without its settings
    with safe_open(folder / WEIGHTS_FILE, "pt") as weights:
        for key in weights.keys():  # noqa: SIM118 - as above
            tensor = weights.get_tensor(key)
            layer, side, _ = TENSOR_NAME_PATTERN.fullmatch(key).groups()  # type: ignore[union-attr]  # it was checked
            scale = lora_scale(config, layer, tensor.shape[1]) if side == "lora_B" else 1.0
            largest = float(tensor.float().abs().max()) * max(scale, 1.0)
            if not largest <= MAX_ABSOLUTE_WEIGHT:  # nor is NaN
                raise ValueError(
                    f"{key} has values that are not finite or not below {MAX_ABSOLUTE_WEIGHT:,.0f}"
                )
            yield key, tensor
