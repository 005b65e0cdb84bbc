"""Installs vLLM into an environment of its own in the home: `python -m bot vllm install`, and the
question at the bot's start.
"""

import argparse
import shutil
import subprocess  # nosec B404  # Python's own venv, and the project's installer
import sys
from pathlib import Path

from bot.settings import Settings
from personas.cli_common import confirm
from personas.engine.remote.vllm_command import (
    ENVIRONMENT_FOLDER,
    READY_FILE,
    NoVllmError,
    environment_python,
    find_vllm,
)
from personas.errors import ServerError
from personas.models.graphics_cards import list_gpus
from personas.shipped_folders import SHIPPED_REQUIREMENTS

INSTALLER = SHIPPED_REQUIREMENTS / "install.sh"
CARD_LIST = "vllm-cuda"
PROCESSOR_LIST = "vllm"
FREE_BYTES = {CARD_LIST: 16 * 2**30, PROCESSOR_LIST: 4 * 2**30}
GIB = 2**30


class VllmInstallationError(ServerError):
    """vLLM could not be installed."""


def run_install(arguments: argparse.Namespace, home: Path) -> int:
    """Install vLLM, after asking. Returns the exit code."""
    if not (arguments.yes or confirm(_question(home))):
        print("Nothing was installed; --yes does not ask.", file=sys.stderr)
        return 1
    install_vllm(home)
    print(f"vLLM is installed in {home / ENVIRONMENT_FOLDER}. To use it, set ENGINE=vllm.")
    return 0


def offer_installation(settings: Settings) -> None:
    """Ask on a terminal whether to install vLLM where the settings need one and there is none.

    Raises `VllmInstallationError`. Without a terminal, the engine's start says what to do.
    """
    if settings.engine != "vllm" or settings.engine_urls or settings.vllm_python:
        return
    try:
        find_vllm("", settings.home)
    except NoVllmError:
        if confirm(_question(settings.home)):
            install_vllm(settings.home)


def install_vllm(home: Path, python: str = sys.executable) -> None:
    """Install vLLM for this machine's card or processor into the home, by the hashes of
    requirements/. Raises `VllmInstallationError`.
    """
    folder = home / ENVIRONMENT_FOLDER
    chosen = _list_name()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (free := shutil.disk_usage(home).free) < FREE_BYTES[chosen]:
        raise VllmInstallationError(
            f"vLLM needs {FREE_BYTES[chosen] / GIB:.0f} GiB of free disk; there are {free / GIB:.1f}.",
            "Free space, or name in VLLM_PYTHON the Python of an environment with vLLM.",
        )
    # Of an installation that was broken off, or an earlier one.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    _run([python, "-m", "venv", str(folder)])
    _run([str(INSTALLER), str(environment_python(home).absolute()), chosen])
    (folder / READY_FILE).touch()


def _list_name() -> str:
    return CARD_LIST if list_gpus() else PROCESSOR_LIST


def _question(home: Path) -> str:
    chosen = _list_name()
    kind = "graphics cards" if chosen == CARD_LIST else "processors"
    return (
        f"Install vLLM for {kind} into {home / ENVIRONMENT_FOLDER} (once; it needs "
        f"{FREE_BYTES[chosen] / GIB:.0f} GiB of free disk)?"
    )


def _run(command: list[str]) -> None:
    if code := subprocess.run(command, check=False).returncode:  # nosec B603
        raise VllmInstallationError(
            f"vLLM could not be installed: {Path(command[0]).name} ended with exit code {code}.",
            "See its output above. Without an index of packages, install vLLM elsewhere, and name "
            "its Python in VLLM_PYTHON.",
        )
