"""Renders the dashboard's Jinja templates, with navigation, form errors, flash messages, and
formats for people.
"""

import re
import secrets
import shlex
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.auth import AUTHENTICATOR
from bot.platform.web_kit.problems import Problem
from personas.cli_common import commands_as_typed
from personas.schemas.formatting import format_size, format_time_left

DASHBOARD = "/dashboard"
DOCUMENTS_PATH = f"{DASHBOARD}/docs"
STATIC_FOLDER = Path(__file__).with_name("static")
ASSET_PATTERN = re.compile(r"[a-z0-9_-]+\.(css|js|svg|png)")
INLINE_CODE_PATTERN = re.compile(r"`([^`\n]+)`")
DOCUMENT_PATTERN = re.compile(r"(?<![\w/])docs/((?:howto/)?[a-z0-9-]+)\.md((?:#[a-z0-9-]+)?)")
"""A document that a text names."""
FLASH_COOKIE = "understudy_said"
FLASH_COOKIE_AGE_S = 60
MAX_FLASH_MESSAGES = 100
PAGE_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
    "data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Scripts and styles come from the bot's own files; nothing in the page itself is run."""
DAY_S = 86_400
HOUR_S = 3_600
MINUTE_S = 60
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
BYTE_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
routes = Routes()


@dataclass(frozen=True)
class FormError:
    """An error in a form. `field` is the id of the element to correct, "" for the whole form; `label`
    is what it is called, "" for the label that the form has for it.
    """

    message: str
    field: str = ""
    label: str = ""


class FlashMessages:
    """Messages to show once, on the next page. They stay on the server; the cookie holds a
    number.
    """

    def __init__(self) -> None:
        self._messages: OrderedDict[str, str] = OrderedDict()

    def keep(self, message: str) -> str:
        """Store a message; returns its number."""
        number = secrets.token_urlsafe(12)
        self._messages[number] = message
        if len(self._messages) > MAX_FLASH_MESSAGES:
            self._messages.popitem(last=False)
        return number

    def take(self, number: str) -> str:
        """Remove and return a message; empty if there is none."""
        return self._messages.pop(number, "")


FLASH_MESSAGES = web.AppKey("flash messages", FlashMessages)
SECTIONS = web.AppKey("sections", Mapping[str, str])
"""Labels of the dashboard's sections by name: that of their first page, their templates and their
style sheet.
"""
HAS_SANDBOX_PAGE = web.AppKey("has sandbox page", bool)
"""True if the sandbox's page is served at `/`."""

_FEATURES = Path(__file__).parents[2]
_LOADER = FileSystemLoader(
    [Path(__file__).with_name("templates"), *sorted(_FEATURES.glob("*/web/templates"))]
)


def render_page(
    request: web.Request,
    template: str,
    *,
    status: int = 200,
    faults: Sequence[FormError] = (),
    problem: Problem | None = None,
    ids: Mapping[str, str] = MappingProxyType({}),
    labels: Mapping[str, str] = MappingProxyType({}),
    **context: Any,
) -> web.Response:
    """Render a template with `title` and the other variables. The folder that it is in is the
    section of the dashboard, unless the template sets `section` to another one.

    `faults` are listed at the top, each with a link to its field, and in the title. A form's
    `problem` decides on them and on `status`, and gives `wrong`, the errors by field; `ids` are
    those of fields that differ from their names, `labels` what the page calls fields to which its
    form gives no label, or another one. Raises jinja2's errors for a template that cannot be filled.
    """
    wrong = {}
    if problem:
        faults = _form_errors(problem, ids, labels)
        status = problem.status
        for error in problem.errors:
            wrong[error["field"].partition(".")[0]] = error["detail"]
    flash = ""
    number = request.cookies.get(FLASH_COOKIE, "")
    if number:
        flash = request.app[FLASH_MESSAGES].take(number)
    frame = {
        "section": template.partition("/")[0],
        "faults": faults,
        "sections": request.app[SECTIONS],
        "flash": flash,
        "has_sandbox_page": request.app[HAS_SANDBOX_PAGE],
        "signed_in": request.app[AUTHENTICATOR].has_session(request),
        "problem": problem,
    }
    values = {"wrong": wrong} | context | frame
    text = _environment().get_template(template).render(values)
    page = web.Response(text=text, status=status, content_type="text/html", charset="utf-8")
    page.headers["Content-Security-Policy"] = PAGE_CONTENT_SECURITY_POLICY
    if number:
        page.del_cookie(FLASH_COOKIE, path=DASHBOARD)
    return page


def _form_errors(
    problem: Problem, ids: Mapping[str, str], labels: Mapping[str, str]
) -> list[FormError]:
    named = ((error["field"].partition(".")[0], error["detail"]) for error in problem.errors)
    errors = [
        FormError(detail, ids.get(name, name), labels.get(name, "")) for name, detail in named
    ]
    return errors or [FormError(problem.text)]


def redirect_to(request: web.Request, path: str, message: str = "") -> web.Response:
    """Redirect to a page (303) after a form; the message is shown there once."""
    response = web.Response(status=303, headers={"Location": path})
    if message:
        number = request.app[FLASH_MESSAGES].keep(message)
        response.set_cookie(
            FLASH_COOKIE,
            number,
            max_age=FLASH_COOKIE_AGE_S,
            path=DASHBOARD,
            httponly=True,
            samesite="Strict",
        )
    return response


