"""What pydantic found wrong, in words for whoever wrote it."""

from __future__ import annotations

from pydantic import ValidationError

from personas.errors import RequestError

FOLLOWS = "default_factory_not_called"
"""The error of a field whose default waits for another one, which is wrong itself."""


def explain(error: ValidationError) -> RequestError:
    """Translate a validation error into one line that names each field, what came and what was expected."""
    parts = []
    for item in error.errors():
        if item["type"] == FOLLOWS:
            continue
        where = ".".join(str(part) for part in item["loc"]) or "request"
        came = "" if item["type"] in ("missing", "extra_forbidden") else f" (got {item['input']!r})"
        said = item["msg"].removeprefix("Value error, ")
        if item["type"] == "string_pattern_mismatch":
            said = "use letters, digits, - and _ only, at most 64 of them"
        parts.append(f"{where}: {said}{came}")
    return RequestError(
        "The request is not valid: " + "; ".join(parts) + ".", "Correct the named fields and try again."
    )
