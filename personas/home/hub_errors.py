"""Errors of a hub, described for people."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from personas.errors import UnderstudyError

MAX_MESSAGE_CHARS = 200


class HubFileError(UnderstudyError):
    """A hub that does not send what it states, or leads elsewhere."""


@contextmanager
def hub_errors_as(
    error_type: type[UnderstudyError], what: str, repository: str, revision: str = ""
) -> Iterator[None]:
    """Translate errors of the hub's client; other errors of this project pass. `what` begins the
    sentence.
    """
    # The client logs its retries, with addresses.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        yield
    except HubFileError as error:
        raise error_type(f"{what} cannot be fetched: {error.message}", error.advice) from error
    except UnderstudyError:
        raise
    except Exception as error:  # network errors have many types
        why, advice = describe_hub_error(error, repository, revision)
        raise error_type(f"{what} cannot be fetched: {why}.", advice) from error


def describe_hub_error(
    error: BaseException, repository: str, revision: str = ""
) -> tuple[str, str]:
    """Return the reason of a hub's refusal, as the end of a sentence, and advice. Raises other
    errors.
    """
    from httpx2 import HTTPError  # takes 0.15 s
    from huggingface_hub import errors

    match error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error:
        case errors.GatedRepoError():
            return (
                "the hub offers it only to those who accepted its terms",
                "Accept them there and set HF_TOKEN.",
            )
        case errors.RevisionNotFoundError():
            return (
                f"{repository} has no commit, tag or branch {revision!r}",
                "Check the revision after the @.",
            )
        case errors.RepositoryNotFoundError():
            return (
                f"the hub has no {repository}, or it is private",
                "Check the spelling; a private one needs HF_TOKEN.",
            )
        case errors.HFValidationError():
            return f"{repository!r} is no repository's name", "Write it as owner/name."
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set", "Unset it to use a hub."
        case errors.HfHubHTTPError() as refusal:
            return _describe_status(refusal.response.status_code, refusal.server_message or "")
        case OSError() as failure if failure.errno:
            return f"{failure.strerror}", "Check the disk."
        case ValueError() as failure:
            return f"the hub answered {shorten_message(str(failure))}", "Try again later."
        case (HTTPError() | OSError()) as failure:
            why = (
                "the hub could not be reached, or the connection was cut "
                f"({type(failure).__name__})"
            )
            return why, "Check the network and try again."
        case other:
            raise other


def _describe_status(status: int, message: str) -> tuple[str, str]:
    reason = f" ({shorten_message(message)})" if message else ""
    if status == 401:
        return (
            "the hub does not know the token",
            "Set HF_TOKEN to a valid one; see the hub's settings, Access Tokens.",
        )
    is_full = status in (402, 413, 507)
    if is_full or (status == 403 and re.search("quota|storage", message, re.IGNORECASE)):
        return (
            f"the hub has no more room for this account{reason}",
            "Free some storage there, or extend it.",
        )
    if status == 403:
        return (
            f"the token may not do that{reason}",
            "It takes a token with the right to read, or to write, there.",
        )
    if status == 409:
        return f"the name is taken{reason}", "Choose another one."
    if status == 429:
        return (
            "the hub limits how often it is asked, and the limit is reached",
            "Try again in some minutes.",
        )
    if status >= 500:
        return f"the hub failed (status {status})", "Try again later."
    return f"the hub answered with status {status}{reason}", "Check the name."


def shorten_message(text: str) -> str:
    """Return one line of a hub's message, without addresses."""
    return " ".join(re.sub(r"\w+://\S+", "", text).split())[:MAX_MESSAGE_CHARS]
