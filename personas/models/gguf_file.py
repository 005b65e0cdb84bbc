"""GGUF files as base models: each is unpacked once into a transformers folder in 16 bits."""

import hashlib
import json
import logging
import os
import re
import shutil
import struct
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError
from personas.models.cached_folder import make_once
from personas.models.gguf_header import (
    GgufHeader,
    drop_added_tokens,
    find_misread_token,
    parsed_once,
    read_header,
    restore_settings,
)

MAGIC = b"GGUF"
SOURCE_FILE = "gguf.json"
"""In an unpacked folder: path, size in bytes and SHA-256 of the file that it was unpacked from."""
BYTES_PER_PARAMETER = 2
DISK_RESERVE_BYTES = 100 * 2**20
"""Free disk space to leave beside the weights: for the tokenizer, and for other programs."""
PART_OF_FILE = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
READ_ERRORS = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""Errors of the reader and of transformers about a damaged file or an unknown family."""
SAFETENSORS_ADVICE = "Name the folder or the hub id of the same model in safetensors."
log = logging.getLogger(__name__)


class NotUnpackedError(BaseModelError):
    """A GGUF file that is unpacked when it is loaded for the first time, and was not loaded yet."""


def is_gguf(file: Path) -> bool:
    """Report whether a file begins as GGUF files do. Its name may be any: Ollama's blobs have no
    suffix.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def unpacked_gguf(file: Path, *, unpack: bool = True) -> Path:
    """Return the transformers folder of a GGUF file in the cache, which is unpacked on first use.

    Raises `BaseModelError` for a part of a file, a damaged one, a model that transformers would read
    otherwise than it is written, and a disk without room; `NotUnpackedError` with `unpack=False`
    for a file that was not unpacked yet.
    """
    if (part := PART_OF_FILE.search(file.name)) and int(part[2]) > 1:
        raise BaseModelError(
            f"{file} is part {int(part[1])} of {int(part[2])} of a model.",
            "Join them into one file: llama-gguf-split --merge FIRST_PART OUT.gguf",
        )
    file = file.absolute()
    folder = _cached_folder(file)
    last_file = folder / "config.json"
    if not unpack and not last_file.exists():
        raise NotUnpackedError(
            f"{file} is not unpacked yet.",
            "The bot unpacks it at its next start, and a training over it does, too.",
        )
    try:
        make_once(last_file, partial(_unpack_into_cache, file, folder))
    except OSError as error:
        raise BaseModelError(
            f"{file} cannot be unpacked to {folder}: {error}.",
            "Free disk space or correct the permissions, then try again.",
        ) from error
    return folder


def readable_header(file: Path) -> GgufHeader:
    """Read a file's metadata, which takes seconds. Raises `BaseModelError`."""
    try:
        return read_header(file)
    except READ_ERRORS as error:
        raise BaseModelError(
            f"{file} cannot be read as GGUF: {error}.", "Fetch it again."
        ) from error


def gguf_source_hash(folder: Path) -> str:
    """Return the SHA-256 of the GGUF file that a model folder was unpacked from; empty for another
    folder.
    """
    try:
        source: Any = json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))
        return str(source["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def unpack_gguf(
    file: Path,
    folder: Path,
    name: str,
    *,
    header: GgufHeader,
    source: dict[str, Any] | None = None,
) -> None:
    """Write a GGUF file's model, tokenizer and chat template as a transformers folder in bf16.

    It is written beside and renamed, so that other processes never see a partial one. `name` is the
    model's name in its configuration. `source` is stored in the folder. Raises `OSError`,
    `BaseModelError`, and transformers' errors about the file.
    """
    import torch  # both take seconds, and are needed on first use only
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    restore_settings(config, header, file)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        config=config,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.config._name_or_path = name

    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        drop_added_tokens(temporary, header.vocabulary)
        if problem := find_misread_token(AutoTokenizer.from_pretrained(temporary), header):
            raise BaseModelError(
                f"transformers reads the tokenizer of {file} otherwise than it is written: "
                f"{problem}.",
                SAFETENSORS_ADVICE,
            )
        if source is not None:
            (temporary / SOURCE_FILE).write_text(json.dumps(source), encoding="utf-8")
        temporary.chmod(0o755)
        for part in temporary.iterdir():
            part.chmod(0o644)
            _flush(part)
        temporary.replace(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _cached_folder(file: Path) -> Path:
    """Return the folder for a file as it is now: another size or time is another folder."""
    from huggingface_hub import constants  # takes 0.15 s

    state = file.stat()
    key = f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    stem = re.sub(r"[^\w.-]+", "-", file.name.removesuffix(".gguf"))[:80]
    return Path(constants.HF_HOME) / "understudy" / f"{stem}-{digest}"


def _unpack_into_cache(file: Path, folder: Path) -> None:
    header = readable_header(file)
    needed = header.parameters * BYTES_PER_PARAMETER + DISK_RESERVE_BYTES
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise BaseModelError(
            f"{file} takes {needed / 2**30:.1f} GiB when it is unpacked, and {folder.parent} has "
            f"{free / 2**30:.1f} GiB free.",
            "Free disk space, or set HF_HOME to a folder on another disk.",
        )
    size = f"{header.parameters / 1e9:.2f} billion parameters"
    described = f"{file} ({size}, {header.architecture})"
    log.info("Unpacking %s to %s; this is done once.", described, folder)
    source = {"file": str(file), "bytes": file.stat().st_size, "sha256": _sha256(file)}
    try:
        with parsed_once(file):
            unpack_gguf(file, folder, file.name, header=header, source=source)
    except BaseModelError:
        raise
    except READ_ERRORS as error:
        # transformers' own have no number, those of the disk have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BaseModelError(
            f"transformers cannot read {file}, a model of the architecture {header.architecture} "
            f"({type(error).__name__}: {error}).",
            SAFETENSORS_ADVICE,
        ) from error
    _remove_outdated(folder, str(file))


def _remove_outdated(folder: Path, file: str) -> None:
    """Delete the folders that were unpacked from the file as it was before."""
    for source in folder.parent.glob(f"*/{SOURCE_FILE}"):
        if source.parent == folder:
            continue
        with suppress(OSError, ValueError, AttributeError):
            if json.loads(source.read_text(encoding="utf-8")).get("file") == file:
                shutil.rmtree(source.parent, ignore_errors=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Flush a file or folder to disk. `personas.home`, which can too, imports this package."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
