"""Who allowed what: `consent.json`, in the bot's home and in each job folder.

The bot writes it whenever a member decides or the settings change; the trainer, which never opens the bot's database,
reads it there. Without the file nobody has allowed anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from personas.durable import put_private
from personas.errors import MaterialError

CONSENT_FILE = "consent.json"


class Consent(BaseModel):
    """`permission` is where and when Discord gave its permission to train, as the operator states it; empty without.

    `opted_in` are the Discord ids of the members who agreed that what they write is trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    permission: str = ""
    opted_in: frozenset[str] = frozenset()


NOBODY = Consent()


def write_consent(folder: Path, consent: Consent) -> None:
    """Put the file in place, readable by its owner only. Raises `OSError`."""
    put_private(folder / CONSENT_FILE, consent.model_dump_json(indent=1).encode() + b"\n")


def read_consent(folder: Path) -> Consent:
    """What is allowed; nothing where there is no file. Raises `MaterialError` when it cannot be read."""
    try:
        return Consent.model_validate_json((folder / CONSENT_FILE).read_bytes())
    except FileNotFoundError:
        return NOBODY
    except (OSError, ValidationError) as error:
        raise MaterialError(
            f"{folder / CONSENT_FILE} cannot be read.",
            "The bot writes it anew when it starts; until then nobody counts.",
        ) from error