def problem_page(request: web.Request, problem: Problem) -> web.Response:
    page = render_page(
        request, "problem.html", title=problem.title, status=problem.status, shown=problem
    )
    page.headers.update(problem.headers)
    return page


def accepts_html(request: web.Request) -> bool:
    """True if the client is a browser that expects a page."""
    return is_dashboard_path(request) and "text/html" in request.headers.get("Accept", "")


def is_dashboard_path(request: web.Request) -> bool:
    return request.path == DASHBOARD or request.path.startswith(f"{DASHBOARD}/")


def is_static_file(name: str) -> bool:
    return bool(ASSET_PATTERN.fullmatch(name)) and (STATIC_FOLDER / name).is_file()


@routes.add("GET /dashboard/static/{name}")
async def static_file(request: web.Request) -> web.FileResponse:
    name = request.match_info["name"]
    if not is_static_file(name):
        raise Problem("not-found", f"There is no file {name!r} here.")
    # Revalidated each time, so that pages and scripts of two versions never meet.
    return web.FileResponse(STATIC_FOLDER / name, headers={"Cache-Control": "no-cache"})


async def redirect_to_dashboard(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": DASHBOARD})


def format_time(at: float | None) -> Markup:
    """Seconds since 1970 as "20 Nov 2026, 14:02 UTC"; a dash for None. Scripts turn it into the
    reader's own time.
    """
    if at is None:
        return Markup("–")
    moment = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), format_moment(at)
    )


def format_moment(at: float) -> str:
    """Seconds since 1970 as a text without markup, in UTC."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment:%Y, %H:%M} UTC"


def format_seconds(seconds: float | None) -> str:
    """Seconds as the two largest units: "1 h 20 min", "2 min 5 s", "0.4 s"; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S} s"
    if whole < DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S} min"
    return f"{whole // DAY_S} d {whole % DAY_S // HOUR_S} h"


def format_number(number: float | None, digits: int = 2, sign: str = "-") -> str:
    """A number with decimals: "1.25", with the `sign` "+" "+1.25"; a dash for None."""
    return "–" if number is None else f"{number:{sign},.{digits}f}"


def format_bytes(number_bytes: float | None) -> str:
    """Bytes as "1.5 GiB"; a dash for None."""
    if number_bytes is None:
        return "–"
    value = float(number_bytes)
    unit = 0
    while value >= 1024 and unit < len(BYTE_UNITS) - 1:
        value = value / 1024
        unit = unit + 1
    if unit == 0:
        return f"{value:.0f} bytes"
    digits = 0 if value >= 100 else 1
    return f"{value:.{digits}f} {BYTE_UNITS[unit]}"


def format_count(number: float) -> str:
    """A whole number with thousands separators: "12,345"."""
    return f"{number:,.0f}"


def format_percent(share: float | None, digits: int = 0) -> str:
    """A share of 1 as "42 %"; a dash for None."""
    return "–" if share is None else f"{share * 100:.{digits}f} %"


def format_inline_code(text: str, links: bool = True) -> Markup:
    """Escape a text whose `commands` stand in backticks, as on Discord, and mark them as code. The
    documents that it names are `links`, which a text inside a link must not have. Markup, such as
    what `join` returns, is escaped already.
    """
    parts = INLINE_CODE_PATTERN.split(text)
    marked = Markup("")
    for number, part in enumerate(parts):
        shown = Markup(part) if isinstance(text, Markup) else escape(part)  # nosec B704  # it is escaped
        if links:
            link = rf'<a href="{DOCUMENTS_PATH}/\1\2">\g<0></a>'
            shown = Markup(DOCUMENT_PATTERN.sub(link, str(shown)))  # nosec B704  # it is escaped
        marked += Markup("<code>{}</code>").format(shown) if number % 2 else shown
    return marked


def _find_label(page: str, field: str) -> str:
    """Return the label of the field with an id in a page, without the hint beside it: the element
    `ID-label`, such as the legend of a group, else the field's own; the id in words where it has
    none.
    """
    id = re.escape(field)
    pattern = rf'<(\w+)[^>]*\s(?:id="{id}-label"|for="{id}")[^>]*>(.*?)</\1>'
    found = re.search(pattern, page, re.DOTALL)
    if not found:
        return field.replace("_", " ").capitalize()
    label = re.sub(r'<span class="muted">.*?</span>', "", found[2], flags=re.DOTALL)
    return Markup(label).striptags()  # nosec B704  # it stands in the page already


def _name_commands_as_typed(text: str) -> str:
    shown = commands_as_typed(text)
    return Markup(shown) if isinstance(text, Markup) else shown  # nosec B704  # as it came


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=_LOADER,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["static_file"] = is_static_file
    environment.filters |= {
        "label_of": _find_label,
        "as_typed": _name_commands_as_typed,
        "inline_code": format_inline_code,
        "when": format_time,
        "duration": format_seconds,
        "time_left": format_time_left,
        "size": format_bytes,
        "decimal_size": format_size,
        "count_of": format_count,
        "number": format_number,
        "percent": format_percent,
    }
    return environment


def shell_command(command: str, home: Path) -> str:
    """A command for a terminal, with the bot's home set if it is not the default, named as the bot
    was started.
    """
    command = commands_as_typed(command)
    if home.absolute() == Path.home() / ".understudy":
        return command
    return f"UNDERSTUDY_HOME={shlex.quote(str(home.absolute()))} {command}"
