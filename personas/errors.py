"""Errors of the project, in one small tree. Each has a message and, in `advice`, what to do about
it.

Each edge (Discord, web, terminal) translates them once; nothing in between swallows them.
"""


class UnderstudyError(Exception):
    """An error a person can fix: message, then advice. `can_resume`: so can a job that failed with
    it, once fixed.

    `member_text` is what members read where message and advice are the operator's alone; empty:
    those themselves.
    """

    can_resume = False
    member_text = ""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message} {advice}".strip())
        self.message = message
        self.advice = advice


class CardError(UnderstudyError):
    """A character card that cannot be read."""


class LoreError(UnderstudyError):
    """A lore file that cannot be read."""


class MaterialError(UnderstudyError):
    """Training material that cannot be read or contains nothing to train on."""


class ErasedMeanwhileError(MaterialError):
    """Somebody was erased while a result was made from texts that may be theirs."""


class ErasureRunningError(MaterialError):
    """Somebody is being erased: texts that may be theirs are not read before the end."""


class MaterialGoneError(MaterialError):
    """Training material that is no longer at its path."""

    can_resume = True


class KeyFileError(UnderstudyError):
    """The home's key, from which pseudonyms are derived, cannot be read."""


class TrainingError(UnderstudyError):
    """A training run that cannot continue."""


class RunLimitError(TrainingError):
    """A training run that was ended because it hangs or takes more than it may."""

    can_resume = True


class BaseModelError(UnderstudyError):
    """A base model that cannot be found, read, or loaded into memory."""


class BundledModelError(BaseModelError):
    """The packages of the bundled models, which no setting names, cannot be fetched or unpacked."""


class NoMemoryError(BaseModelError):
    """Too little free memory."""

    can_resume = True


class AdapterError(UnderstudyError):
    """An adapter folder that is missing, damaged, or trained for another base model."""


class RequestError(UnderstudyError):
    """A request with an unknown name or a value out of range."""


class PrefillError(RequestError):
    """A reply with a given beginning, which the engine's server would begin anew."""


class EngineBusyError(UnderstudyError):
    """The queue of the engine is full. `wait_s` estimates when to try again."""

    def __init__(self, message: str, advice: str = "", wait_s: float = 5.0) -> None:
        super().__init__(message, advice)
        self.wait_s = wait_s


class ServerError(UnderstudyError):
    """A server that computes replies is away, fails or refuses: nothing that the request could
    change.
    """


class ExportError(UnderstudyError):
    """An export that failed or does not reproduce the adapter."""


def is_out_of_memory(error: Exception) -> bool:
    """Report whether the machine or its GPU ran out of memory."""
    # torch raises RuntimeError on the CPU and a subclass of it on a GPU.
    texts = ("can't allocate memory", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in texts)
