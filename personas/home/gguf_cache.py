"""Where the LoRA files for llama.cpp lie in a home, and how they are deleted with their versions."""

import re
from collections.abc import Iterator
from pathlib import Path

CACHE_FOLDER = "cache/gguf_lora"
NAMED_DIGEST_CHARS = 12


def gguf_adapter_path(home: Path, name: str, digest: str) -> Path:
    """Return the path of an adapter's file by its name in the engine and a digest of its content."""
    return home / CACHE_FOLDER / f"{_stem(name)}-{digest[:NAMED_DIGEST_CHARS]}.gguf"


def gguf_adapter_files(home: Path, name: str) -> Iterator[Path]:
    """Yield the files of a version, whatever adapters they were written of."""
    pattern = re.compile(rf"{re.escape(_stem(name))}-[0-9a-f]{{{NAMED_DIGEST_CHARS}}}\.gguf")
    for file in (home / CACHE_FOLDER).glob("*.gguf"):
        if pattern.fullmatch(file.name):
            yield file


def delete_gguf_adapters(home: Path, name: str) -> None:
    """Delete the files of a version. Raises `OSError`."""
    for file in gguf_adapter_files(home, name):
        file.unlink(missing_ok=True)


def _stem(name: str) -> str:
    """Return an adapter's name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", name)
