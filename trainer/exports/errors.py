"""The error of this package."""

from __future__ import annotations

from personas.errors import UnderstudyError


class ExportError(UnderstudyError):
    """An export that cannot be made, or that does not say what the adapter says."""
