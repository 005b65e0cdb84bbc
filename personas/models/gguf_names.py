"""Names of GGUF models: a path, a hub id with a file, Ollama's and LM Studio's stores."""

import json
import os
import re
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError
from personas.models.gguf_file import is_gguf
from personas.models.hub_snapshot import fetch_snapshot, find_snapshot
from personas.outside_names import UnsafeNameError, require_safe_name

OLLAMA_NAME = re.compile(r"(?:[\w.-]+/)*[\w.-]+(?::[\w.-]+)?")
OLLAMA_MODEL_LAYER = "application/vnd.ollama.image.model"
HUB_FILE = re.compile(
    r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?:(?P<file>[\w./-]+)"
)
"""`owner/name:FILE.gguf`, `owner/name:Q4_K_M` or `owner/name@revision:Q4_K_M`."""
HUB_MODEL = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*(?:@[\w./-]+)?")
"""`name`, `owner/name` or `owner/name@revision`."""
PROJECTOR_MARK = "mmproj"
"""In the names of vision projectors, which lie beside models."""
OLLAMA_STORES = ("~/.ollama/models", "/usr/share/ollama/.ollama/models")
"""Where Ollama keeps models: a person's own, and the service's that its installer for Linux sets up
(https://docs.ollama.com/faq).
"""
MAX_LISTED = 8


def expand_home(name: str) -> Path:
    """Return the path that a model's name would be; "~nobody/…" stays as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # this machine has no such user
        return Path(name)


def may_be_model(path: str) -> bool:
    """Report whether a base model's name, without its suffixes, may mean a model: an existing file or
    folder, or a name as a hub's and Ollama's are. Asks neither.
    """
    if expand_home(path).exists():
        return True
    # On a hub, files are named after a colon.
    if path.lower().endswith(".gguf") and ":" not in path:
        return False
    return _is_ollama_name(path) or any(form.fullmatch(path) for form in (HUB_FILE, HUB_MODEL))


def find_gguf(name: str, *, fetch: bool = True) -> Path | None:
    """Find the GGUF file that a base model's name means; None if it means none.

    The name is a file, a folder that holds one GGUF file and no transformers model (LM Studio's), a
    model of this machine's Ollama, or a file on a hub: `owner/name:FILE.gguf`, `owner/name:Q4_K_M`.
    `fetch` downloads the latter. Raises `BaseModelError` for several files, and for none.
    """
    path = expand_home(name)
    if path.is_file():
        if is_gguf(path):
            return path
        raise BaseModelError(
            f"The base model {name} is a file, and no GGUF file.",
            "Name a GGUF file, or the folder of a transformers model.",
        )
    if path.is_dir():
        return None if (path / "config.json").exists() else _only_file(path)
    if file := _find_in_ollama(name):
        return file
    if hub_file := HUB_FILE.fullmatch(name):
        return _find_on_hub(hub_file, fetch=fetch)
    if ":" in name and "/" not in name and OLLAMA_NAME.fullmatch(name):
        raise BaseModelError(
            f"{name} is a name as Ollama's are, and no such model can be read in "
            f"{' or '.join(map(str, _ollama_stores()))}.",
            f"Type `ollama pull {name}`. If it is there, this user may not read it (the service's "
            "models are open to the group `ollama`), or it is in another folder, which "
            "OLLAMA_MODELS names. Or name a GGUF file: its path, owner/name:Q4_K_M, or "
            "owner/name:FILE.gguf.",
        )
    return None


def model_files(folder: Path) -> list[Path]:
    """Return the GGUF files of a folder that are models, by name."""
    return [file for file in sorted(folder.glob("*.gguf")) if PROJECTOR_MARK not in file.name]


def _only_file(folder: Path) -> Path | None:
    files = model_files(folder)
    if len(files) > 1:
        raise BaseModelError(
            f"The folder {folder} has {len(files)} GGUF files: {_listed(files)}.",
            f"Name one of them: BASE_MODEL={files[0]}",
        )
    return files[0] if files else None


def hub_file_patterns(wanted: str) -> list[str]:
    """Return the patterns of names that `FILE.gguf` or `Q4_K_M` means, the likeliest first. Raises
    `BaseModelError` for a name that leads out of its repository.
    """
    try:
        require_safe_name(wanted)
    except UnsafeNameError as error:
        raise BaseModelError(
            f"The name of the GGUF file is refused: {error}.",
            "Name a file of the repository, such as owner/name:FILE.gguf.",
        ) from error
    if wanted.endswith(".gguf"):
        return [wanted]
    return [f"*{mark}{case}.gguf" for mark in "-." for case in (wanted.upper(), wanted.lower())]


def _find_on_hub(name: re.Match[str], *, fetch: bool) -> Path:
    wanted = name["file"]
    patterns = hub_file_patterns(wanted)
    find = fetch_snapshot if fetch else find_snapshot
    folder = find(name["repository"], name["revision"] or "", patterns)
    for pattern in patterns:
        files = sorted(folder.rglob(pattern))
        if files:
            return files[0]
    raise BaseModelError(
        f"{name['repository']} has no GGUF file {wanted}.",
        "Name one of its files, such as owner/name:FILE.gguf, or the end of its name: "
        "owner/name:Q4_K_M.",
    )


def _ollama_stores() -> list[Path]:
    named = os.environ.get("OLLAMA_MODELS")
    return [Path(store).expanduser() for store in ([named] if named else OLLAMA_STORES)]


def _is_ollama_name(name: str) -> bool:
    model, _, tag = name.partition(":")
    if "/" in model and not tag:
        return False
    return OLLAMA_NAME.fullmatch(name) is not None and ".." not in name


def _find_in_ollama(name: str) -> Path | None:
    """Find a model in Ollama's stores: a manifest per tag, whose model layer names a blob."""
    if not _is_ollama_name(name):
        return None
    model, _, tag = name.partition(":")
    model = model if "/" in model else f"library/{model}"
    for store in _ollama_stores():
        # The folder between is the registry's host.
        for manifest in sorted(store.glob(f"manifests/*/{model}/{tag or 'latest'}")):
            digest = _model_digest(manifest)
            blob = store / "blobs" / digest.replace(":", "-")
            if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) and is_gguf(blob):
                return blob
    return None


def _model_digest(manifest: Path) -> str:
    try:
        content: Any = json.loads(manifest.read_text(encoding="utf-8"))
        layers = content["layers"]
        return next(
            str(layer["digest"]) for layer in layers if layer["mediaType"] == OLLAMA_MODEL_LAYER
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return ""


def _listed(files: list[Path]) -> str:
    names = [file.name for file in files[:MAX_LISTED]]
    return ", ".join(names) + (", …" if len(files) > MAX_LISTED else "")
