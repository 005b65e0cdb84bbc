"""The replies that a model has written from a persona's card before its training: their file in a job's
folder, which a moderator can read and change.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from personas.errors import MaterialError
from personas.home.atomic_files import write_private_file
from personas.schemas.training import WrittenReplies

WRITTEN_FOLDER = "written"
REPLIES_FILE = "replies.jsonl"
STRUCK_FILE = "struck.jsonl"
"""Replies that were struck out, and can be put back."""
SUMMARY_FILE = "summary.json"
ATTEMPTS_FILE = "attempts.jsonl"
"""What became of each question so far; a writing that was killed goes on from it."""
EARLIER_FILE = "earlier_jobs.json"
"""The jobs beside this one whose whole writing it may take over, in its folder."""
REVIEW_FILE = "review"
"""There once somebody has a run go on that has stopped for its replies to be read."""
REVIEW_ADVICE = (
    "Read them on the page of the training, under Written replies: change them, or strike them out. "
    "Then resume it."
)
"""The advice of a run that has stopped for them to be read, by which the bot knows it."""


Author = Literal["teacher", "lore", "given", "edited"]


@dataclass(frozen=True)
class WrittenReply:
    """A reply to a question of the bank. `number` is the question's place among those drawn.

    `by` says whose it is: the teacher's, taken from the lore by rules, given for every persona, or that
    of whoever has changed it.
    """

    number: int
    question: str
    reply: str
    kind: str = ""
    lang: str = "en"
    by: Author = "teacher"
    __pydantic_config__ = ConfigDict(extra="forbid")


WRITTEN_REPLY = TypeAdapter(WrittenReply)
JOB_IDS = TypeAdapter(list[str])


class RepliesTypoError(MaterialError):
    """A line of replies that is not one: whoever has changed the file can mend it."""

    can_resume = True


def written_file(job: Path) -> Path:
    """Return the path of a job's written replies, whether or not they are there."""
    return job / WRITTEN_FOLDER / REPLIES_FILE


def struck_file(job: Path) -> Path:
    """Return the path of the replies of a job that were struck out, whether or not there are any."""
    return job / WRITTEN_FOLDER / STRUCK_FILE


def review_file(job: Path) -> Path:
    """Return the path of the file that says that a job's replies were read."""
    return job / WRITTEN_FOLDER / REVIEW_FILE


def write_earlier_jobs(folder: Path, job_ids: Iterable[str]) -> None:
    """Write the ids of jobs whose written replies a job may take over, in order. Raises `OSError`."""
    write_private_file(folder / EARLIER_FILE, json.dumps(list(job_ids)).encode())


def read_earlier_jobs(folder: Path) -> list[str]:
    """Read the ids of jobs whose written replies a job may take over; none without a file. Raises
    `MaterialError`.
    """
    file = folder / EARLIER_FILE
    try:
        return JOB_IDS.validate_json(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        raise MaterialError(
            f"{file} cannot be read.", "Remove it: nothing is taken over."
        ) from error


def read_written(file: Path) -> list[WrittenReply]:
    """Read the replies of a file. Raises `RepliesTypoError` for a line that is no reply, and
    `MaterialError` for a file that cannot be read.
    """
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise _damaged(file, error) from error
    replies: list[WrittenReply] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            # Some editors write a mark of the encoding first.
            reply = json.loads(line.decode("utf-8-sig"))
            json.dumps(reply, ensure_ascii=False).encode()  # half a character is JSON, but no text
            replies.append(WRITTEN_REPLY.validate_python(reply))
        except (ValueError, RecursionError) as error:
            raise RepliesTypoError(
                f"{file} cannot be read: line {number} is no reply: {_line_fault(error)}.",
                f"Mend the line. Or remove {file.parent}, and all replies are written anew, without "
                "any change that was made to them. Then run the same job again.",
            ) from error
    return replies


def read_struck(job: Path) -> list[WrittenReply]:
    """Read the replies of a job that were struck out. Raises `MaterialError` for a damaged file."""
    file = struck_file(job)
    return read_written(file) if file.exists() else []


def read_begun(job: Path) -> list[WrittenReply]:
    """Read the replies of a writing that goes on, or was stopped; none where it has not begun. A
    last line that is being written is left out. Raises `MaterialError` for a damaged file.
    """
    file = job / WRITTEN_FOLDER / ATTEMPTS_FILE
    try:
        data = file.read_bytes()
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        replies = [json.loads(line).get("reply") for line in lines[1:]]
        return [WRITTEN_REPLY.validate_python(reply) for reply in replies if reply]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(file, error) from error


def store_written(file: Path, replies: Iterable[WrittenReply]) -> None:
    """Replace the replies of a file. Raises `OSError`."""
    write_private_file(file, format_written(replies).encode())


def format_written(replies: Iterable[WrittenReply]) -> str:
    """Format replies as the content of a file."""
    return "".join(json.dumps(asdict(reply), ensure_ascii=False) + "\n" for reply in replies)


def read_summary(job: Path) -> WrittenReplies | None:
    """Read what became of a job's writing; None if it is not done. Raises `MaterialError`."""
    file = job / WRITTEN_FOLDER / SUMMARY_FILE
    try:
        return WrittenReplies.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise _damaged(file, error) from error


def _line_fault(error: Exception) -> str:
    """Say what is wrong with a line, as the end of a sentence."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if not isinstance(error, ValidationError):
        return "it is nested too deeply"
    faults = []
    for item in error.errors(include_url=False):
        field = ".".join(map(str, item["loc"])) or "the line"
        faults.append(f"{field}: {item['msg']}")
    return "; ".join(faults)


def _damaged(file: Path, error: Exception) -> MaterialError:
    advice = f"Remove {file.parent} and run the same job again: it is written anew."
    return MaterialError(f"{file} cannot be read: {error}.", advice)
