"""What a criterion of the gate measured, as people read it: on pages, in pictures, in markdown."""

from __future__ import annotations

from collections.abc import Mapping

UNKNOWN = "–"


def amount(value: float | None, unit: str) -> str:
    """A value with its unit. Of a share what follows the word is told too: `share more` is `3.0% more`."""
    if value is None:
        return UNKNOWN
    if unit.startswith("of "):
        return f"{value:.1%}"
    return f"{value:.1%}{unit.removeprefix('share')}" if unit.startswith("share") else f"{value:.3g} {unit}".strip()


def counts(counted: Mapping[str, int]) -> str:
    """How often what was found, such as kinds of personal data: `2 × ip address, 1 × secret`."""
    return ", ".join(f"{count} × {kind.lower().replace('_', ' ')}" for kind, count in counted.items()) or "none"
