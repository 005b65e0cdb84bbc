"""Why a source may not be trained on, in the language of those who see it. The texts in English are
those of `decide_right`, which the trainer shows.
"""

from bot.platform.localisation import LocalisableText, gettext_lazy, gettext_noop, join_texts
from personas.home.data_subjects import Consent
from personas.home.rights import (
    OPT_IN_COMMAND,
    PERMISSION_SETTING,
    RIGHTS_FILE,
    RightsDecision,
)
from personas.schemas.base import DISCORD_API


def refusal_texts(name: str, verdict: RightsDecision, consent: Consent) -> tuple[str, str]:
    """`refused` and `advice` of `decide_right`, whose language is chosen later."""
    if not verdict.refused:
        return "", ""
    source = gettext_noop("{name} may not be trained on: nobody has stated a right to it.")
    advice: str = gettext_lazy(
        'Whoever holds the rights states so in {file} beside it: a table ["{name}"] with right '
        "(own-writing, data-package, form or licensed:<name>), stated_by, stated_on and why; the "
        "operator's catalogue may, too.",
        file=RIGHTS_FILE,
        name=name,
    )
    if verdict.right == DISCORD_API:
        source = gettext_noop(
            "{name} may not be trained on: it came through Discord's API, and Discord's developer "
            "policy forbids training on that without Discord's permission."
        )
        otherwise = gettext_lazy(
            "If it did not come through Discord's API, whoever holds the rights states so in "
            '{file} beside it: a table ["{name}"] with right (own-writing, data-package, form or '
            "licensed:<name>), stated_by, stated_on and why; the operator's catalogue may, too.",
            file=RIGHTS_FILE,
            name=name,
        )
        advice = join_texts(requirements_text(consent), otherwise)
        if consent.permission:
            source = gettext_noop(
                "{name} may not be trained on: it came through Discord's API, and nobody has opted "
                "in."
            )
    refused = LocalisableText(source, values={"name": name}, english=verdict.refused)
    return refused, advice


def requirements_text(consent: Consent) -> str:
    """Say what is needed to train on data from Discord's API, and which part of it is used then, as
    `describe_discord_requirements` does for the terminal.
    """
    opted_in = gettext_lazy("nobody so far")
    if consent.opted_in:
        opted_in = gettext_lazy("{count} so far", count=len(consent.opted_in))
    stated = gettext_lazy("which is not stated")
    if consent.permission:
        stated = gettext_lazy("which is stated")
    return gettext_lazy(
        "It takes both Discord's permission, in the operator's setting {setting} ({stated}), and "
        "members who have opted in with {command} ({opted_in}); only what they wrote is taken then.",
        setting=PERMISSION_SETTING,
        stated=stated,
        command=OPT_IN_COMMAND,
        opted_in=opted_in,
    )
