"""Adapters from outside: fetches them from a hub, a zip or a peft folder, checks and seals them.

A peft folder holds `adapter_config.json` and `adapter_model.safetensors`. It becomes an adapter
folder with a manifest once its configuration is a plain LoRA's, its base model is the given one,
and its matrices fit that model's layers.
"""

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from personas.errors import AdapterError
from personas.home.adapters import (
    CONFIG_FILE,
    MANIFEST_FILE,
    NAME_ADAPTER_ADVICE,
    NO_LINKS_ADVICE,
    WEIGHTS_FILE,
    verify_adapter,
    write_manifest,
)
from personas.home.atomic_files import atomic_folder, lock_folder
from personas.home.card_adapter import require_plain_lora
from personas.home.hub_addresses import restrict_hub_client
from personas.home.hub_download import (
    HUB_ID_PATTERN,
    HUB_TIMEOUT_S,
    HubFile,
    download,
    list_hub_files,
)
from personas.home.hub_errors import hub_errors_as, shorten_message
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
from personas.zip_directory import require_few_entries

README_FILE = "README.md"
REQUIRED_FILES = (CONFIG_FILE, WEIGHTS_FILE)
IMPORTED_FILES = (*REQUIRED_FILES, MANIFEST_FILE, README_FILE)
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_WEIGHTS_BYTES, MAX_TEXT_BYTES = 2**30, 2**22
"""Size limits of the weights and of each other file."""
MAX_CACHED_COMMITS = 5
MAX_ZIP_ENTRIES = 2000
"""Commits in the cache: moderators may make the bot fetch any, up to the size limits each."""
HUB_PREFIX = "hf://"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model on the hub of which the bundled one is a 4-bit copy."""
MAX_SHOWN_CHARS = 200
QUANTISED_NAME_PATTERN = re.compile(
    r"(?:-unsloth)?(?:-bnb)?-(?:4|8)bit$|-(?:awq|gptq)(?:-int[48])?$", re.IGNORECASE
)
"""The end of the name of a quantised copy of a model, such as `-unsloth-bnb-4bit`."""
ProgressCallback = Callable[[str], None]


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
        repository = source.removeprefix(HUB_PREFIX)
        is_hub = source.startswith(HUB_PREFIX)
        if (path := Path(source).expanduser()).is_dir() and not is_hub:
            origin = _copy_folder(path, folder)
        elif path.is_file() and not is_hub:
            origin = _unpack_zip(path, folder)
        elif is_hub or HUB_ID_PATTERN.fullmatch(source.partition("@")[0]):
            origin = fetch_adapter(repository, folder, say)
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
        import_adapter(
            source, Path(scratch) / "adapter", base_model, say, is_stated=bool(base_model)
        )
        yield Path(scratch) / "adapter"


# -------------------------------------------------------------------------------------------- files


def _require_files(names: Collection[str], where: str) -> None:
    missing = [name for name in REQUIRED_FILES if name not in names]
    if WEIGHTS_FILE in missing and any(name.endswith(PICKLE_SUFFIXES) for name in names):
        raise AdapterError(
            f"{where} has its weights as a pickle, which can run code when it is opened.",
            "Ask its author for safetensors, or save it again with peft.",
        )
    if missing:
        what = f"{where} is no peft adapter: it has no {' and no '.join(missing)}."
        raise AdapterError(
            what, f"Name the folder or zip that holds {' and '.join(REQUIRED_FILES)} itself."
        )


def _require_size(name: str, size: int, where: str) -> None:
    limit = MAX_WEIGHTS_BYTES if name == WEIGHTS_FILE else MAX_TEXT_BYTES
    if size > limit:
        raise AdapterError(
            f"{name} of {where} has {size / 2**20:,.0f} MiB.", f"At most {limit // 2**20} are read."
        )


def _copy_folder(source: Path, folder: Path) -> AdapterSource:
    _require_files([path.name for path in source.iterdir()], str(source))
    for name in IMPORTED_FILES:
        if (source / name).is_symlink():
            raise AdapterError(f"{name} in {source} is a link.", NO_LINKS_ADVICE)
        if (source / name).is_file():
            _require_size(name, (source / name).stat().st_size, str(source))
            shutil.copyfile(source / name, folder / name)
    return AdapterSource(name=source.resolve().name)


def _unpack_zip(file: Path, folder: Path) -> AdapterSource:
    """Unpack the files of an adapter from the archive's root or from its only folder with one."""
    try:
        with file.open("rb") as stream:
            require_few_entries(stream, MAX_ZIP_ENTRIES)
        with zipfile.ZipFile(file) as archive:
            paths = {PurePosixPath(name): name for name in archive.namelist()}
            parents = {path.parent for path in paths if path.name in REQUIRED_FILES} or {
                PurePosixPath(".")
            }
            if len(parents) > 1:
                raise AdapterError(f"{file.name} holds several adapters.", "Zip one of them.")
            parent = parents.pop()
            _require_files([path.name for path in paths if path.parent == parent], file.name)
            for name in IMPORTED_FILES:
                if parent / name in paths:
                    _unpack_entry(archive, paths[parent / name], folder / name, file.name)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        what = f"{file.name} is no zip file that can be read: {error}."
        raise AdapterError(
            what, "Name an adapter's folder or a zip of it, or make the zip again."
        ) from None
    return AdapterSource(name=file.name)


