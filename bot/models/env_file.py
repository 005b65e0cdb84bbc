"""Writes settings into `.env`, and leaves everything else in it as it is."""

import re
import stat
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from bot.settings import SettingsError
from personas.home.atomic_files import write_file

NEW_FILE_MODE = 0o600
"""`.env` holds tokens."""
COMMENT_PATTERN = re.compile(
    r"""[^=]*=[ \t]*(?>'(?:\\'|[^'])*'|"(?:\\"|[^"])*"|(?:(?![ \t]+#)[^\r\n])*)([ \t]*#[^\r\n]*)"""
)
"""A comment behind a value, which may be quoted and contain a # then."""
PLAIN_VALUE_PATTERN = re.compile(r"[^\s'\"#$]+(#[^\s'\"#$]+)*")


def set_in_env_file(path: Path, values: Mapping[str, str]) -> None:
    """Set variables, each in the line that sets it now or else in a new last one; comments and other
    lines stay. Raises `SettingsError` if the file cannot be read or written.

    The file is replaced at once, with the same rights, also behind a link.
    """
    file = path.resolve()
    try:
        text = file.read_text(encoding="utf-8-sig") if file.exists() else ""
        mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else NEW_FILE_MODE
        for name, value in values.items():
            text = _with_value(text, name, value)
        write_file(file, text.encode(), mode=mode)
        file.chmod(mode)  # the umask may have taken some
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        lines = " and ".join(f"{name}={value}" for name, value in values.items())
        raise SettingsError(
            f"{path} cannot be changed: {why}.",
            (
                f"Write {lines} into it by hand; for a bot in a container, into `.env` on the "
                "host, then `docker compose up --detach bot`."
            ),
        ) from error


def _with_value(old: str, name: str, value: str) -> str:
    bindings = list(parse_stream(StringIO(old)))
    setting = [number for number, each in enumerate(bindings) if each.key == name]
    written = f"{name}={_quoted(value)}"
    if not setting:
        gap = "" if not old or old.endswith("\n") else "\n"
        return f"{old}{gap}{written}\n"
    # The last one counts.
    parts = [each.original.string for each in bindings]
    parts[setting[-1]] = _replaced(bindings[setting[-1]], written)
    return "".join(parts)


def _replaced(binding: Binding, written: str) -> str:
    """Return the binding's text with another assignment; blank lines before it, `export`, and a comment
    behind it stay.
    """
    text = binding.original.string
    stripped = text.lstrip()
    before = text[: len(text) - len(stripped)]
    export = "export " if stripped.startswith("export ") else ""
    end = text[len(text.rstrip("\r\n")) :]
    comment = COMMENT_PATTERN.match(stripped)
    remark = comment[1] if comment else ""
    if remark.startswith("#"):  # it would be a part of a value without quotes
        remark = f"  {remark}"
    return f"{before}{export}{written}{remark}{end}"


def _quoted(value: str) -> str:
    if PLAIN_VALUE_PATTERN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
