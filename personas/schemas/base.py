"""Base class, right type and validation messages shared by all schemas."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from personas.errors import RequestError

DEPENDENT_DEFAULT_ERROR = "default_factory_not_called"
"""Error type of a field whose default depends on another field, which is invalid itself."""

DISCORD_API = "discord-api"
DATA_PACKAGE = "data-package"
UNLICENSED_RIGHTS = ("own-writing", DATA_PACKAGE, "form", DISCORD_API)
RIGHTS = (*UNLICENSED_RIGHTS, "licensed:<name>")
LICENSED_PATTERN = re.compile(r"licensed:[^\s<>|\x00-\x1f\x7f][^<>|\x00-\x1f\x7f]{0,63}")


class FrozenModel(BaseModel):
    """Immutable model that rejects unknown fields, so that a typo is an error instead of a
    default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


def explain_validation_error(error: ValidationError) -> RequestError:
    """Translate a validation error into one line that names each field, its value and what was
    expected.
    """
    parts = []
    for item in error.errors():
        if item["type"] == DEPENDENT_DEFAULT_ERROR:
            continue
        field = ".".join(str(part) for part in item["loc"]) or "request"
        value = ""
        # Without a place it is an error of several fields together, and the input all of them.
        if item["loc"] and item["type"] not in ("missing", "extra_forbidden"):
            value = f" (got {item['input']!r})"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "string_pattern_mismatch":
            message = "use letters, digits, - and _ only, at most 64 of them"
        parts.append(f"{field}: {message}{value}")
    return RequestError(
        f"The request is not valid: {'; '.join(parts)}.", "Correct the named fields and try again."
    )


def right_error(right: object) -> str:
    """Describe what is wrong with a right, as the end of a sentence; empty for a valid one."""
    if isinstance(right, str) and (right in UNLICENSED_RIGHTS or LICENSED_PATTERN.fullmatch(right)):
        return ""
    if isinstance(right, str) and right.partition(":")[0] == "licensed":
        return "does not name the licence: write licensed:<name>, such as licensed:CC-BY-4.0"
    return f"names an unknown right, {right!r}"


def _validate_right(right: str) -> str:
    if wrong := right_error(right):
        raise ValueError(f"it {wrong}")
    return right


Right = Annotated[str, AfterValidator(_validate_right)]
"""One of `RIGHTS`, with the name of the licence or agreement in place of `<name>`."""
