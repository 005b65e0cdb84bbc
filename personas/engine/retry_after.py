"""The time after which a server wants to be asked again, and refusals of the whole account."""

import math
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

MAX_RETRY_AFTER_S = 600.0
"""Longest time that a server is not asked because it says so: the limit may be raised meanwhile."""
UNAUTHORISED_STATUSES = (401, 403)
PAYMENT_REQUIRED = 402
QUOTA_CODES = frozenset({
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_credits",
    "insufficient_balance", "credit_balance_too_low", "account_deactivated",
})  # fmt: skip
"""Codes or types of errors for which waiting does not help, of OpenAI and gateways that follow
it.
"""


def parse_retry_after(
    headers: Mapping[str, str], clock: Callable[[], float] = time.time
) -> float | None:
    """Return the seconds to wait, at most `MAX_RETRY_AFTER_S`; None if the server does not say.

    Reads `Retry-After` (RFC 9110, 10.2.3: seconds or a date) and `retry-after-ms` (OpenAI, Azure).
    """
    seconds = _seconds(headers.get("retry-after-ms", ""), 1000.0)
    if seconds is None:
        text = headers.get("Retry-After", "")
        seconds = _seconds(text, 1.0)
        if seconds is None:
            seconds = _seconds_until(text, clock())
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _seconds(text: str, parts: float) -> float | None:
    try:
        seconds = float(text) / parts
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _seconds_until(text: str, now: float) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None


def has_no_quota(status: int, answer: Any) -> bool:
    """Report whether an error says that the account is out of quota or credit, rather than too
    fast.
    """
    if status == PAYMENT_REQUIRED:
        return True
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return False
    for name in (error.get("code"), error.get("type")):
        if isinstance(name, str) and name in QUOTA_CODES:
            return True
    return False
