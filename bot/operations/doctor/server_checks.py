"""The doctor's checks of other machines: the engine's servers, and a Ray cluster."""

import asyncio
import os
import secrets
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bot.operations.doctor.checks import BotCheck
from bot.server_engines import create_server_engine
from bot.settings import Settings
from personas.errors import UnderstudyError
from personas.models import base_model
from personas.models.gguf_file import NotUnpackedError
from personas.models.graphics_cards import list_gpus

if TYPE_CHECKING:
    from bot.training.backends.ray_jobs import RayJob, RayJobsClient
    from personas.engine.remote.server_checks import ServerCheck

LABELS = {"vllm": "vLLM", "llamacpp": "llama.cpp", "openai": "engine"}
"""Names of the checks by ENGINE."""
NO_CARD_TEXT = "no graphics card is found here: vLLM would compute on the processor"
NO_CARD_REMEDY = (
    "leave ENGINE out, or set ENGINE=llamacpp: they are made for processors. If "
    "there is a card, install its driver until `nvidia-smi` lists it"
)
OLDEST_RAY = (2, 40)
"""Ray releases before this one are untested."""
RAY_PROBE_TIMEOUT_S = 60.0
RAY_PROBE_INTERVAL_S = 1.0
NO_FOLDER_EXIT_CODE = 41
NO_WRITE_EXIT_CODE = 42
NO_TRAINER_EXIT_CODE = 43
RAY_PROBE_REMEDIES = {
    NO_FOLDER_EXIT_CODE: "a worker does not see {folder}: mount it at the same path on all nodes",
    NO_WRITE_EXIT_CODE: "a worker cannot write to {folder}: give its user the right to",
    NO_TRAINER_EXIT_CODE: "a worker's `python` cannot import the trainer: install Understudy there, first on PATH",
}


async def check_replicas(settings: Settings) -> list[BotCheck]:
    """Check each server that replies are computed on; none with ENGINE=local."""
    if settings.engine == "local":
        return []
    label = LABELS[settings.engine]
    return [*await _check_card(settings, label), *await _check_engine(settings, label)]


async def _check_card(settings: Settings, label: str) -> list[BotCheck]:
    """Warn that a vLLM of the bot's own would compute on the processor; none where it does not."""
    if settings.engine != "vllm" or settings.engine_urls:
        return []
    if await asyncio.to_thread(list_gpus):
        return []
    return [BotCheck(f"{label} card", "warn", NO_CARD_TEXT, NO_CARD_REMEDY)]


async def _check_engine(settings: Settings, label: str) -> list[BotCheck]:
    try:
        base = await asyncio.to_thread(base_model.locate, settings.base_model, fetch=False)
        engine = await create_server_engine(settings, base)
        findings = await engine.inspect()
    except NotUnpackedError as error:
        return [BotCheck(label, "warn", error.message, error.advice)]
    except UnderstudyError as error:
        return [BotCheck(label, "fail", error.message, error.advice)]
    return _bot_checks(label, findings)


def _bot_checks(label: str, findings: Sequence["ServerCheck"]) -> list[BotCheck]:
    checks = []
    for finding in findings:
        text = finding.found
        if finding.url not in text:
            text = f"{finding.url}: {text}"
        checks.append(BotCheck(f"{label} {finding.topic}", finding.state, text, finding.remedy))
    return checks


async def check_cluster(settings: Settings) -> list[BotCheck]:
    """Check a Ray cluster: that it answers, its version, and by a short job that a worker has
    folder and trainer.

    None is checked unless TRAINER names it.
    """
    if settings.trainer != "ray":
        return []
    from bot.training.backends.ray_backend import worker_resources  # only with TRAINER=ray
    from bot.training.backends.ray_jobs import RayJobsClient

    client = RayJobsClient(settings.ray_address, settings.ray_auth_token)
    resources = worker_resources(settings)
    try:
        version = (await client.version()).ray_version
    except UnderstudyError as error:
        return [BotCheck("ray", "fail", error.message, error.advice)]
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    found = f"Ray {version} at {settings.ray_address}"
    if release < OLDEST_RAY:
        remedy = "it is tested with Ray 2.60: upgrade the cluster"
        checks = [BotCheck("ray", "warn", found, remedy)]
    else:
        checks = [BotCheck("ray", "ok", found)]
    folder = Path(settings.shared or settings.home)
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder) as probe:
        file = shlex.quote(probe.name)
        name = f"doctor-{secrets.token_hex(4)}"
        command = (
            f"test -e {file} || exit {NO_FOLDER_EXIT_CODE}; echo seen >>{file} || exit "
            f"{NO_WRITE_EXIT_CODE}; "
            f"python -c 'import trainer.cli.main' || exit {NO_TRAINER_EXIT_CODE}"
        )
        try:
            await client.submit(
                name, command, cpus=resources.cpus, gpus=resources.gpus, environ={}, about=name
            )
            job = await _ended_ray_job(client, name)
        except UnderstudyError as error:
            return [*checks, BotCheck("ray worker", "fail", error.message, error.advice)]
        is_written = probe.seek(0, os.SEEK_END) > 0
        return [*checks, _check_probe(job, folder, is_written, resources.text)]


async def _ended_ray_job(client: "RayJobsClient", name: str) -> "RayJob | None":
    """Wait until a job has ended, and delete Ray's record of it. Returns it as it was last seen."""
    job = None
    for _ in range(round(RAY_PROBE_TIMEOUT_S / RAY_PROBE_INTERVAL_S)):
        job = await client.get(name)
        if job is None or job.has_ended:
            break
        await asyncio.sleep(RAY_PROBE_INTERVAL_S)
    else:
        await client.stop(name)
        return job
    await client.delete(name)
    return job


def _check_probe(job: "RayJob | None", folder: Path, is_written: bool, resources: str) -> BotCheck:
    if job and job.status == "SUCCEEDED" and is_written:
        return BotCheck(
            "ray worker", "ok", f"a worker with {resources} sees {folder} and has the trainer"
        )
    if job and job.status == "SUCCEEDED":
        found = f"a worker has another folder at {folder}"
        return BotCheck(
            "ray worker", "fail", found, "mount the same file system there on all nodes"
        )
    if job and job.driver_exit_code in RAY_PROBE_REMEDIES:
        found, remedy = RAY_PROBE_REMEDIES[job.driver_exit_code].format(folder=folder).split(": ")
        return BotCheck("ray worker", "fail", found, remedy)
    if job and not job.has_ended:
        found = f"no worker with {resources} was free within {RAY_PROBE_TIMEOUT_S:.0f} s"
        return BotCheck(
            "ray worker", "warn", found, "see `ray status`; lower TRAINER_GPUS or TRAINER_THREADS"
        )
    reason = job.reason if job else "it is gone"
    return BotCheck("ray worker", "fail", f"a short job failed: {reason}", "see `ray job list`")
