"""Preference records (`preferences.jsonl`): chosen and rejected replies, and taught ones."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from personas.errors import MaterialError
from personas.schemas.base import FrozenModel, Right

PREFERENCES_FILE = "preferences.jsonl"
TAUGHT: Final = "taught"
COMPARISON: Final = "comparison"
MAX_TEXT_CHARACTERS = 8000  # limit for a turn of the prompt and for a reply
PreferenceText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)]


class PromptTurn(FrozenModel):
    """One turn of a prompt; `name` is the speaker's."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    text: PreferenceText
    by_persona: bool = False


class PreferenceRecord(FrozenModel):
    """One line of the file. At least one of `chosen` and `rejected` is set; `at` is the day it was
    given (ISO 8601).
    """

    prompt: Annotated[tuple[PromptTurn, ...], Field(min_length=1)]
    chosen: PreferenceText | None = None
    rejected: PreferenceText | None = None
    kind: Literal["comparison", "taught"]
    by: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    right: Right
    at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]

    @model_validator(mode="after")
    def _validate_replies(self) -> Self:
        if self.chosen is None and self.rejected is None:
            raise ValueError("there is neither a chosen nor a rejected reply")
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected reply are the same")
        if self.prompt[-1].by_persona:
            raise ValueError("the prompt ends with the persona's own turn")
        return self

    @property
    def is_pair(self) -> bool:
        return self.chosen is not None and self.rejected is not None


def preferences_to_jsonl(preferences: Iterable[PreferenceRecord]) -> str:
    return "".join(f"{record.model_dump_json(exclude_none=True)}\n" for record in preferences)


def read_preferences(file: Path) -> list[PreferenceRecord]:
    """Read all records of a file. Raises `MaterialError` with the first invalid line and the
    reason.
    """
    records = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    records.append(_parse_preference(line, f"{file.name}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else "it is not UTF-8 text"
        raise MaterialError(f"{file.name} cannot be read: {reason}.", "Check the path.") from error
    return records


def _parse_preference(line: str, where: str) -> PreferenceRecord:
    try:
        return PreferenceRecord.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) + ": " if first["loc"] else ""
        raise MaterialError(
            f"{where} is no preference record: "
            f"{field}{first['msg'].removeprefix('Value error, ')}.",
            "docs/preference.md describes the format.",
        ) from None
