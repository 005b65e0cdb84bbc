"""The right to a data set that leaves for another tool's format: `rights.toml` beside it, as the format has no field.

So what came through Discord's API stays that when it is read again, whatever the command line says of it then.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from personas.data_set import counted_rights, joint_right
from personas.errors import RequestError
from personas.rights import RIGHTS_FILE

TABLE_NAME = re.compile(r"^\s*\[(.+)\]\s*(?:#.*)?$")


def state_right(out: Path, folder: Path, rights: Mapping[str, int]) -> None:
    """State the right to a file that is made of a data set; what `rights.toml` says of other files stays.

    `rights` counts its samples by right, "" where they do not say. Of several rights `discord-api` stands for all, and
    without it the reason lists them. Raises `RequestError` where the statement cannot be added, and `OSError`.
    """
    stated = {right: count for right, count in rights.items() if right}
    if not stated:
        return
    right = joint_right(stated)
    why = f"Exported; samples by right: {counted_rights(stated)}. The data sheet of the data set says who states them."
    table = [
        f"[{_quoted(out.name)}]",
        f"right = {_quoted(right)}",
        f"stated_by = {_quoted(f'the data set {folder.resolve().name}')}",
        f"stated_on = {datetime.now(UTC).date().isoformat()}",
        f"why = {_quoted(why)}",
    ]
    file = out.parent / RIGHTS_FILE
    try:
        before = file.read_text(encoding="utf-8-sig") if file.exists() else ""
        whole = f"{_without(before, out.name).rstrip()}\n\n" if before.strip() else ""
        whole += "\n".join(table) + "\n"
        if _others(before, out.name) != _others(whole, out.name):
            raise ValueError("its tables are not written one after another")
    except (ValueError, OSError) as error:
        raise RequestError(
            f"{file} cannot take up the right to {out.name}: {error}.", "Correct it, or name a file in another folder."
        ) from error
    _write(file, whole)


def _without(text: str, name: str) -> str:
    """The file's text without the table of this name."""
    kept, is_ours = [], False
    for line in text.splitlines():
        if TABLE_NAME.match(line):
            is_ours = False
            with suppress(tomllib.TOMLDecodeError):  # such as a line of an array
                is_ours = name in tomllib.loads(line)
        if not is_ours or line.lstrip().startswith("#"):  # a remark may be about the next table
            kept.append(line)
    return "\n".join(kept)


def _others(text: str, name: str) -> dict[str, object]:
    return {key: value for key, value in tomllib.loads(text).items() if key != name}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(file: Path, text: str) -> None:
    descriptor, aside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as written:
            written.write(text)
        Path(aside).chmod(0o644)
        Path(aside).replace(file)
    finally:
        Path(aside).unlink(missing_ok=True)
