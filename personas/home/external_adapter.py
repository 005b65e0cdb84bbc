"""Adapters from outside, brought into a folder, checked and sealed.

A peft folder holds `adapter_config.json` and `adapter_model.safetensors`. It becomes an adapter
folder with a manifest once its configuration is a plain LoRA's, its base model is the given one,
and its matrices fit that model's layers.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas.errors import AdapterError
from personas.home.adapters import (
    CONFIG_FILE,
    MANIFEST_FILE,
    NAME_ADAPTER_ADVICE,
    WEIGHTS_FILE,
    verify_adapter,
    write_manifest,
)
from personas.home.atomic_files import atomic_folder
from personas.home.card_adapter import require_plain_lora
from personas.home.declared_base_model import require_base_model
from personas.home.external_adapter_files import (
    MAX_SHOWN_CHARS,
    REQUIRED_FILES,
    copy_folder,
    unpack_zip,
)
from personas.home.external_adapter_hub import ProgressCallback, fetch_adapter
from personas.home.hub_download import HUB_ID_PATTERN
from personas.home.lora_checks import PLAIN_LORA_SETTINGS, base_linear_shapes
from personas.models.base_model import (
    EMBEDDED,
    BaseModel,
    default_template,
    fingerprint,
    locate,
)
from personas.schemas.training import AdapterManifest, AdapterSource
from personas.schemas.training_events import UNMEASURED

HUB_PREFIX = "hf://"


def import_adapter(
    source: str, out: Path, base_model: str, say: ProgressCallback, *, is_stated: bool = False
) -> AdapterManifest:
    """Bring an adapter into the new folder `out`: from a hub (`owner/name@revision`), a zip or a
    peft folder.

    After `hf://`, it is never a path of this machine. With an empty `base_model` it is the one that
    the adapter names. `is_stated`: somebody says that it belongs to this base model, of which it
    names a quantised copy. Raises `AdapterError`, `BaseModelError`, `OSError`.
    """
    if out.exists():
        raise AdapterError(f"{out} is there already.", "Name another folder, or remove it first.")
    with atomic_folder(out) as folder:
        path = Path(source).expanduser()
        is_hub = source.startswith(HUB_PREFIX)
        if path.is_dir() and not is_hub:
            origin = copy_folder(path, folder)
        elif path.is_file() and not is_hub:
            origin = unpack_zip(path, folder)
        elif is_hub or HUB_ID_PATTERN.fullmatch(source.partition("@")[0]):
            origin = fetch_adapter(source.removeprefix(HUB_PREFIX), folder, say)
        else:
            raise AdapterError(f"There is no complete adapter in {source}.", NAME_ADAPTER_ADVICE)
        say("checking it")
        return seal_external_adapter(folder, origin, base_model, is_stated=is_stated)


@contextmanager
def open_any_adapter(source: str, base_model: str, say: ProgressCallback) -> Iterator[Path]:
    """Yield an adapter folder: one with a manifest as it is, a sealed copy of any other. Raises as
    `import_adapter`.
    """
    folder = Path(source).expanduser()
    if (folder / MANIFEST_FILE).exists():
        verify_adapter(folder, NAME_ADAPTER_ADVICE)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="understudy-adapter-") as scratch:
        copy = Path(scratch) / "adapter"
        import_adapter(source, copy, base_model, say, is_stated=bool(base_model))
        yield copy


def seal_external_adapter(
    folder: Path, origin: AdapterSource, base_model: str, *, is_stated: bool = False
) -> AdapterManifest:
    """Check the peft files in a folder and write the manifest. Raises `AdapterError` and
    `BaseModelError`.
    """
    stated = _read_manifest(folder)
    config = _read_config(folder)
    declared = stated.base_model if stated else str(config.get("base_model_name_or_path") or "")
    base = locate(base_model or declared or EMBEDDED)
    base_hash = fingerprint(base)
    caveats = require_base_model(config, stated, base, base_hash=base_hash, is_stated=is_stated)
    origin = origin.model_copy(update={"base_model": declared[:MAX_SHOWN_CHARS]})
    if stated and stated.base_model_hash == base_hash:
        manifest = stated.model_copy(update={"source": origin})
    else:
        manifest = _new_manifest(origin, base, base_hash, config=config, caveats=caveats)
    require_plain_lora(folder, manifest, base_linear_shapes(base))
    return write_manifest(folder, manifest)


def _read_config(folder: Path) -> dict[str, Any]:
    """Read peft's configuration, and write it back without what serving does not need. Raises
    `AdapterError`.
    """
    try:
        stated: Any = json.loads((folder / CONFIG_FILE).read_bytes())
        settings = stated.items()
    except (ValueError, AttributeError, RecursionError):
        raise AdapterError(
            f"{CONFIG_FILE} is not a JSON object.", "Save the adapter again with peft."
        ) from None
    # Settings that are off change nothing; those that are on and not known here are refused later.
    config = {name: value for name, value in settings if value or name in PLAIN_LORA_SETTINGS}
    config.pop("auto_mapping", None)  # names classes to load the model with
    config.pop("unsloth_fixed", None)
    if isinstance(config.get("target_modules"), str):
        # A regular expression, as Unsloth writes it, is never run here.
        config["target_modules"] = _adapted_modules(folder) or config["target_modules"]
    config["task_type"] = config.get("task_type") or "CAUSAL_LM"
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return config


def _adapted_modules(folder: Path) -> list[str]:
    """Return the names of the modules that the weights adapt: without their layers, if all layers
    have the same.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS_FILE, framework="numpy") as weights:
            names = [name.partition(".lora_A.")[0] for name in weights.keys() if ".lora_A." in name]  # noqa: SIM118
    except (SafetensorError, OSError, ValueError):
        return []  # refused with a reason when the weights are checked
    modules = [name.removeprefix("base_model.model.") for name in names]
    layers: dict[str, set[str]] = {}  # numbers of the layers that have a module, by its last name
    for module in modules:
        layer = ".".join(re.findall(r"\d+", module))
        layers.setdefault(module.rpartition(".")[2], set()).add(layer)
    all_layers_alike = len(set(map(frozenset, layers.values()))) == 1
    return sorted(layers) if all_layers_alike else sorted(modules)


