"""Model folders of a hub: fetched, or found in the hub's cache."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personas.errors import BaseModelError

SNAPSHOT_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "tokenizer*")
"""Files of a model repository that are downloaded."""
IGNORED_PATTERNS = ("consolidated*", "original/*")
"""The same weights once more, in the form of their makers' own programs."""
HUB_TIMEOUT_S = 3.0
HUB_OFFLINE_ERROR = "HF_HUB_OFFLINE is set"


def find_hub_error() -> str:
    """Return why a model hub cannot be asked, as the end of a sentence; empty if it can. Takes up
    to 3 s.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return HUB_OFFLINE_ERROR
    from huggingface_hub import constants  # reads the environment when it is loaded

    answers = list[bool]()
    thread = threading.Thread(
        target=lambda: answers.append(_is_reachable(constants.ENDPOINT)), daemon=True
    )
    thread.start()
    thread.join(HUB_TIMEOUT_S)  # looking up a name can take longer than any time-out allows
    return "" if any(answers) else f"no hub can be reached at {constants.ENDPOINT}"


def _is_reachable(address: str) -> bool:
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):  # nosec B310
            return True
    except urllib.error.HTTPError:
        return True  # it says no, but it is there
    except (OSError, ValueError):
        return False


def fetch_snapshot(
    name: str, revision: str = "", patterns: Sequence[str] = SNAPSHOT_PATTERNS
) -> Path:
    """Download the files of a model that match `patterns`, at a commit, tag or branch; without
    network the cache is used. Raises `BaseModelError`.
    """
    from huggingface_hub import (
        errors,
        snapshot_download,
    )  # takes 0.15 s; local models do not need it

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(patterns),
                ignore_patterns=list(IGNORED_PATTERNS),
            )
        )
    except errors.GatedRepoError as error:
        why = "the hub offers it only to those who accepted its terms"
        raise _fetch_error(name, why, "Accept them there and set HF_TOKEN.") from error
    except errors.RepositoryNotFoundError as error:
        why = "the hub has no such model, or it is private"
        advice = "Check the spelling; a private one needs HF_TOKEN."
        raise _fetch_error(name, why, advice) from error
    except errors.RevisionNotFoundError as error:
        why = f"the hub has no commit, tag or branch {revision!r} of it"
        advice = "Check the revision after the @, or leave it out for the newest."
        raise _fetch_error(name, why, advice) from error
    except errors.HFValidationError as error:
        raise BaseModelError(
            f"The base model {name!r} is neither a folder nor a model's id on a hub.",
            "Set BASE_MODEL to `embedded`, a model folder, a GGUF file, or an id such as owner/name "
            "or owner/name:Q4_K_M.",
        ) from error
    except Exception as error:  # network errors have many types
        kind = f" ({type(error).__name__})"
        if isinstance(error, errors.LocalEntryNotFoundError):
            kind = ""
        raise BaseModelError(
            f"The base model {_with_revision(name, revision)!r} is no local folder, and no hub "
            f"could be reached{kind}.",
            "Check the network and try again, or set BASE_MODEL to `embedded` or a model folder.",
        ) from error


def _fetch_error(name: str, why: str, advice: str) -> BaseModelError:
    return BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice)


def find_snapshot(
    name: str, revision: str = "", patterns: Sequence[str] = SNAPSHOT_PATTERNS
) -> Path:
    """Find the same folder in the cache, without network. Raises `BaseModelError`."""
    from huggingface_hub import (
        errors,
        snapshot_download,
    )  # takes 0.15 s; local models do not need it

    try:
        options: dict[str, Any] = {
            "allow_patterns": list(patterns),
            "ignore_patterns": list(IGNORED_PATTERNS),
            "local_files_only": True,
        }
        return Path(snapshot_download(name, revision=revision or None, **options))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        raise BaseModelError(
            f"The base model {_with_revision(name, revision)!r} is not on this machine.",
            "Name `embedded`, a model folder, or a model that was fetched from a hub before.",
        ) from None


def _with_revision(name: str, revision: str) -> str:
    return f"{name}@{revision}" if revision else name
