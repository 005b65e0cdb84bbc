"""Who states which right to an upload: `rights.toml` beside the uploads, written from a form."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from bot.web.problems import Problem
from personas.durable import put_private
from personas.rights import DISCORD_API, NEEDED, RIGHTS_FILE, Statement, statement_of, wrong_date, wrong_right

LICENSED = "licensed"
CHOICES = (
    ("own-writing", "Own writing: I wrote all of it"),
    ("data-package", "Data package: what one person asked of a service about themselves, and gives"),
    ("form", "Form: given on purpose, through a form, for this"),
    (LICENSED, "Licensed: under a licence or agreement that allows it"),
    (DISCORD_API, "Taken from Discord's API (a server's export): not trained on without Discord's permission"),
)
"""The rights that can be stated, and what each means."""
LONGEST = 500
HEAD = "# Who states which right to the files of this folder. The dashboard writes it; comments are lost.\n"
_writing = threading.Lock()


def statement_in(fields: Mapping[str, str]) -> Statement:
    """The statement of a form or body: `right`, `licence`, `stated_by`, `stated_on`, `why`. Raises `Problem`."""
    said = {name: fields.get(name, "").strip() for name in ("right", "licence", *NEEDED)}
    if said["right"] == LICENSED:
        said["right"] = f"{LICENSED}:{said['licence']}"
    table = {name: said[name] for name in ("right", *NEEDED)}
    wrong = {name: why for name, value in table.items() if (why := wrong_with(name, value))}
    if "licence" in wrong.get("right", ""):  # it has a field of its own
        wrong = {"licence": wrong.pop("right"), **wrong}
    if wrong:
        errors = [
            {"field": name, "pointer": f"#/{name}", "detail": f"the statement {why}"} for name, why in wrong.items()
        ]
        told = f"The right cannot be taken down: the statement {', and '.join(wrong.values())}."
        raise Problem("invalid-request", told, "Correct it.", errors=errors)
    return statement_of(table)


def wrong_with(name: str, value: str) -> str:
    """What is wrong with one field of a statement, as the end of a sentence; empty when nothing is."""
    if len(value) > LONGEST or not value.replace("\n", " ").isprintable():
        return f"has a {name} that is too long, or holds unprintable characters"
    if name == "right":
        return wrong_right(value)
    if not value.strip():
        return f"leaves out {name}"
    return wrong_date(value) if name == "stated_on" else ""


def state(file: Path, statement: Statement | None) -> None:
    """Write what is stated of a file; None takes it back. Raises `Problem` where `rights.toml` cannot be read."""
    rights = file.parent / RIGHTS_FILE
    with _writing:
        tables = _read(rights)
        tables.pop(file.name, None)
        if statement:
            tables[file.name] = vars(statement)
        if tables:
            text = HEAD + "".join(_table(name, table) for name, table in sorted(tables.items()))
            put_private(rights, text.encode())
        else:
            rights.unlink(missing_ok=True)


def _read(rights: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(rights.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Problem(
            "conflict",
            f"{RIGHTS_FILE} beside the uploads cannot be read: {error}.",
            "Correct it by hand, or delete it.",
        ) from error


def _table(name: str, table: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in table.items()]
    return f"\n[{_value(name)}]\n" + "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """A string or date as TOML has it; JSON's strings are TOML's, but for what is not printable."""
    return value.isoformat() if isinstance(value, date) else json.dumps(str(value), ensure_ascii=False)
