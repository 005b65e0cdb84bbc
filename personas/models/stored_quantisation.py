"""Base models whose weights are stored quantised: which they are, and which can be unpacked,
without torch.

The form is `quantization_config` in config.json, as transformers writes it
(`transformers/quantizers/auto.py`), or a file of its own in older GPTQ and AWQ models.
"""

import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from personas.errors import BaseModelError

CONFIG_KEY = "quantization_config"
FILES_BY_METHOD = {
    "gptq": "quantize_config.json",
    "awq": "quant_config.json",
    "modelopt": "hf_quant_config.json",
}
"""Files of their own in which older models state it."""
BITS_AND_BYTES = "bitsandbytes"
FP8 = "fp8"
MXFP8 = "mxfp8"
MXFP4 = "mxfp4"
GPTQ = "gptq"
AWQ = "awq"
COMPRESSED_TENSORS = "compressed-tensors"
UNPACKED_METHODS = (BITS_AND_BYTES, FP8, MXFP8, MXFP4)
"""Methods whose weights transformers unpacks with the packages of this project."""
INTEGER_BITS = {GPTQ: (2, 4, 8), AWQ: (4,)}
"""Bits per weight of the integers that are unpacked here (`personas.models.packed_weights`)."""
INTEGER_FORMATS = {GPTQ: ("", "gptq", "gptq_v2"), AWQ: ("", "gemm")}
"""Their layouts that are."""
PACKAGES = {COMPRESSED_TENSORS: "compressed-tensors>=0.15.0"}
"""Packages with which transformers unpacks further methods (`transformers/quantizers`)."""
PACKED_WEIGHT_SUFFIX = ".qweight"
PACKED_LAYER_SUFFIXES = (PACKED_WEIGHT_SUFFIX, ".qzeros", ".scales", ".g_idx")
"""Tensors of a layer in integers."""
COMPRESSED_WEIGHT_SUFFIX = ".weight_packed"
"""Integers of compressed-tensors."""
WORD_BITS = 32
USUAL_BITS = 4
NAMES = {BITS_AND_BYTES: "bitsandbytes", AWQ: "AWQ", GPTQ: "GPTQ", "modelopt": "ModelOpt"}
PACKED_SUFFIXES = (".weight", "_blocks")
VALUES_PER_ELEMENT = {"U8": 2, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1}
"""Weights in an element of a packed tensor, by its type in the file: a byte has two of 4 bits."""
UNPACKED_BYTES = 2


@dataclass(frozen=True)
class StoredQuantisation:
    """The form of quantised weights. `bits` per weight, 0 if it is not stated.

    `quant_type` and `double_quant` are those of 4-bit bitsandbytes weights, the form that QLoRA
    trains over. `layout` is the order of integers in GPTQ's and AWQ's words, empty for the usual one.
    """

    method: str
    bits: int = 0
    quant_type: Literal["nf4", "fp4"] | None = None
    double_quant: bool = False
    layout: str = ""

    @property
    def name(self) -> str:
        """The form in words, such as `bitsandbytes 4-bit (nf4)` or `GPTQ 4-bit`."""
        name = NAMES.get(self.method, self.method)
        name = name.upper() if name == self.method and self.method in UNPACKED_METHODS[1:] else name
        bits = f" {self.bits}-bit" if self.bits and self.method not in (FP8, MXFP8, MXFP4) else ""
        return f"{name}{bits}{f' ({self.quant_type})' if self.quant_type else ''}"

    @property
    def can_be_unpacked(self) -> bool:
        """Whether the weights can be unpacked here, without which nothing trains, serves or merges
        them.
        """
        if self.method in PACKAGES:
            return not self.missing_package
        return self.method in UNPACKED_METHODS or self.is_integer

    @property
    def is_integer(self) -> bool:
        """Whether they are integers of GPTQ or AWQ in a form that is unpacked here."""
        bits = INTEGER_BITS.get(self.method, ())
        return self.bits in bits and self.layout in INTEGER_FORMATS.get(self.method, ())

    @property
    def zero_offset(self) -> int:
        """What the first version of GPTQ's format subtracts from zero points before it stores them."""
        return 1 if self.method == GPTQ and self.layout != "gptq_v2" else 0

    @property
    def missing_package(self) -> str:
        """The package with which transformers would unpack them, if it is not installed; else empty."""
        requirement = PACKAGES.get(self.method, "")
        name = requirement.partition(">")[0].replace("-", "_")
        return requirement if requirement and importlib.util.find_spec(name) is None else ""

    @property
    def stays_packed(self) -> bool:
        """Whether a GPU can compute and train over the packed weights."""
        return self.quant_type is not None