def _unpack_entry(archive: zipfile.ZipFile, entry: str, path: Path, where: str) -> None:
    size = archive.getinfo(entry).file_size
    _require_size(path.name, size, where)
    with path.open("wb") as out:
        out.writelines(_entry_pieces(archive, entry, size + 1))
    _require_size(
        path.name, path.stat().st_size, where
    )  # the directory of the archive may state another size


def _entry_pieces(archive: zipfile.ZipFile, entry: str, limit: int) -> Iterator[bytes]:
    try:
        with archive.open(entry) as packed:
            while limit and (piece := packed.read(min(limit, 2**20))):
                limit -= len(piece)
                yield piece
    except OSError as error:  # of bz2, or of an entry that lies before the file's beginning
        raise zipfile.BadZipFile(str(error)) from None


# ---------------------------------------------------------------------------------------------- hub


def fetch_adapter(name: str, folder: Path, say: ProgressCallback) -> AdapterSource:
    """Fetch the adapter in a hub repository, `owner/name` or `owner/name@revision`, into a folder.

    Files of the latest commits are kept in the hub's cache; a download that was cut continues
    there. Raises `AdapterError`.
    """
    from huggingface_hub import HfApi, constants  # takes 0.15 s; local adapters do not need it

    repository, _, revision = name.partition("@")
    if not HUB_ID_PATTERN.fullmatch(repository):
        raise AdapterError(
            f"{repository[:MAX_SHOWN_CHARS]!r} is no repository's name.", "Write it as owner/name."
        )
    restrict_hub_client()
    with hub_errors_as(AdapterError, f"The adapter {name!r}", repository, revision):
        say(f"asking the hub for {name}")
        info = HfApi().model_info(
            repository, revision=revision or None, files_metadata=True, timeout=HUB_TIMEOUT_S
        )
        listed = list_hub_files(info)
        _require_files(listed, f"The repository {repository}")
        cached = Path(constants.HF_HUB_CACHE) / "understudy-adapters"
        cache = cached / repository.replace("/", "--") / str(info.sha)
        cache.mkdir(parents=True, exist_ok=True)
        cache.touch()
        _delete_old_commits(cached)
        with lock_folder(cache) as is_locked:
            if not is_locked:
                raise AdapterError(f"Another process is fetching {name}.", "Wait for it.")
            for file in (listed[it] for it in IMPORTED_FILES if it in listed):
                _require_size(file.name, file.bytes, repository)
                download(file, cache / file.name, _TenthsReport(say, file))
                shutil.copyfile(cache / file.name, folder / file.name)
    licence = str(getattr(info.card_data, "license", "") or "")[:MAX_SHOWN_CHARS]
    return AdapterSource(name=repository, commit=str(info.sha), licence=licence)


def _delete_old_commits(cached: Path) -> None:
    """Delete the folders of all but the latest commits, except of one that another process is
    fetching.
    """
    commits = sorted(cached.glob("*/*/"), key=lambda path: path.stat().st_mtime)
    for commit in commits[:-MAX_CACHED_COMMITS]:
        with lock_folder(commit) as is_locked:
            if is_locked:
                shutil.rmtree(commit, ignore_errors=True)


