"""A value for each field of the sampling that moderators set, or a server is sent."""

from collections.abc import Mapping
from typing import Any

CHANGED = {
    "max_new_tokens": 9,
    "temperature": 0.3,
    "top_p": 0.2,
    "top_k": 5,
    "min_p": 0.7,
    "repetition_penalty": 1.9,
}
"""No two values are equal, and none is a default."""


def sent_fields(request: Mapping[str, Any]) -> set[str]:
    """Return the fields whose values a request to a server has."""
    return {field for field, value in CHANGED.items() if value in request.values()}
