"""Imports an adapter from outside as a version of a persona; a process of the trainer fetches and
checks it.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from bot.platform.localisation import gettext_lazy
from bot.platform.processes import terminate_group
from bot.platform.request_origin import RequestOrigin
from bot.store import Store, TrainingJob
from bot.training.backends.trainer_environment import TRAINER_COMMAND, trainer_environment
from bot.versions.installation import IMPORT_JOB_NAME, VersionInstaller
from personas.errors import AdapterError
from personas.home.adapters import verify_adapter
from personas.models.base_model import locate
from personas.schemas.training import TrainingRequest

IMPORT_TIMEOUT_S = 600.0
PROGRESS_MARK = "… "
"""Start of the lines on standard error that report an import's progress."""


async def import_adapter_version(
    home: Path,
    store: Store,
    base_model: str,
    origin: RequestOrigin,
    persona_id: str,
    source: str,
    say: Callable[[str], None],
) -> tuple[str, list[str], TrainingJob | None]:
    """Install an adapter from outside, fetched and checked by `trainer import`, as a persona's next
    version.

    Returns the version, notes, and the job that stands for the installation. Cancelling it ends the
    process; what was downloaded is kept. Raises `AdapterError`, `BaseModelError` and `OSError`.
    """
    served = await asyncio.to_thread(locate, base_model, fetch=False)
    with tempfile.TemporaryDirectory(prefix="understudy-adapter-") as scratch:
        folder = Path(scratch) / "adapter"
        await _run_import(source, folder, served.name, say)
        manifest = await asyncio.to_thread(verify_adapter, folder)
        request = TrainingRequest(
            job_name=IMPORT_JOB_NAME, base_model=base_model, persona=persona_id
        )
        name = "The adapter"
        if manifest.source:
            name = f"The adapter of {manifest.source.name}"
        result = await VersionInstaller(home, store).install_folder(origin, request, folder, name)
    return result.version, [result.note, *manifest.caveats], result.job


async def _run_import(source: str, out: Path, base_model: str, say: Callable[[str], None]) -> None:
    """Run `trainer import` to its end. Raises `AdapterError` with its message."""
    arguments = ["import", f"--adapter={source}", "--out", str(out), f"--base-model={base_model}"]
    process = await asyncio.create_subprocess_exec(
        *TRAINER_COMMAND,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=trainer_environment(os.environ, {}),
        process_group=0,
    )
    error = ""
    try:
        async with asyncio.timeout(IMPORT_TIMEOUT_S):
            assert process.stderr is not None  # it is a pipe
            async for line in process.stderr:
                text = line.decode(errors="replace").strip()
                if text.startswith(PROGRESS_MARK):
                    say(text)
                else:
                    error = text or error
            code = await process.wait()
    except TimeoutError:
        raise AdapterError(
            gettext_lazy(
                "The import took more than {minutes:.0f} minutes and was stopped.",
                minutes=IMPORT_TIMEOUT_S / 60,
            ),
            gettext_lazy("Try again: a download continues where it stopped."),
        ) from None
    finally:
        if process.returncode is None:
            await terminate_group(process)
    if code:
        raise AdapterError(error or f"The import ended with code {code}.")