class _TenthsReport:
    """Reports each tenth of the weights that has arrived."""

    def __init__(self, say: ProgressCallback, file: HubFile) -> None:
        self._say = say
        self._file = file
        self._tenths = 0

    def __call__(self, done: int) -> None:
        size = self._file.bytes
        if (
            self._file.name == WEIGHTS_FILE
            and size
            and (tenths := 10 * done // size) > self._tenths
        ):
            self._tenths = tenths
            self._say(f"{self._file.name}: {done / 1e6:.1f} of {size / 1e6:.1f} MB")


# ------------------------------------------------------------------------------------------- checks


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
    caveats = _require_base_model(config, stated, base, is_stated=is_stated)
    origin = origin.model_copy(update={"base_model": declared[:MAX_SHOWN_CHARS]})
    if stated and stated.base_model_hash == base_hash:
        manifest = stated.model_copy(update={"source": origin})
    else:
        manifest = _new_manifest(origin, base, base_hash, config, caveats)
    require_plain_lora(folder, manifest, base_linear_shapes(base))
    return write_manifest(folder, manifest)


def _read_config(folder: Path) -> dict[str, Any]:
    """Read peft's configuration, and write it back without what serving does not need. Raises
    `AdapterError`.
    """
    try:
        config: Any = json.loads((folder / CONFIG_FILE).read_bytes())
        kept = {name: it for name, it in config.items() if name in PLAIN_LORA_SETTINGS or it}
    except (ValueError, AttributeError, RecursionError):
        raise AdapterError(
            f"{CONFIG_FILE} is not a JSON object.", "Save the adapter again with peft."
        ) from None
    kept.pop("auto_mapping", None)  # names classes to load the model with
    kept.pop("unsloth_fixed", None)
    if isinstance(
        kept.get("target_modules"), str
    ):  # a regular expression, as Unsloth writes it, is never run here
        kept["target_modules"] = _adapted_modules(folder) or kept["target_modules"]
    kept["task_type"] = kept.get("task_type") or "CAUSAL_LM"
    (folder / CONFIG_FILE).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return kept


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
    by_name: dict[str, set[str]] = {}
    for module in modules:
        by_name.setdefault(module.rpartition(".")[2], set()).add(
            ".".join(re.findall(r"\d+", module))
        )
    is_uniform = len({frozenset(layers) for layers in by_name.values()}) == 1
    return sorted(by_name if is_uniform else modules)


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


def _require_base_model(
    config: dict[str, Any], stated: AdapterManifest | None, base: BaseModel, *, is_stated: bool
) -> tuple[str, ...]:
    """Require that the adapter names this base model, by hash or by name. Returns caveats."""
    if stated:
        if stated.base_model_hash != fingerprint(base):
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
    if (
        Path(base.repository).is_absolute()
        and Path(declared).name.lower() == base.folder.name.lower()
    ):
        return (f"It names {shorten_message(declared)}; the folder {base.folder.name} is served.",)
    if QUANTISED_NAME_PATTERN.search(declared):
        copied = _plain_name(declared)
        own = _plain_name(str(base.folder) if base.folder else base.repository)
        if copied in (
            own,
            _plain_name(base.repository),
        ) or f"-{_plain_name(base.repository)}".endswith(f"-{copied}"):
            return (
                f"It was trained over {shorten_message(declared)}, a quantised copy of "
                f"{base.name}.",
            )
        if is_stated:
            return (
                f"It names {shorten_message(declared)}, a quantised model; {base.name} was stated "
                "as its base model.",
            )
        raise _quantised_base_error(declared, base)
    raise _other_base_error(declared, base)


def _plain_name(name: str) -> str:
    """Return a model's name without its owner and the suffixes of quantised copies, in lower
    case.
    """
    return QUANTISED_NAME_PATTERN.sub("", PurePosixPath(name).name).lower()


def _quantised_base_error(declared: str, base: BaseModel) -> AdapterError:
    error = _other_base_error(declared, base)
    advice = (
        f"If {base.name} is the model of which that is a quantised copy, say so: trainer import "
        "--base-model."
    )
    return AdapterError(error.message, advice)


def _other_base_error(declared: str, base: BaseModel) -> AdapterError:
    shown = re.sub(r"[^\w./@:#-]", "", declared)[:MAX_SHOWN_CHARS]
    served = base.folder.name if Path(base.repository).is_absolute() else base.name
    return AdapterError(
        f"It was made for another base model ({shown}) than is served ({served}).",
        "Serve that one, or train the persona on this one.",
    )


def _is_plain(value: object) -> bool:
    """Return whether a setting is a number or a list of names; the others are refused later, with a
    reason.
    """
    names = value if isinstance(value, list) else []
    return bool(value) and (
        isinstance(value, int | float) or (bool(names) and all(isinstance(it, str) for it in names))
    )


def _new_manifest(
    origin: AdapterSource,
    base: BaseModel,
    base_hash: str,
    config: dict[str, Any],
    caveats: tuple[str, ...],
) -> AdapterManifest:
    lora = {
        name: config[name]
        for name in ("r", "lora_alpha", "target_modules")
        if _is_plain(config.get(name))
    }
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
        packages={"peft": str(config["peft_version"])[:40]} if config.get("peft_version") else {},
        caveats=caveats,
        source=origin,
        metrics=UNMEASURED,
        checksums={},
    )
