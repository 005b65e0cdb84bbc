"""Versions as LoRA files for llama.cpp: written from their adapter folders, checked, and kept in the
home's cache.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from personas.errors import AdapterError, ExportError
from personas.home.adapters import verify_for_base_model
from personas.home.atomic_files import fsync_path, replace_durably
from personas.home.gguf_cache import delete_gguf_adapters, gguf_adapter_path
from personas.home.lora_checks import LayerShapes, lora_scale, read_lora
from personas.models.base_model import BaseModel, fingerprint, load_config
from personas.models.gguf_format import GgufArchitecture, lora_architecture_of
from personas.models.gguf_lora import (
    GgufBase,
    LoraModule,
    gguf_names,
    read_tensors,
    require_fits_base,
    write_gguf_lora,
)
from personas.schemas.chat import AdapterRef

log = logging.getLogger(__name__)
FORMAT_VERSION = 1
"""Part of each file's name; raised when the same adapter would be written otherwise."""
SERVE_LOCALLY_ADVICE = "Serve it with ENGINE=local."


@dataclass(frozen=True)
class GgufAdapters:
    """The LoRA files of a home's versions, for llama.cpp servers of one base model.

    `file` is the base model as GGUF, `layers` are its linear layers as they are in safetensors.
    """

    home: Path
    base: BaseModel
    file: Path
    layers: LayerShapes

    @cached_property
    def architecture(self) -> GgufArchitecture:
        """How layers are named and stored in GGUF. Raises `ExportError` for families without."""
        return lora_architecture_of(self.config)

    @cached_property
    def config(self) -> Any:
        """The base model's transformers configuration."""
        return load_config(self.base)

    @cached_property
    def gguf_base(self) -> GgufBase:
        """The base model's file as far as adapters depend on it. Raises `ExportError`."""
        return GgufBase.read(self.file)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.base)

    def path(self, adapter: AdapterRef) -> Path:
        """Return the path of a version's file, whether or not it exists. Its name differs for
        another adapter of the same version.
        """
        digest = hashlib.sha256(f"{FORMAT_VERSION}\0{self.fingerprint}".encode())
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            try:
                digest.update(hashlib.sha256((adapter.folder / name).read_bytes()).digest())
            except OSError as error:
                raise AdapterError(
                    f"The adapter in {adapter.folder} cannot be read: {error}.",
                    "Roll back to another version, or train this one again.",
                ) from error
        return gguf_adapter_path(self.home, adapter.name, digest.hexdigest())

    def write(self, adapter: AdapterRef) -> Path:
        """Verify a version, and return its LoRA file, which is written unless it is there whole.

        Raises `AdapterError` for a version that is damaged, made for another base model, or that
        llama.cpp cannot apply.
        """
        verify_for_base_model(adapter, self.fingerprint)
        path = self.path(adapter)
        if self._is_whole(path):
            return path
        try:
            self._write(adapter, path)
        except (ExportError, OSError) as error:
            message = error.message if isinstance(error, ExportError) else str(error)
            advice = error.advice if isinstance(error, ExportError) else "Free disk space."
            raise AdapterError(
                f"{adapter.persona_id} {adapter.version} cannot be written as a LoRA file for "
                f"llama.cpp: {message}",
                advice,
            ) from error
        return path

    def delete(self, adapter: AdapterRef) -> None:
        """Delete the files of a version, whatever adapter they were written of."""
        delete_gguf_adapters(self.home, adapter.name)

    def _is_whole(self, path: Path) -> bool:
        """Report whether a file is there that a server can load: with a damaged one, none starts."""
        if not path.exists():
            return False
        try:
            require_fits_base(path, self.gguf_base)
        except ExportError as error:
            log.warning("%s is written anew: %s", path, error)
            return False
        return True

    def _write(self, adapter: AdapterRef, path: Path) -> None:
        modules = self._modules(adapter)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as scratch:
            temporary = Path(scratch) / path.name
            write_gguf_lora(temporary, modules, self.architecture, self.config, name=adapter.name)
            require_fits_base(temporary, self.gguf_base)
            self._require_written(temporary, modules)
            fsync_path(temporary)
            replace_durably(temporary, path)

    def _modules(self, adapter: AdapterRef) -> list[LoraModule]:
        name = f"{adapter.persona_id} {adapter.version}"
        config, tensors = read_lora(adapter.folder, self.layers, name)
        if config.get("use_dora"):
            raise ExportError(
                "it is a DoRA, whose magnitudes have no place in such a file.", SERVE_LOCALLY_ADVICE
            )
        modules = []
        for key, tensor in tensors.items():
            layer = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            if not key.endswith(".lora_A.weight"):
                continue
            other = tensors[key.replace(".lora_A.", ".lora_B.")]
            scale = lora_scale(config, layer, int(tensor.shape[0]))
            modules.append(LoraModule(layer, tensor.float().numpy(), other.float().numpy(), scale))
        return modules

    def _require_written(self, path: Path, modules: Sequence[LoraModule]) -> None:
        """Read a file back and require every product of scale, B and A. Raises `ExportError`."""
        import numpy as np

        alpha, tensors = read_tensors(path)
        names = gguf_names(self.architecture, self.config, [module.name for module in modules])
        for module in modules:
            name = names[module.name]
            a = tensors.pop(f"{name}.lora_a", None)
            b = tensors.pop(f"{name}.lora_b", None)
            rows = self.architecture.stored(module.b, name, self.config)
            is_same = (
                a is not None
                and b is not None
                and np.array_equal(a, module.a)
                and np.allclose(b * (alpha / a.shape[0]), rows * module.scale, rtol=1e-5, atol=0)
            )
            if not is_same:
                raise ExportError(f"{name} is not read back as it was written.", "Check the disk.")
        if tensors:
            raise ExportError(f"{sorted(tensors)[0]} belongs to no layer.", "Check the disk.")
