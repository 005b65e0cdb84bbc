"""What commands and forms that start a training have in common: options that stand for fields of its
request.
"""

import time
from typing import Any, Literal

from bot.platform.localisation import gettext_lazy
from personas.errors import RequestError
from personas.schemas.hyperparameters import parse_settings_line

CARD_SHARE_BESIDE_DATA = 0.5
"""Share of the replies that are written from the card where a data set is named, too."""
SourceOption = Literal["card"]


def card_share(source: SourceOption | None, dataset: str | None) -> float | None:
    """Return the share of the replies that are written from the card."""
    if source is None:
        return None
    return CARD_SHARE_BESIDE_DATA if dataset else 1.0


def default_job_name(learner: str) -> str:
    """Name a job after what it trains, and the time."""
    return f"{learner}-{time.strftime('%m%d-%H%M%S', time.gmtime())}"


def merge_settings(text: str, **named: float | None) -> dict[str, Any]:
    """Merge the text of `settings` with those that have options of their own. Raises `RequestError`
    for what both set.
    """
    written = parse_settings_line(text).model_dump(exclude_none=True)
    own = {name: value for name, value in named.items() if value is not None}
    if twice := sorted(written.keys() & own.keys()):
        raise RequestError(
            gettext_lazy(
                "{names} is set twice: in `settings`, and by itself.", names=", ".join(twice)
            ),
            gettext_lazy("Leave one of them out."),
        )
    return {**written, **own}
