"""The base model that an adapter from outside names, compared with the one to serve it over."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from personas.errors import AdapterError
from personas.home.external_adapter_files import MAX_SHOWN_CHARS
from personas.home.hub_errors import shorten_message
from personas.models.base_model import EMBEDDED, BaseModel
from personas.schemas.training import AdapterManifest

EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model on the hub of which the bundled one is a 4-bit copy."""
QUANTISED_NAME_PATTERN = re.compile(
    r"(?:-unsloth)?(?:-bnb)?-(?:4|8)bit$|-(?:awq|gptq)(?:-int[48])?$", re.IGNORECASE
)
"""The end of the name of a quantised copy of a model, such as `-unsloth-bnb-4bit`."""


def require_base_model(
    config: dict[str, Any],
    stated: AdapterManifest | None,
    base: BaseModel,
    *,
    base_hash: str,
    is_stated: bool,
) -> tuple[str, ...]:
    """Require that the adapter names this base model, by hash or by name. Returns caveats.

    `base_hash` is the fingerprint of `base`. `is_stated`: somebody says that it is the base model,
    which counts where the adapter names a quantised one. Raises `AdapterError`.
    """
    if stated:
        if stated.base_model_hash != base_hash:
            raise _other_base_error(stated.base_model, base)
        return ()
    declared = str(config.get("base_model_name_or_path") or "")
    if declared in ("", base.repository, base.name):
        revision = config.get("revision")
        if revision and base.revision and revision not in (base.revision, "main"):
            return (
                f"It names commit {str(revision)[:40]} of its base model; {base.revision} is "
                "served.",
            )
        return () if declared else ("It names no base model.",)
    if base.repository == EMBEDDED and declared.lower() == EMBEDDED_HUB_ID.lower():
        return (f"It was trained over {EMBEDDED_HUB_ID}, of which `{EMBEDDED}` is a 4-bit copy.",)
    is_folder = Path(base.repository).is_absolute()
    if is_folder and Path(declared).name.lower() == base.folder.name.lower():
        return (f"It names {shorten_message(declared)}; the folder {base.folder.name} is served.",)
    if QUANTISED_NAME_PATTERN.search(declared):
        if _is_quantised_copy(declared, base):
            return (
                f"It was trained over {shorten_message(declared)}, a quantised copy of "
                f"{base.name}.",
            )
        if is_stated:
            return (
                f"It names {shorten_message(declared)}, a quantised model; {base.name} was stated "
                "as its base model.",
            )
        error = _other_base_error(declared, base)
        advice = (
            f"If {base.name} is the model of which that is a quantised copy, say so: trainer "
            "import --base-model."
        )
        raise AdapterError(error.message, advice)
    raise _other_base_error(declared, base)


def _is_quantised_copy(declared: str, base: BaseModel) -> bool:
    """Compare names: that of a copy may lack the beginning of the base model's."""
    copied = _plain_name(declared)
    repository = _plain_name(base.repository)
    folder = _plain_name(str(base.folder)) if base.folder else repository
    return copied in (folder, repository) or f"-{repository}".endswith(f"-{copied}")


def _plain_name(name: str) -> str:
    """Return a model's name without its owner and the suffixes of quantised copies, in lower
    case.
    """
    return QUANTISED_NAME_PATTERN.sub("", PurePosixPath(name).name).lower()


def _other_base_error(declared: str, base: BaseModel) -> AdapterError:
    shown = re.sub(r"[^\w./@:#-]", "", declared)[:MAX_SHOWN_CHARS]
    served = base.folder.name if Path(base.repository).is_absolute() else base.name
    return AdapterError(
        f"It was made for another base model ({shown}) than is served ({served}).",
        "Serve that one, or train the persona on this one.",
    )
