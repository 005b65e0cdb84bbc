"""Job folders: `request.json`, copied material and its digests, consent, and the hold-out."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from pydantic import ValidationError

from personas.errors import MaterialError, RequestError
from personas.home.atomic_files import atomic_folder, fsync_path, fsync_tree, replace_durably
from personas.home.data_subjects import (
    Storing,
    read_consent,
    read_people,
    write_consent,
    write_people,
)
from personas.home.holdout_index import (
    HOLDOUT_FILE,
    NEW_HOLDOUT_FILE,
    HoldoutIndex,
    add_to_holdout,
    holdout_file,
)
from personas.home.job_material import SourceMaterial
from personas.home.preferences import read_preferences
from personas.home.pseudonyms import KEY_FILE, HomeKey, JobKeys, pseudonym_dataset_name
from personas.home.written_replies import WRITTEN_FOLDER
from personas.outside_names import UnsafeNameError, path_inside
from personas.schemas.base import explain_validation_error
from personas.schemas.training import JobSpec, Material, ServingPrecision, TrainingRequest

REQUEST_FILE = "request.json"
MATERIAL_FOLDER = "material"
ADAPTER_FOLDER = "adapter"
DATASET_FOLDER = "dataset"
MAX_LOG_BYTES = 16 * 2**20
KEPT_LOG_BYTES = 4 * 2**20
SHARED_FOLDERS = ("jobs", "models")
"""Folders of a home that workers on other machines need: the job's own, and the adapters that it is
compared with.
"""


def read_spec(folder: Path) -> JobSpec:
    """Read the folder's `request.json`. Raises `RequestError`."""
    file = folder / REQUEST_FILE
    try:
        return JobSpec.model_validate_json(file.read_bytes())
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise RequestError(
                f"{file} is not valid JSON.", "Create the job folder again."
            ) from None
        raise explain_validation_error(error) from None
    except OSError as error:
        raise RequestError(
            f"{file} cannot be read: {error.strerror}.", "Name a job folder."
        ) from None


def material_digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's sorted relative names and contents. Raises `OSError`."""
    if not path.is_dir():
        return _sha256_of_file(path).hex()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix().encode()
        # The length separates the name from the content.
        digest.update(len(name).to_bytes(8, "big") + name + _sha256_of_file(file))
    return digest.hexdigest()


def _sha256_of_file(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def home_id(home: Path) -> str:
    """Return the id of a home among those that share a cluster or a file system: 8 hex digits."""
    return hashlib.sha256(b"ray\0" + HomeKey.of(home).people()).hexdigest()[:8]


def link_shared_folders(home: Path, shared: Path) -> None:
    """Keep the home's folders that workers need on a shared file system, behind links. Raises
    `RequestError`.
    """
    root = shared / home_id(home)
    for name in SHARED_FOLDERS:
        link = home / name
        target = root / name
        try:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            if link.is_dir() and not link.is_symlink() and not any(link.iterdir()):
                link.rmdir()
            if not link.is_symlink() and not link.exists():
                link.symlink_to(target, target_is_directory=True)
        except OSError as error:
            raise RequestError(
                f"SHARED cannot be used: {target}: {error.strerror}.", "Check its rights."
            ) from error
        if link.resolve() != target.resolve():
            raise RequestError(
                f"{link} is not on the shared file system of SHARED.",
                f"Move what it contains to {target}; remove it.",
            )


def ensure_job_folder(
    folder: Path,
    home: Path,
    job_id: str,
    version: str,
    request: TrainingRequest,
    materials: Iterable[SourceMaterial],
    precision: ServingPrecision,
    storing: Storing = nullcontext,
) -> Path:
    """Write a complete job folder, or refresh an existing one. One without a request has nothing but
    written replies, which the new one takes over. Raises `OSError`, `UnderstudyError`.
    """
    if (folder / REQUEST_FILE).exists():
        refresh_job_folder(folder, home, request)
        return folder
    earlier = _earlier_name(folder)
    if earlier.exists() and not folder.exists():
        replace_durably(earlier, folder)  # killed between the two renames
    # Leftovers of processes that were killed while they copied.
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover)
    with atomic_folder(
        folder, storing=lambda: _replacing(folder, temporary, storing=storing)
    ) as temporary:
        fill_job_folder(
            temporary,
            home,
            job_id,
            version,
            request=request,
            materials=materials,
            precision=precision,
        )
    return folder


@contextmanager
def _replacing(old: Path, new: Path, storing: Storing) -> Iterator[None]:
    """Inside, a new job folder has the written replies of the old one, whose name is free."""
    earlier = _earlier_name(old)
    with storing():
        if not old.exists():
            yield
            return
        if (old / WRITTEN_FOLDER).exists():
            shutil.copytree(old / WRITTEN_FOLDER, new / WRITTEN_FOLDER)
            fsync_tree(new / WRITTEN_FOLDER)
            fsync_path(new)
        replace_durably(old, earlier)
        try:
            yield
        except BaseException:
            replace_durably(earlier, old)
            raise
    shutil.rmtree(earlier, ignore_errors=True)  # or the next time


