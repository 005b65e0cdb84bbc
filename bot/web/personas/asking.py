"""What pages and programs send here: forms with and without files; and our errors as problems that fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, MultipartReader, web
from multidict import MultiDictProxy

from bot.web.problems import Problem
from personas.errors import UnderstudyError

LARGEST_FIELD_BYTES = 2**20
Form = MultiDictProxy[str | bytes | bytearray | web.FileField]


@dataclass
class Uploaded:
    """A form with one file."""

    fields: dict[str, str] = field(default_factory=dict)
    name: str = ""
    content: bytes = b""


async def form_of(request: web.Request) -> Form:
    """The fields of a page's form. Raises `Problem` for what is none, and for more than a form may hold."""
    if request.content_type not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise Problem("wrong-kind", "This is no form.", "Send it from the page; programs use the REST interface.")
    return await request.post()


def text_in(form: Form, name: str) -> str:
    """A field's text, with line ends as everywhere else; empty where it is missing."""
    return plain(form.get(name, ""))


def texts_in(form: Form, name: str) -> list[str]:
    """The texts of a field that is there several times."""
    return [plain(value) for value in form.getall(name, [])]


def plain(value: object) -> str:
    """A form's text: browsers send line ends as CR LF."""
    return value.replace("\r\n", "\n") if isinstance(value, str) else ""


async def uploaded(request: web.Request, most_bytes: int) -> Uploaded:
    """A form with a file of at most so many bytes. Raises `Problem`."""
    if request.content_type != "multipart/form-data":
        raise Problem("wrong-kind", "This is no form with a file.", "Choose a file on the page.")
    found = Uploaded()
    try:
        reader: MultipartReader = await request.multipart()
        async for part in reader:
            if isinstance(part, BodyPartReader):
                await _take(part, found, most_bytes)
    except (ValueError, ConnectionError):
        raise Problem("not-whole", "The form breaks off.", "Send it again.") from None
    return found


async def _take(part: BodyPartReader, found: Uploaded, most_bytes: int) -> None:
    is_file = part.filename is not None
    limit, content = most_bytes if is_file else LARGEST_FIELD_BYTES, bytearray()
    while piece := await part.read_chunk(2**16):
        content += piece
        if len(content) > limit:
            most = f"{limit // 2**20} MB" if limit >= 2**20 else f"{limit // 1000} KB"
            raise Problem("too-large", f"{part.filename or part.name} has more than {most}.", "Send less.")
    if is_file:
        found.name, found.content = part.filename or "", bytes(content)
    else:
        found.fields[part.name or ""] = plain(content.decode("utf-8", errors="replace"))


@contextmanager
def as_problem(slug: str) -> Iterator[None]:
    """Our errors inside the block as problems of this kind."""
    try:
        yield
    except Problem:
        raise
    except UnderstudyError as error:
        raise Problem(slug, error.message, error.advice) from error