def _read_manifest(folder: Path) -> AdapterManifest | None:
    """Return the manifest of an adapter that was trained here, None for another's. Raises
    `AdapterError`.
    """
    try:
        manifest = AdapterManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise AdapterError(
            f"Its {MANIFEST_FILE} is damaged.", "Fetch it again, or remove that file."
        ) from None
    for name in REQUIRED_FILES:
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != manifest.checksums.get(name):
            raise AdapterError(
                f"It is damaged: {name} does not match its checksum.", "Fetch or export it again."
            )
    return manifest


def _is_plain(value: object) -> bool:
    """Return whether a setting is a number or a list of names; the others are refused later, with a
    reason.
    """
    if isinstance(value, list):
        return bool(value) and all(isinstance(name, str) for name in value)
    return isinstance(value, int | float) and bool(value)


def _new_manifest(
    origin: AdapterSource,
    base: BaseModel,
    base_hash: str,
    config: dict[str, Any],
    caveats: tuple[str, ...],
) -> AdapterManifest:
    lora = {}
    for name in ("r", "lora_alpha", "target_modules"):
        if _is_plain(config.get(name)):
            lora[name] = config[name]
    packages = {}
    if config.get("peft_version"):
        packages["peft"] = str(config["peft_version"])[:40]
    return AdapterManifest(
        persona=None,
        version="imported",
        job_id="",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        base_model=base.name,
        base_model_hash=base_hash,
        prompt_version="",
        chat_template=default_template(base) or "own",
        lora=lora,
        recipe="",
        hyperparameters={},
        training_precision="",
        serving_precision="",
        dataset_hash="",
        dataset={},
        rights={},
        seed=0,
        packages=packages,
        caveats=caveats,
        source=origin,
        metrics=UNMEASURED,
        checksums={},
    )