def stored_quantisation(folder: Path) -> StoredQuantisation | None:
    """Return the form of a model folder's quantised weights; None for plain ones, or an unreadable
    config.json.
    """
    settings = _settings(folder)
    if settings is None:
        return None
    method = str(settings.get("quant_method") or "").lower().replace("_", "-")
    if (
        settings.get("load_in_4bit")
        or settings.get("load_in_8bit")
        or method.startswith(BITS_AND_BYTES)
    ):
        return _bits_and_bytes(settings)
    bits = settings.get("bits", settings.get("w_bit", _group_bits(settings)))
    return StoredQuantisation(
        method or "an unnamed quantisation",
        bits if type(bits) is int else 0,
        layout=_layout(method, settings),
    )


def _group_bits(settings: Mapping[str, Any]) -> int | None:
    """Return the bits per weight that compressed-tensors states for its groups of layers; None without
    groups, or with several.
    """
    groups = settings.get("config_groups")
    stated = set()
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        stated.add(weights.get("num_bits") if isinstance(weights, dict) else None)
    return stated.pop() if len(stated) == 1 else None


def _layout(method: str, settings: Mapping[str, Any]) -> str:
    stated = {GPTQ: "checkpoint_format", AWQ: "version"}.get(method, "")
    return str(settings.get(stated) or "").lower()


def _bits_and_bytes(settings: Mapping[str, Any]) -> StoredQuantisation:
    if not (settings.get("load_in_4bit") or settings.get("_load_in_4bit")):
        return StoredQuantisation(BITS_AND_BYTES, 8)
    kind: Literal["nf4", "fp4"] = "nf4" if settings.get("bnb_4bit_quant_type") == "nf4" else "fp4"
    return StoredQuantisation(
        BITS_AND_BYTES, 4, kind, bool(settings.get("bnb_4bit_use_double_quant"))
    )


def _settings(folder: Path) -> Mapping[str, Any] | None:
    config = _read_object(folder / "config.json")
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and isinstance(part.get(CONFIG_KEY), dict):
            found: Mapping[str, Any] = part[CONFIG_KEY]
            return found
    for method, name in FILES_BY_METHOD.items():
        if (folder / name).exists():
            return {**_read_object(folder / name), "quant_method": method}
    return None


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # `read_config` says what is wrong with it
        return {}
    return value if isinstance(value, dict) else {}


def unpacked_weight_bytes(folder: Path, stored: StoredQuantisation) -> int:
    """Return the size of a folder's weights with the packed ones in 16 bits, by the files' headers.

    Raises `BaseModelError` for a damaged file.
    """
    from safetensors import SafetensorError, safe_open  # imports numpy

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "numpy") as weights:
                for name in weights.keys():  # noqa: SIM118  # it is no mapping
                    total += _unpacked_bytes(name, weights.get_slice(name), stored)
        except (OSError, SafetensorError) as error:
            raise BaseModelError(
                f"{file} cannot be read: {error}.", "Fetch the model again."
            ) from error
    return total


def _unpacked_bytes(name: str, tensor: Any, stored: StoredQuantisation) -> int:
    kind = str(tensor.get_dtype())
    count: int = math.prod(tensor.get_shape())
    if stored.is_integer and name.endswith(PACKED_LAYER_SUFFIXES):
        # Zero points, scales and groups are part of the weights then.
        is_weight = name.endswith(PACKED_WEIGHT_SUFFIX)
        return count * WORD_BITS // stored.bits * UNPACKED_BYTES if is_weight else 0
    if name.endswith(COMPRESSED_WEIGHT_SUFFIX):
        return count * WORD_BITS // (stored.bits or USUAL_BITS) * UNPACKED_BYTES
    if kind in VALUES_PER_ELEMENT and name.endswith(PACKED_SUFFIXES):
        return int(count * VALUES_PER_ELEMENT[kind] * UNPACKED_BYTES)
    digits = "".join(filter(str.isdigit, kind.partition("_")[0]))
    return int(count * max(int(digits or 8) // 8, 1))


def require_unpackable(name: str, stored: StoredQuantisation | None) -> None:
    """Raise `BaseModelError` if the base model's weights are stored in a form that cannot be
    unpacked here.
    """
    if stored is None or stored.can_be_unpacked:
        return
    elsewhere = (
        "ENGINE=vllm serves it without adapters; to train it, name the model that it was made from, in "
        "16 bits: quant_type=nf4 trains that in 4 bits as well."
    )
    if package := stored.missing_package:
        raise BaseModelError(
            f"The weights of {name} are stored in {stored.name}, and the package that unpacks them is "
            "not installed.",
            f'Install it: .venv/bin/pip install "{package}". Or: {elsewhere}',
        )
    known = "bitsandbytes, GPTQ, AWQ, FP8, MXFP8 and MXFP4"
    form = f"{stored.name}{f' ({stored.layout})' if stored.layout else ''}"
    raise BaseModelError(
        f"The weights of {name} are stored in {form}, which cannot be unpacked here: {known} can, in "
        "their usual layouts.",
        elsewhere,
    )
