"""Formats tables as TOML, for the files that people may also edit."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any


def toml_table(name: str, fields: Mapping[str, Any]) -> str:
    """Format a table of texts, dates and lists of texts as TOML."""
    return "\n".join(
        [f"[{toml_value(name)}]", *(f"{key} = {toml_value(it)}" for key, it in fields.items()), ""]
    )


def toml_value(value: Any) -> str:
    """Format a value; JSON's strings are TOML's, except for one control character."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(toml_value(one) for one in value)}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
