"""Adapters embedded in a character card (CHARX assets): embed, unpack, and check that they are
plain LoRA.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from personas.card.card_reader import read_card_file
from personas.card.card_writer import write_card
from personas.card.charx import ASSET_SCHEME, MAX_UNPACKED_BYTES
from personas.card.spec_card import ADAPTER_ASSET_TYPE, Card, convert_version
from personas.errors import AdapterError, ExportError
from personas.home.adapters import (
    MANIFEST_FILE,
    is_private_file,
    require_checksums,
    require_servable,
    verify_adapter,
)
from personas.home.lora_checks import LayerShapes, check_lora_and_values
from personas.outside_names import UnsafeNameError, path_inside, require_distinct_names
from personas.schemas.training import AdapterManifest
from personas.schemas.training_events import UNMEASURED, ScoreSummary

ADAPTER_URI_PREFIX = f"{ASSET_SCHEME}assets/{ADAPTER_ASSET_TYPE}/other/"

EXPORT_AGAIN_ADVICE = "Export the card again, with `python -m trainer export --to charx`."
DO_NOT_TRUST_ADVICE = "Do not trust this file: whoever made it wants to write elsewhere."


def has_adapter(card: Card) -> bool:
    return ADAPTER_URI_PREFIX + MANIFEST_FILE in card.files


def unpack_card_adapter(card: Card, folder: Path, where: str) -> AdapterManifest:
    """Unpack the adapter of a card, named `where` in errors, into a new folder.

    Nothing is written before every file equals the manifest's. Raises `AdapterError`, `OSError`.
    """
    if not has_adapter(card):
        raise AdapterError(
            f"{where} contains no adapter.",
            "Name an adapter folder, or a file made with --to charx.",
        )
    files = {}
    for uri, content in card.files.items():
        if uri.startswith(ADAPTER_URI_PREFIX):
            files[uri.removeprefix(ADAPTER_URI_PREFIX)] = content
    _verify_files(files, where)
    try:
        require_distinct_names(files)
        contents = {path_inside(folder, name): content for name, content in files.items()}
    except UnsafeNameError as error:
        raise AdapterError(
            f"{where} holds a file whose name {error}.", DO_NOT_TRUST_ADVICE
        ) from None
    for path, content in contents.items():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(content)
    return verify_adapter(folder)


def _verify_files(files: Mapping[str, bytes], where: str) -> None:
    """Compare the files of an adapter with its manifest. Raises `AdapterError`."""
    try:
        manifest = AdapterManifest.model_validate_json(files[MANIFEST_FILE])
    except ValidationError as error:
        what = f"{MANIFEST_FILE} in {where} is damaged: {error.errors()[0]['msg']}."
        raise AdapterError(what, EXPORT_AGAIN_ADVICE) from None
    actual = {}
    for name, content in files.items():
        if name != MANIFEST_FILE:
            actual[name] = hashlib.sha256(content).hexdigest()
    require_checksums(manifest, actual, f"The adapter in {where}", EXPORT_AGAIN_ADVICE)


def require_plain_lora(folder: Path, manifest: AdapterManifest, layers: LayerShapes) -> None:
    """Refuse imported adapters that are more than plain LoRA or do not fit these layers of the base
    model.

    Raises `AdapterError` with the reason.
    """
    require_servable(manifest, folder)
    check_lora_and_values(folder, layers)
    if manifest.metrics != UNMEASURED and not _are_losses(manifest.metrics):
        raise AdapterError(
            f"The losses in the adapter's {MANIFEST_FILE} are not valid.", EXPORT_AGAIN_ADVICE
        )


def _are_losses(metrics: ScoreSummary) -> bool:
    pairs = (
        metrics.loss_base,
        metrics.loss_tuned,
        metrics.general_loss_base,
        metrics.general_loss_tuned,
    )
    return all(math.isfinite(loss) and loss > 0 for loss in pairs)


def embed_adapter(card: Card, folder: Path, where: str) -> bytes:
    """Build the CHARX file of a card with this adapter in place of any other. Raises `ExportError`
    if too large.
    """
    card = remove_adapter(convert_version(card, 3))  # V2 cards have no assets
    files = dict(card.files)
    assets = list(card.data.get("assets") or [])
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if is_private_file(name):
            continue
        uri = ADAPTER_URI_PREFIX + name
        extension = path.suffix.removeprefix(".") or "unknown"
        files[uri] = path.read_bytes()
        assets.append({"type": ADAPTER_ASSET_TYPE, "uri": uri, "name": name, "ext": extension})
    if sum(map(len, files.values())) > MAX_UNPACKED_BYTES:
        raise ExportError(
            f"With this adapter the card would exceed {MAX_UNPACKED_BYTES // 2**20} MiB.",
            "Export --to adapter, and share card and adapter as separate files.",
        )
    document = {**card.document, "data": {**card.data, "assets": assets}}
    return write_card(replace(card, document=document, files=files), "charx", where).content


def remove_adapter(card: Card) -> Card:
    assets = []
    for asset in card.data.get("assets") or []:
        if not (isinstance(asset, dict) and asset.get("type") == ADAPTER_ASSET_TYPE):
            assets.append(asset)
    data = dict(card.data)
    if assets:
        data["assets"] = assets
    else:
        data.pop("assets", None)
    files = dict(card.files)
    for uri in card.files:
        if uri.startswith(ADAPTER_URI_PREFIX):
            del files[uri]
    return replace(card, document={**card.document, "data": data}, files=files)


def unpack_adapter(file: Path, folder: Path) -> Path:
    """Unpack and verify the adapter of a card file. Raises `CardError`, or `AdapterError` if it is
    incomplete.
    """
    unpack_card_adapter(read_card_file(file), folder, str(file))
    return folder
