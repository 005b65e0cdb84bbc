"""Base models whose weights are stored quantised: which they are, and which can be unpacked,
without torch.

The form is `quantization_config` in config.json, as transformers writes it
(`transformers/quantizers/auto.py`), or a file of its own in older GPTQ and AWQ models.
"""

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
UNPACKED_METHODS = (BITS_AND_BYTES, FP8, MXFP8, MXFP4)
"""Methods whose weights transformers unpacks with the packages of this project."""
NAMES = {BITS_AND_BYTES: "bitsandbytes", "awq": "AWQ", "gptq": "GPTQ", "modelopt": "ModelOpt"}
PACKED_SUFFIXES = (".weight", "_blocks")
VALUES_PER_ELEMENT = {"U8": 2, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1}
"""Weights in an element of a packed tensor, by its type in the file: a byte has two of 4 bits."""
UNPACKED_BYTES = 2


@dataclass(frozen=True)
class StoredQuantisation:
    """The form of quantised weights. `bits` per weight, 0 if it is not stated.

    `quant_type` and `double_quant` are those of 4-bit bitsandbytes weights, the form that QLoRA
    trains over.
    """

    method: str
    bits: int = 0
    quant_type: Literal["nf4", "fp4"] | None = None
    double_quant: bool = False

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
        return self.method in UNPACKED_METHODS

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
    bits = settings.get("bits", settings.get("w_bit"))
    return StoredQuantisation(method or "an unnamed quantisation", bits if type(bits) is int else 0)


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


def unpacked_weight_bytes(folder: Path) -> int:
    """Return the size of a folder's weights with the packed ones in 16 bits, by the files' headers.

    Raises `BaseModelError` for a damaged file.
    """
    from safetensors import SafetensorError, safe_open  # imports numpy

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "numpy") as weights:
                for name in weights.keys():  # noqa: SIM118  # it is no mapping
                    total += _unpacked_bytes(name, weights.get_slice(name))
        except (OSError, SafetensorError) as error:
            raise BaseModelError(
                f"{file} cannot be read: {error}.", "Fetch the model again."
            ) from error
    return total


def _unpacked_bytes(name: str, tensor: Any) -> int:
    kind = str(tensor.get_dtype())
    count = math.prod(tensor.get_shape())
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
    known = "bitsandbytes, FP8, MXFP8 and MXFP4"
    raise BaseModelError(
        f"The weights of {name} are stored in {stored.name}, which cannot be unpacked here: only "
        f"{known} can.",
        "Name the model that it was made from, in 16 bits; quant_type=nf4 trains that in 4 bits as "
        "well.",
    )