def _earlier_name(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.earlier")


def fill_job_folder(
    folder: Path,
    home: Path,
    job_id: str,
    version: str,
    request: TrainingRequest,
    materials: Iterable[SourceMaterial],
    precision: ServingPrecision,
) -> JobSpec:
    """Fill an empty job folder. Raises `OSError` or `UnderstudyError`."""
    copied = tuple(_copy_material(material, folder / MATERIAL_FOLDER) for material in materials)
    # Before the folder gets its name: an erasure finds its people from then on.
    if people := people_in_material(folder, copied):
        write_people(folder, people)  # the run replaces it with the full list
    spec = JobSpec(
        job_id=job_id,
        version=version,
        request=request,
        materials=copied,
        serving_precision=precision,
    )
    # Derived keys: whoever gets the folder cannot compute other data sets' pseudonyms.
    JobKeys.of(home, pseudonym_dataset_name(request)).write(folder)
    refresh_job_folder(folder, home, request)
    (folder / REQUEST_FILE).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return spec


def people_in_material(folder: Path, materials: Iterable[Material]) -> Mapping[str, int]:
    """Count the authors of preferences, and the people in an adapter to train further. Raises
    `MaterialError`.
    """
    people: Counter[str] = Counter()
    for one in materials:
        target_path = _material_path(folder / MATERIAL_FOLDER, one.path)
        if one.kind == "preferences":
            people.update(record.by for record in read_preferences(target_path))
        elif one.kind == "adapter":
            people.update(read_people(target_path))
    return people


def refresh_job_folder(folder: Path, home: Path, request: TrainingRequest) -> None:
    """Write the current consent and hold-out of the home. Raises `OSError` or `UnderstudyError`."""
    write_consent(folder, read_consent(home))
    file = holdout_file(home, request.persona)
    if file.exists():
        HoldoutIndex.read(file, HomeKey.of(home).people()).write(folder / HOLDOUT_FILE)


def store_new_holdout(home: Path, persona_id: str | None, folder: Path) -> None:
    """Add a finished run's hold-out to the home's; can be repeated. Raises `UnderstudyError`,
    `OSError`.
    """
    file = folder / NEW_HOLDOUT_FILE
    if file.exists():  # absent in folders of old versions
        people_key = HomeKey.of(home).people()
        add_to_holdout(home, persona_id, HoldoutIndex.read(file, people_key), people_key)


def store_holdout_at_home(folder: Path, home: Path) -> None:
    """Do the same for a folder made by this home, recognised by its key. Raises like
    `store_new_holdout`.
    """
    if (home / KEY_FILE).exists() and HomeKey.of(home).people() == JobKeys.in_folder(folder).people:
        spec = JobSpec.model_validate_json((folder / REQUEST_FILE).read_bytes())
        store_new_holdout(home, spec.request.persona, folder)


def _require_links_inside(root: Path) -> None:
    """Raise `MaterialError` at the first link that leads out of a folder."""
    inside = root.resolve()
    for path in root.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise MaterialError(
                f"{path.relative_to(root)} in {root.name} is a link that leads out of the folder.",
                "Copy what it leads to into the folder (`cp -RL`), or remove the link.",
            )


def _copy_material(material: SourceMaterial, target: Path) -> Material:
    if material.text:
        target_path = _material_path(target, material.path)
        target_path.parent.mkdir(parents=True, exist_ok=True)
        target_path.write_text(material.text, encoding="utf-8")
    for source, name in material.copies:
        target_path = _material_path(target, name)
        target_path.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            _require_links_inside(source)
            shutil.copytree(source, target_path)
        else:
            shutil.copyfile(source, target_path)
        if material.edit:
            _edit_copies(material.edit, source, target_path)
    return material.to_material(material_digest(_material_path(target, material.path)))


def _edit_copies(edit: Callable[[Path, str], str], source: Path, target: Path) -> None:
    """Edit the texts among the copies of a file or a folder."""
    for file in [target] if target.is_file() else sorted(target.rglob("*")):
        if not file.is_file():
            continue
        with suppress(UnicodeDecodeError):
            text = file.read_text(encoding="utf-8-sig")
            file.write_text(edit(source / file.relative_to(target), text), encoding="utf-8")


def _material_path(folder: Path, name: str) -> Path:
    """Return the path of a material in the material folder. Raises `MaterialError`."""
    try:
        return path_inside(folder, name)
    except UnsafeNameError as error:
        raise MaterialError(
            f"A material's name {error}.", "Give the data set another name."
        ) from None


def limit_log(file: Path) -> None:
    """Drop the beginning of a log that has grown too large; a process that appends to it goes on at
    its end.

    Does nothing where the log is gone.
    """
    with suppress(FileNotFoundError), file.open("rb+") as log:
        size = log.seek(0, os.SEEK_END)
        if size > MAX_LOG_BYTES:
            log.seek(size - KEPT_LOG_BYTES)
            kept = log.read()
            log.seek(0)
            log.write(kept)
            log.truncate()
