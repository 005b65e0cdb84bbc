"""One small tree of errors. Each says what went wrong and, in `advice`, what to do about it.

Edges (Discord, web, terminal) translate them once; nothing in between swallows them.
"""


class UnderstudyError(Exception):
    """Something a person can mend. `str()` gives the message followed by the advice.

    Of a job, `can_resume` says that the same one could go on once that has been done.
    """

    can_resume = False

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message} {advice}".strip())
        self.message = message
        self.advice = advice


class CardError(UnderstudyError):
    """A character card that cannot be read."""


class LoreError(UnderstudyError):
    """A lore file that cannot be read."""


class MaterialError(UnderstudyError):
    """Training material that cannot be read, or from which nothing can be learned."""


class MaterialGoneError(MaterialError):
    """Training material that is no longer where it was."""

    can_resume = True


class KeyFileError(UnderstudyError):
    """The home's key, which says who is who, cannot be read."""


class TrainingError(UnderstudyError):
    """A training run that cannot go on."""


class BaseModelError(UnderstudyError):
    """A base model that cannot be found, read, or held in memory."""


class NoMemoryError(BaseModelError):
    """There is less memory free than is needed."""

    can_resume = True


class AdapterError(UnderstudyError):
    """An adapter folder that is missing, damaged, or made for another base model."""


class RequestError(UnderstudyError):
    """A request that names something unknown or out of range."""


class EngineBusyError(UnderstudyError):
    """More replies are waiting than the engine accepts. `wait_s` is for how long, as far as it can be told."""

    def __init__(self, message: str, advice: str = "", wait_s: float = 5.0) -> None:
        super().__init__(message, advice)
        self.wait_s = wait_s


class ExportError(UnderstudyError):
    """An export that cannot be made, or that does not say what the adapter says."""
