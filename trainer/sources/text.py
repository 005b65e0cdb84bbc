"""Reading material as text, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from personas.errors import MaterialError


def read_text(path: Path, expected: str) -> str:
    """The file's text. Raises `MaterialError` when it cannot be read, is empty, or is not UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MaterialError(f"{path.name} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise MaterialError(
            f"{path.name} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from None
    if not text.strip():
        raise MaterialError(f"{path.name} is empty.", f"Expected: {expected}.")
    return text


def wrong_shape(where: str, error: ValidationError, expected: str) -> MaterialError:
    """The error for content of another shape; names the first field that is wrong."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    what = f"{field}: {first['msg']}" if field else first["msg"].removesuffix(" or dataclass")
    return MaterialError(f"{where} cannot be read: {what}.", f"Expected: {expected}.")
