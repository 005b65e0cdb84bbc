"""What personas are asked when members compare two versions: the operator's prompts, or those that ship.

One prompt a line; empty lines and those that begin with # are left out. The first of these files that there is counts,
read anew each time: `prompts/<persona id>.txt` and `prompts/general.txt` in UNDERSTUDY_HOME, then the same names in
`data/evaluation/prompts`.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personas.errors import UnderstudyError

SHIPPED = Path(__file__).resolve().parent.parent.parent / "data" / "evaluation" / "prompts"
GENERAL = "general"
LONGEST = 300
"""Characters of a prompt: it stands above two replies in one message."""


class PromptsError(UnderstudyError):
    """A file of prompts that cannot be used."""


@dataclass(frozen=True)
class Prompt:
    """A prompt. The id is a hash of the text, so that it stays the same wherever the line stands."""

    id: str
    text: str


def prompts_for(persona_id: str, home: Path, shipped: Path = SHIPPED) -> list[Prompt]:
    """The prompts for a persona, in the file's order, each once. Raises `PromptsError`."""
    for folder in (home / "prompts", shipped):
        for name in (persona_id, GENERAL):
            if (file := folder / f"{name}.txt").is_file():
                return _read(file)
    raise PromptsError(
        "There are no prompts to compare versions by.", "The operator can write some into prompts/general.txt."
    )


def drawn(prompts: Sequence[Prompt], seen: Counter[str]) -> Prompt:
    """One of those that somebody has seen least, by chance."""
    fewest = min(seen[prompt.id] for prompt in prompts)
    return random.choice([prompt for prompt in prompts if seen[prompt.id] == fewest])


def _read(file: Path) -> list[Prompt]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptsError(f"{file.name} cannot be read.", "It has to be a text file in UTF-8.") from error
    found = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(text) > LONGEST:
            raise PromptsError(
                f"Line {number} of {file.name} has {len(text)} characters.", f"{LONGEST} are the most that fit."
            )
        found[text] = Prompt(hashlib.sha256(text.encode()).hexdigest()[:16], text)
    if not found:
        raise PromptsError(f"There is no prompt in {file.name}.", "Write one a line.")
    return list(found.values())
