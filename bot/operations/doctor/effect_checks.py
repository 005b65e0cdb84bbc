"""The doctor's checks of versions: what their training measured, and what the engines showed."""

from collections.abc import Iterator
from pathlib import Path

from bot.operations.doctor.checks import BotCheck
from bot.versions.effects import VersionEffect, list_version_effects

MAX_LISTED_VERSIONS = 20
NAME = "effect"


def check_effects(home: Path) -> Iterator[BotCheck]:
    """Check that each version has shown its effect where it was served; those refused come
    first.
    """
    effects = list_version_effects(home)
    if not effects:
        yield BotCheck(NAME, "ok", "no version has been trained yet")
        return
    refused = [effect for effect in effects if effect.refused]
    others = [effect for effect in effects if not effect.refused]
    listed = (refused + others)[:MAX_LISTED_VERSIONS]
    for effect in listed:
        yield _check_effect(effect)
    if left_out := len(effects) - len(listed):
        yield BotCheck(NAME, "ok", f"{left_out} further versions are not listed")


def _check_effect(effect: VersionEffect) -> BotCheck:
    name = f"{effect.persona_id} {effect.version}"
    shown = "; ".join(effect.shown_texts) or "no engine was asked yet"
    if effect.probe is None:
        return BotCheck(NAME, "ok", f"{name}: {effect.measured_text}")
    found = f"{name}: {effect.measured_text}; {shown}"
    if effect.refused is None:
        return BotCheck(NAME, "ok", found)
    remedy = "the base model answers there instead: see the log, and serve it with another engine"
    return BotCheck(NAME, "warn", found, remedy)
