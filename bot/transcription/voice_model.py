"""The Whisper model that VOICE_MODEL names: a folder, or one of a hub, fetched as base models are."""

import importlib.util
import re
from pathlib import Path

from personas.errors import UnderstudyError
from personas.home.hub_addresses import restrict_hub_client
from personas.home.hub_errors import hub_errors_as

PACKAGE = "faster_whisper"
SIZES = ("tiny", "base", "small", "medium", "large-v3")
REPOSITORY = "Systran/faster-whisper-{size}"
"""The same models in the format of CTranslate2, by the makers of faster-whisper."""
VOICE_MODEL_ID_PATTERN = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
WEIGHTS_FILE = "model.bin"
REQUIRED_FILES = ("config.json", WEIGHTS_FILE, "tokenizer.json")
"""Without a tokenizer, faster-whisper would ask a hub for one."""
FILE_PATTERNS = (*REQUIRED_FILES, "preprocessor_config.json", "vocabulary.*")
INSTALL_ADVICE = (
    "Install requirements/voice.txt, or the package with the extra `voice` (docs/howto/voice.md), or "
    "leave VOICE_MODEL out."
)


class VoiceModelError(UnderstudyError):
    """VOICE_MODEL names no model that can be used here."""


class ModelNotHereError(VoiceModelError):
    """The model would have to be fetched."""


def locate_voice_model(name: str, *, fetch: bool) -> Path:
    """Find the folder of a model: a folder's path, a size of Whisper, or a hub id, which `fetch`
    downloads if a hub can be reached. Raises `VoiceModelError`.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise VoiceModelError(
            f"VOICE_MODEL is {name}, but faster-whisper is not installed.", INSTALL_ADVICE
        )
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _find_at_hub(name, fetch=fetch)
    missing = [file for file in REQUIRED_FILES if not (folder / file).is_file()]
    if missing:
        raise VoiceModelError(
            f"The voice model {name} has no {' and no '.join(missing)}.",
            "Name a Whisper model in the format of CTranslate2 (docs/howto/voice.md).",
        )
    return folder


def _find_at_hub(name: str, *, fetch: bool) -> Path:
    hub_id = REPOSITORY.format(size=name) if name in SIZES else name
    found = VOICE_MODEL_ID_PATTERN.fullmatch(hub_id)
    if found is None:
        raise VoiceModelError(
            f"VOICE_MODEL is {name}, which is no folder, no size of Whisper and no hub id.",
            f"Name a folder, an id such as {REPOSITORY.format(size='small')}, or one of "
            f"{', '.join(SIZES)}.",
        )
    repository = found["repository"]
    revision = found["revision"] or ""
    from huggingface_hub import errors, snapshot_download  # takes 0.15 s

    restrict_hub_client()
    with hub_errors_as(VoiceModelError, f"The voice model {name}", repository, revision):
        try:
            return Path(
                snapshot_download(
                    repository,
                    revision=revision or None,
                    allow_patterns=list(FILE_PATTERNS),
                    local_files_only=not fetch,
                )
            )
        except errors.LocalEntryNotFoundError as error:
            if fetch:
                raise
            raise ModelNotHereError(
                f"The voice model {name} is not on this machine yet.",
                "The bot fetches it when it starts, unless HF_HUB_OFFLINE is set.",
            ) from error
