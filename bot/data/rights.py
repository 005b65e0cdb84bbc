"""Rights stated to uploads, in `rights.toml` beside them."""

import threading
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bot.data.errors import DataConflictError, InvalidFieldsError
from personas.home.atomic_files import write_private_file
from personas.home.rights import (
    REQUIRED_FIELDS,
    RIGHTS_FILE,
    RightsStatement,
    parse_statement,
    statement_date_error,
)
from personas.home.toml_text import toml_table
from personas.schemas.base import DISCORD_API, right_error

LICENSED_RIGHT = "licensed"
RIGHT_CHOICES = (
    ("own-writing", "Own writing: I wrote all of it"),
    (
        "data-package",
        "Data package: what one person asked of a service about themselves, and gives",
    ),
    ("form", "Form: given on purpose, through a form, for this"),
    (LICENSED_RIGHT, "Licensed: under a licence or agreement that allows it"),
    (
        DISCORD_API,
        (
            "Taken from Discord's API (a server's export): not trained on without Discord's "
            "permission"
        ),
    ),
)
MAX_STATEMENT_CHARS = 500
RIGHTS_FILE_HEADER = (
    "# Rights stated to the files of this folder. The dashboard writes it; comments are lost.\n"
)
_rights_lock = threading.Lock()


def parse_rights(fields: Mapping[str, str]) -> RightsStatement:
    """Parse the fields of a statement: `right`, `licence`, `stated_by`, `stated_on`, `why`. Raises
    `InvalidFieldsError`.
    """
    table = {name: fields.get(name, "").strip() for name in ("right", *REQUIRED_FIELDS)}
    if table["right"] == LICENSED_RIGHT:
        table["right"] = f"{LICENSED_RIGHT}:{fields.get('licence', '').strip()}"
    errors: dict[str, str] = {}
    for name, value in table.items():
        error = statement_error(name, value)
        if not error:
            continue
        field = name
        if name == "right" and "licence" in error:
            field = "licence"  # a form has a field of its own for it
        errors[field] = error
    if errors:
        reasons = [error.removeprefix("the statement ") for error in errors.values()]
        raise InvalidFieldsError(
            f"The right cannot be stored: the statement {', and '.join(reasons)}.",
            "Correct it.",
            errors,
        )
    return parse_statement(table)


def statement_error(name: str, value: str) -> str:
    """Describe the error in one field of a statement; empty if it is valid."""
    if len(value) > MAX_STATEMENT_CHARS or not value.replace("\n", " ").isprintable():
        return f"the statement has a {name} that is too long, or holds unprintable characters"
    if name == "right":
        error = right_error(value)
        return f"the statement {error}" if error else ""
    if not value.strip():
        return f"the statement leaves out {name}"
    if name == "stated_on" and (error := statement_date_error(value)):
        return f"the statement {error}"
    return ""


def write_statement(file: Path, statement: RightsStatement | None) -> None:
    """Store the right stated to a file; None removes it. Raises `DataConflictError` if `rights.toml`
    is unreadable.
    """
    rights = file.parent / RIGHTS_FILE
    with _rights_lock:
        tables = _read_rights(rights)
        tables.pop(file.name, None)
        if statement:
            tables[file.name] = vars(statement)
        if not tables:
            rights.unlink(missing_ok=True)
            return
        texts = [f"\n{toml_table(name, table)}" for name, table in sorted(tables.items())]
        write_private_file(rights, (RIGHTS_FILE_HEADER + "".join(texts)).encode())


def _read_rights(rights: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(rights.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataConflictError(
            f"{RIGHTS_FILE} beside the uploads cannot be read: {error}.",
            "Correct it by hand, or delete it.",
        ) from error
