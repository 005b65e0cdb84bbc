"""Runs the trainer's doctor, which checks what this machine can train."""

import asyncio
import json
from collections.abc import Mapping, Sequence

from bot.operations.doctor.checks import BotCheck
from bot.training.backends.trainer_environment import TRAINER_COMMAND, trainer_environment
from personas.shipped_folders import SETUP_COMMAND

TRAINER_TIMEOUT_S = 300.0
MAX_OUTPUT_CHARS = 300
"""Characters of the trainer's error output that are shown."""


async def check_trainer(
    base_model: str,
    environ: Mapping[str, str],
    command: Sequence[str] = TRAINER_COMMAND,
    patience_s: float = TRAINER_TIMEOUT_S,
) -> list[BotCheck]:
    """Run the trainer's doctor, which takes about half a minute. Returns one failed check where it
    cannot run.
    """
    process = await asyncio.create_subprocess_exec(
        *(*command, "doctor", "--json", "--base-model", base_model),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=trainer_environment(environ, {}),
    )
    try:
        async with asyncio.timeout(patience_s):
            output, complaint = await process.communicate()
    except TimeoutError:
        return [_unavailable(f"it did not end within {patience_s:.0f} s")]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    checks = []
    try:
        for row in json.loads(output)["checks"]:
            checks.append(
                BotCheck(str(row["name"]), row["state"], str(row["found"]), str(row["remedy"]))
            )
    except (ValueError, LookupError, TypeError):
        why = complaint.decode(errors="replace").strip()[-MAX_OUTPUT_CHARS:]
        return [_unavailable(why or f"it ended with {process.returncode}")]
    return checks


def _unavailable(why: str) -> BotCheck:
    remedy = f"{SETUP_COMMAND}, then python -m trainer doctor"
    return BotCheck("trainer", "fail", f"its doctor reports nothing: {why}", remedy)
