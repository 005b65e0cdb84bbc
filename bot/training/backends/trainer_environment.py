"""The trainer's command, and the environment of trainers: no secrets, and the settings of
replies.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from bot.settings import Settings

TRAINER_COMMAND = (sys.executable, "-m", "trainer")
SECRET_NAME_PATTERN = re.compile(r"SECRET|PASSW|CREDENTIAL|(^|_)(TOKEN|KEY)S?(_|$)", re.IGNORECASE)
TRAINER_SECRETS = {"HF_TOKEN"}
"""Secrets that the trainer needs: gated base models cannot be fetched without this one."""
SOURCE_TREE = Path(__file__).resolve().parents[3]


def trainer_environment(environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with no secrets but these, and this source tree on Python's path, which
    the current folder is not on: it may have a `trainer.py` of somebody's own.
    """
    cleaned = {}
    for name, value in environ.items():
        if name in TRAINER_SECRETS or not SECRET_NAME_PATTERN.search(name):
            cleaned[name] = value
    python_path = str(SOURCE_TREE)
    if environ.get("PYTHONPATH"):
        python_path += os.pathsep + environ["PYTHONPATH"]
    return cleaned | dict(secrets) | {"PYTHONPATH": python_path, "PYTHONSAFEPATH": "1"}


def evaluation_environ(settings: Settings) -> dict[str, str]:
    """Return the settings of replies, which a run reads to measure replies as they are served."""
    candidates = min(settings.reply_candidates, settings.max_reply_candidates)
    sampling = {name.upper(): str(value) for name, value in settings.sampling.items()}
    return {"LORE_ENCODER": settings.lore_encoder, "REPLY_CANDIDATES": str(candidates), **sampling}
