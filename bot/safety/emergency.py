"""The rules by which a message that tells of an emergency, or of sexual harm, is recognised."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class EmergencyRules:
    """The rules of a language: `signs` match such a message, and `text` answers it."""

    signs: re.Pattern[str]
    text: str

    @classmethod
    def read(cls, table: Mapping[str, Any] | None) -> Self | None:
        """Read the table of a language; None for one without. Its signs name `people` and `play`."""
        if table is None:
            return None
        signs = "|".join(f"(?:{sign})" for sign in table["signs"])
        for name in ("people", "play"):
            signs = signs.replace(f"{{{name}}}", table[name])
        return cls(re.compile(signs), table["text"].strip())
