"""Pushes an export to a model hub: checks token and repository first, then uploads it with a model
card.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path

from personas.errors import ExportError
from personas.home.adapters import CONFIG_FILE, MANIFEST_FILE, README_FILE
from personas.home.hub_download import HUB_ID_PATTERN
from personas.home.hub_errors import describe_hub_error

TEXT_FILES = (README_FILE, CONFIG_FILE, MANIFEST_FILE)
"""Files of an export that name the base model."""
COMMIT_TITLE = "Upload with Understudy"
TRANSFER_PREFIX = "transfer "
log = logging.getLogger(__name__)
SINGLE_FILE_SUFFIXES = {"gguf": ".gguf", "gguf-lora": "-lora.gguf", "charx": ".charx"}


@dataclass(frozen=True)
class HubTarget:
    """A repository that the token may see, or a new one, which becomes private."""

    repository: str
    is_new: bool
    is_public: bool

    @property
    def visibility(self) -> str:
        return "public" if self.is_public else "private"

    def path_for(self, to: str, folder: Path) -> Path:
        """Return where to write an export that is only pushed."""
        return folder / f"{self.repository.partition('/')[2]}{SINGLE_FILE_SUFFIXES.get(to, '')}"


def check_target(repository: str) -> HubTarget:
    """Check the token and look the repository up, before the export takes its time. Raises
    `ExportError`.
    """
    # The import takes 0.15 s, and most exports are not pushed.
    from huggingface_hub import HfApi, errors, get_token

    if not HUB_ID_PATTERN.fullmatch(repository):
        raise ExportError(f"{repository!r} is no repository's name.", "Write it as owner/name.")
    if not get_token():
        raise ExportError(
            "There is no token for the hub.", "Set HF_TOKEN to one with write access."
        )
    try:
        HfApi().whoami()
        try:
            info = HfApi().model_info(repository)
        except errors.RepositoryNotFoundError:
            return HubTarget(repository, is_new=True, is_public=False)
    except Exception as error:  # network errors have many types
        why, advice = describe_hub_error(error, repository)
        raise ExportError(f"{repository} was not pushed: {why}.", advice) from error
    return HubTarget(repository, is_new=False, is_public=not info.private)


class PushRefusedError(ExportError):
    """The hub refused a push: nothing of it is there."""


def push_export(
    target: HubTarget, out: Path, model_card: str, base_model: str, transfer: str = ""
) -> str:
    """Upload an export in one commit and return the commit's id; nothing is visible before.

    A base model in a folder of this machine appears by the folder's name only. After an error the
    hub is asked for the commit of this `transfer`: it may have made it although its answer was
    lost. Raises `ExportError`, as `PushRefusedError` if it certainly has not.
    """
    from huggingface_hub import CommitOperationAdd, HfApi  # as above

    contents: dict[str, Path | bytes] = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            contents[path.relative_to(out).as_posix()] = path
    if not contents:  # a single file
        contents[out.name] = out
    contents.setdefault(README_FILE, model_card.encode())
    contents |= _without_path(contents, base_model)
    operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
    transfer = transfer or uuid.uuid4().hex
    described = f"{TRANSFER_PREFIX}{transfer}"
    try:
        if target.is_new:
            HfApi().create_repo(target.repository, private=True)
        commit = HfApi().create_commit(
            target.repository, operations, commit_message=COMMIT_TITLE, commit_description=described
        )
        return str(commit.oid)
    except Exception as error:  # network errors have many types
        commit_id = _find_commit(target.repository, transfer)
        if commit_id:
            return commit_id
        why, advice = describe_hub_error(error, target.repository)
        if _is_refusal(error):
            raise PushRefusedError(f"{target.repository} was not pushed: {why}.", advice) from error
        what = (
            f"{target.repository} was not pushed: {why}. The hub shows no commit of it, but may "
            "have one later"
        )
        raise ExportError(f"{what}.", advice) from error


def _find_commit(repository: str, transfer: str) -> str:
    """Find the commit of a transfer on the hub, which is asked several times; empty if there is
    none, or no answer.
    """
    from huggingface_hub import HfApi  # as above

    try:
        commits = HfApi().list_repo_commits(repository)
    except Exception as error:  # network errors have many types
        log.info("%s cannot be asked for its commits: %s", repository, error)
        return ""
    return next((commit.commit_id for commit in commits if transfer in commit.message), "")


def _is_refusal(error: Exception) -> bool:
    """Report whether the hub answered, and answered that it does not do it."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return isinstance(status, int) and 400 <= status < 500 and status != 408


def _without_path(contents: dict[str, Path | bytes], base_model: str) -> dict[str, bytes]:
    """Return the texts that name the base model's folder on this machine, with its last part and
    new checksums.
    """
    path = base_model.rpartition("#")[0] or base_model
    if not Path(path).expanduser().is_dir():
        return {}
    if any(name.endswith(SINGLE_FILE_SUFFIXES["charx"]) for name in contents):
        what = (
            "A card with this adapter was not pushed: its manifest names a folder of this machine."
        )
        raise ExportError(what, "Push --to adapter instead.")
    texts = {}
    for name in TEXT_FILES:
        if name in contents:
            content = contents[name]
            text = content if isinstance(content, bytes) else content.read_bytes()
            texts[name] = text.replace(path.encode(), Path(path).name.encode())
    if MANIFEST_FILE in texts:
        manifest = json.loads(texts[MANIFEST_FILE])
        for name in TEXT_FILES[:-1]:  # all but the manifest itself
            if name in texts:
                manifest["checksums"][name] = hashlib.sha256(texts[name]).hexdigest()
        texts[MANIFEST_FILE] = json.dumps(manifest, indent=2).encode()
    return texts
