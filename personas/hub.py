"""Base models of a hub: fetched once, into the hub's own cache, at one commit."""

from __future__ import annotations

from pathlib import Path

from personas.errors import BaseModelError

FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
"""What of a model's files is fetched."""


def fetched(name: str, revision: str = "") -> Path:
    """The folder of a model at a commit, tag or branch (the main one if left out), whose name is the commit's.

    Where no hub can be reached, what was fetched before is found. Raises `BaseModelError` with what is in the way.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=FILES))
    except errors.GatedRepoError as error:
        why, advice = "the hub gives it only to those who accepted its terms", "Accept them there and set HF_TOKEN."
        raise BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice) from error
    except errors.RepositoryNotFoundError as error:
        why, advice = "the hub has no such model, or it is private", "Check the spelling; a private one needs HF_TOKEN."
        raise BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice) from error
    except errors.RevisionNotFoundError as error:
        why = f"the hub has no commit, tag or branch {revision!r} of it"
        advice = "Check what stands behind the @, or leave it out for the newest."
        raise BaseModelError(f"The base model {name!r} cannot be fetched: {why}.", advice) from error
    except errors.HFValidationError as error:
        why = f"The base model {name!r} is neither a folder nor a model's id on a hub."
        raise BaseModelError(
            why, "Set BASE_MODEL to `embedded`, a model folder, or an id such as owner/name."
        ) from error
    except Exception as error:  # what the network says comes in many kinds
        kind = "" if isinstance(error, errors.LocalEntryNotFoundError) else f" ({type(error).__name__})"
        raise BaseModelError(
            f"The base model {_asked(name, revision)!r} is no folder here, and no hub could be reached{kind}.",
            "Check the network and try again, or set BASE_MODEL to `embedded` or a model folder.",
        ) from error


def fetched_before(name: str, revision: str = "") -> Path:
    """The same folder without asking a hub. Raises `BaseModelError`."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=FILES, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        raise BaseModelError(
            f"The base model {_asked(name, revision)!r} is not on this machine.",
            "Name `embedded`, a model folder, or a model that was fetched from a hub before.",
        ) from None


def _asked(name: str, revision: str) -> str:
    return f"{name}@{revision}" if revision else name
