"""The prompts of blind comparisons: files of the operator, or else those that ship with the bot."""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personas.errors import UnderstudyError
from personas.shipped_folders import SHIPPED_DATA

SHIPPED_PROMPTS_FOLDER = SHIPPED_DATA / "evaluation" / "prompts"
GENERAL_PROMPTS_NAME = "general"
MAX_PROMPT_CHARACTERS = 300
"""Characters of a prompt: it stands above two replies in one message."""


class PromptsError(UnderstudyError):
    """A file of prompts that cannot be used."""


@dataclass(frozen=True)
class ComparisonPrompt:
    """A prompt. The id is a hash of the text, so that it does not depend on the line's number."""

    id: str
    text: str


def prompts_for(
    persona_id: str, home: Path, shipped: Path = SHIPPED_PROMPTS_FOLDER
) -> list[ComparisonPrompt]:
    """The prompts for a persona, in the file's order, each once. Raises `PromptsError`."""
    for folder in (home / "prompts", shipped):
        for name in (persona_id, GENERAL_PROMPTS_NAME):
            if (file := folder / f"{name}.txt").is_file():
                return _read_prompts(file)
    raise PromptsError(
        "There are no prompts to compare versions by.",
        "The operator can write some into prompts/general.txt.",
    )


def draw_prompt(prompts: Sequence[ComparisonPrompt], seen: Counter[str]) -> ComparisonPrompt:
    """A random prompt of those that a member has seen least."""
    fewest = min(seen[prompt.id] for prompt in prompts)
    return random.choice([prompt for prompt in prompts if seen[prompt.id] == fewest])  # nosec B311  # guards nothing


def _read_prompts(file: Path) -> list[ComparisonPrompt]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptsError(
            f"{file.name} cannot be read.", "It has to be a text file in UTF-8."
        ) from error
    prompts = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if len(text) > MAX_PROMPT_CHARACTERS and not text.startswith("#"):
            advice = f"{MAX_PROMPT_CHARACTERS} are the most that fit."
            raise PromptsError(f"Line {number} of {file.name} has {len(text)} characters.", advice)
        if text and not text.startswith("#"):
            prompts[text] = ComparisonPrompt(hashlib.sha256(text.encode()).hexdigest()[:16], text)
    if not prompts:
        raise PromptsError(f"There is no prompt in {file.name}.", "Write one a line.")
    return list(prompts.values())
