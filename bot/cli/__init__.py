"""The commands of `python -m bot` and `model_inference`."""

from pathlib import Path

from personas.errors import RequestError


def existing_file(text: str) -> Path:
    """Parse a path given on the command line. Raises `RequestError` when there is no such file."""
    if not Path(text).exists():
        raise RequestError(f"There is no file {text}.", "Check the path.")
    return Path(text)
