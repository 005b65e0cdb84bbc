"""Errors of servers: they refuse a request, are away, or are not set up for this bot."""

from typing import Any, Literal

from personas.errors import AdapterError, ServerError
from personas.gettext_marker import gettext_noop

FOREIGN_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Errors of reading JSON that has another form: infinite numbers and deep nesting, too."""
MAX_MESSAGE_CHARS = 400
REASONING_ADVICE = (
    "Serve a model that does not reason, turn reasoning off there, or raise MAX_NEW_TOKENS."
)


class VllmError(ServerError):
    """A vLLM server that refuses a request, or that is not set up for this bot."""

    member_text = gettext_noop(
        "The engine failed. Try again in a minute; if it fails again, tell the operator."
    )


class OnlyThoughtError(VllmError):
    """A reply that has nothing but the model's thoughts."""

    member_text = gettext_noop("The model only thought and wrote no reply. Try again.")


class ContentRefusedError(VllmError):
    """A prompt or a reply that a server's filter does not let through."""

    member_text = gettext_noop(
        "The model's provider has refused this message, or the reply to it. Say it in other words."
    )


FailureKind = Literal["gone", "broken", "failed", "busy", "key", "quota"]
"""Nothing listens there; it did not answer or broke off; it answered with an error; it has too much
to do; it does not accept the key; the account has no quota left.
"""
ACCOUNT_KINDS: tuple[FailureKind, ...] = ("key", "quota")
"""Failures that asking again does not mend: somebody has to."""


class ReplicaError(VllmError):
    """A vLLM server that is away, hangs or fails; another one may do."""

    def __init__(
        self,
        message: str,
        advice: str = "",
        kind: FailureKind = "broken",
        retry_after_s: float | None = None,
    ) -> None:
        """`retry_after_s` is when the server wants to be asked again; None: it does not say."""
        super().__init__(message, advice)
        self.kind = kind
        self.retry_after_s = retry_after_s


class BrokenOffError(ReplicaError):
    """An answer without its end."""


class ReplicaTimeoutError(ReplicaError):
    """A vLLM server that does not answer in time."""

    member_text = gettext_noop(
        "The engine's server did not answer in time. Try again in a minute; if it fails again, "
        "tell the operator."
    )


class AdapterNotServedError(AdapterError):
    """A vLLM server has no such adapter, or cannot load it."""

    member_text = gettext_noop(
        "The engine cannot load this version. The operator finds the reason in the log."
    )


def error_text(answer: Any) -> str:
    """Return the message of a server's error, in any of its forms, as a sentence."""
    error = answer
    if isinstance(answer, dict):
        error = answer.get("error") or answer.get("detail") or answer.get("message")
    message = error.get("message") if isinstance(error, dict) else error
    text = " ".join(str(message or "").split())[:MAX_MESSAGE_CHARS] or "no reason given"
    return text if text.endswith((".", "!", "?")) else f"{text}."
