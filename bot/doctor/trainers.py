"""What the trainer's own doctor finds: what this machine can train. It runs in a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bot.doctor.check import Check
from bot.training import TRAINER, trainer_environment

PATIENCE_S = 300.0
TAIL = 300
"""Letters of a complaint that are shown."""


async def checks(
    base_model: str, environ: Mapping[str, str], command: Sequence[str] = TRAINER, patience_s: float = PATIENCE_S
) -> list[Check]:
    """Its checks, after half a minute or so. One that says why, where it cannot be asked."""
    process = await asyncio.create_subprocess_exec(
        *command, "doctor", "--json", "--base-model", base_model,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=trainer_environment(environ, {}),
    )  # fmt: skip
    try:
        async with asyncio.timeout(patience_s):
            said, complained = await process.communicate()
    except TimeoutError:
        return [_unheard(f"it did not end within {patience_s:.0f} s")]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return [_check(one) for one in json.loads(said)["checks"]]
    except (ValueError, LookupError, TypeError):
        return [_unheard(complained.decode(errors="replace").strip()[-TAIL:] or f"it ended with {process.returncode}")]


def _check(told: Mapping[str, Any]) -> Check:
    return Check(str(told["name"]), told["state"], str(told["found"]), str(told["remedy"]))


def _unheard(why: str) -> Check:
    return Check("trainer", "fail", f"its doctor says nothing: {why}", "make setup, then python -m trainer doctor")
