"""Errors of the sandbox: for its operator, for members, and for the bot in Discord's error
codes.
"""

from typing import Any

Json = dict[str, Any]  # a JSON object as Discord sends it

ERROR_CODES: dict[int, tuple[int, str]] = {
    0: (401, "401: Unauthorized"),
    10003: (404, "Unknown Channel"),
    10004: (404, "Unknown Guild"),
    10007: (404, "Unknown Member"),
    10008: (404, "Unknown Message"),
    10013: (404, "Unknown User"),
    10015: (404, "Unknown Webhook"),
    10062: (404, "Unknown interaction"),
    20028: (429, "You are being rate limited."),
    30007: (400, "Maximum number of webhooks reached (15)"),
    30032: (400, "Maximum number of application commands reached (100)."),
    40005: (413, "Request entity too large"),
    40060: (400, "Interaction has already been acknowledged."),
    40094: (403, "This interaction has reached the limit of follow-up messages"),
    50001: (403, "Missing Access"),
    50003: (403, "Cannot execute action on a DM channel"),
    50005: (403, "Cannot edit a message authored by another user"),
    50006: (400, "Cannot send an empty message"),
    50008: (400, "Cannot send messages in a non-text channel"),
    50013: (403, "Missing Permissions"),
    50021: (403, "Cannot execute action on a system message"),
    50024: (400, "Cannot execute action on this channel type"),
    50027: (401, "Invalid Webhook Token"),
    50033: (400, "Invalid Recipient(s)"),
    50035: (400, "Invalid Form Body"),
    50081: (400, "Invalid sticker sent"),
    50083: (400, "Thread is archived"),
    160004: (400, "A thread has already been created for this message"),
    160002: (403, "Cannot reply without permission to read message history"),
    220001: (400, "Webhooks posted to forum channels must have a thread_name or thread_id"),
}
"""Discord's error codes that the sandbox uses: HTTP status and message."""


class SandboxError(Exception):
    """Base of all sandbox errors."""


class NotLoopback(SandboxError):
    """The sandbox would listen where other machines could reach it."""


class StateUnreadable(SandboxError):
    """The state file is not one of the sandbox's, is damaged, or is in use by another sandbox."""


class SandboxRefusal(SandboxError):
    """A member's action is refused; the text is what Discord's client would show."""


class ApiError(SandboxError):
    """An error response to the bot, in Discord's form. `errors` is the tree of field errors, for
    code 50035.
    """

    def __init__(self, code: int, errors: Json | None = None, words: str | None = None) -> None:
        self.code = code
        self.errors = errors
        self.headers: dict[str, str] = {}
        self.status, usual = ERROR_CODES[code]
        super().__init__(words or usual)

    def body(self) -> Json:
        """The JSON response: code, message, and the tree of field errors where there is one."""
        return {"code": self.code, "message": str(self)} | (
            {"errors": self.errors} if self.errors else {}
        )

    @classmethod
    def field(cls, place: str, code: str, words: str) -> "ApiError":
        """Build 50035 for one field; nested ones have a path such as "0.options.1.name"."""
        errors: Json = {"_errors": [{"code": code, "message": words}]}
        for step in reversed(place.split(".")):
            errors = {step: errors}
        return cls(50035, errors)
