"""Renders the dashboard's Jinja templates, with navigation, form errors, flash messages, and
formats for people.
"""

import re
import secrets
import shlex
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiohttp import web
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape

from bot.platform.localisation import (
    SOURCE_LANGUAGE,
    Language,
    LocalisableText,
    LocalisableValue,
    gettext_lazy,
    gettext_noop,
    localisable_number,
    localise,
    translate,
)
from bot.platform.web_kit.app_context import Routes
from bot.platform.web_kit.auth import AUTHENTICATOR
from bot.platform.web_kit.page_language import language_tag, request_language
from bot.platform.web_kit.page_texts import PageTexts
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.script_texts import script_texts
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
NAVIGATION = {
    "personas": gettext_lazy("Personas"),
    "data": gettext_lazy("Data"),
    "training": gettext_lazy("Training"),
    "cards": gettext_lazy("Score cards"),
    "play": gettext_lazy("Playground"),
    "models": gettext_lazy("Models"),
    "system": gettext_lazy("System"),
    "docs": gettext_lazy("Documents"),
}
"""Labels of the sections, each with its addresses."""
TEMPLATE_FOLDERS = {
    "personas": "personas",
    "versions": "versions",
    "generation": "generation",
    "answering": "answering",
    "data": "data",
    "training": "training",
    "cards": "versions",
    "play": "playground",
    "models": "models",
    "system": "operations",
    "docs": "operations",
    "safety": "safety",
    "schedules": "schedules",
    "servers": "moderation",
}
"""The feature that has the templates of a prefix: "cards/one.html" is
bot/versions/web/templates/one.html.
"""
SECTION_OF_PREFIX = {
    "versions": "personas",
    "generation": "personas",
    "answering": "personas",
    "safety": "system",
    "schedules": "personas",
    "servers": "system",
}
"""The section of a prefix where they differ: versions and replies are part of a persona's pages."""
DAY_S = 86_400
HOUR_S = 3_600
MINUTE_S = 60
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TIME_FORMATS: Mapping[Language, str] = {
    "en": "{0.day} {month} {0:%Y, %H:%M} UTC",
    "vi": "{0:%H:%M} {0.day}/{0.month}/{0:%Y} UTC",
    "de": "{0.day}.{0.month}.{0:%Y, %H:%M} UTC",
    "es": "{0.day}/{0.month}/{0:%Y, %H:%M} UTC",
    "zh_Hans": "{0:%Y}年{0.month}月{0.day}日 {0:%H:%M} UTC",
}
DURATION_TEXTS = {
    ("s",): gettext_noop("{first} s"),
    ("min",): gettext_noop("{first} min"),
    ("min", "s"): gettext_noop("{first} min {second} s"),
    ("h", "min"): gettext_noop("{first} h {second} min"),
    ("d", "h"): gettext_noop("{first} d {second} h"),
}
TERMS = {
    gettext_noop("promote"),
    gettext_noop("hold"),
    gettext_noop("reject"),
    gettext_noop("queued"),
    gettext_noop("running"),
    gettext_noop("waiting"),
    gettext_noop("done"),
    gettext_noop("failed"),
    gettext_noop("cancelled"),
    gettext_noop("given"),
    gettext_noop("left over"),
    gettext_noop("not found"),
    gettext_noop("Chinese"),
    gettext_noop("English"),
    gettext_noop("German"),
    gettext_noop("Spanish"),
    gettext_noop("Vietnamese"),
}
"""Words of the data that a page shows: verdicts, states of jobs, outcomes of a search, languages of
the safety rules.
"""
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
HAS_SANDBOX_PAGE = web.AppKey("has sandbox page", bool)
"""True if the sandbox's page is served at `/`."""

_FEATURES = Path(__file__).parents[2]
_TEMPLATES = PrefixLoader(
    {
        prefix: FileSystemLoader(_FEATURES / feature / "web" / "templates")
        for prefix, feature in TEMPLATE_FOLDERS.items()
    }
)
_LOADER = ChoiceLoader([_TEMPLATES, FileSystemLoader(Path(__file__).with_name("templates"))])


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
    """Render a template with `title` and the other variables; its prefix decides on the section of
    the dashboard.

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
    prefix = template.partition("/")[0]
    frame = {
        "section": SECTION_OF_PREFIX.get(prefix, prefix),
        "faults": faults,
        "sections": NAVIGATION,
        "flash": flash,
        "has_sandbox_page": request.app[HAS_SANDBOX_PAGE],
        "signed_in": request.app[AUTHENTICATOR].has_session(request),
        "problem": problem,
    }
    language = request_language(request)
    values = {"wrong": wrong} | context | frame
    text = _environment(language).get_template(template).render(values)
    page = web.Response(text=text, status=status, content_type="text/html", charset="utf-8")
    page.headers["Content-Language"] = language_tag(language)
    page.headers["Vary"] = "Accept-Language"
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


@routes.add("GET /dashboard/static/{name}")
async def static_file(request: web.Request) -> web.FileResponse:
    name = request.match_info["name"]
    if not ASSET_PATTERN.fullmatch(name) or not (STATIC_FOLDER / name).is_file():
        raise Problem("not-found", gettext_lazy("There is no file {name!r} here.", name=name))
    # Revalidated each time, so that pages and scripts of two versions never meet.
    return web.FileResponse(STATIC_FOLDER / name, headers={"Cache-Control": "no-cache"})


async def redirect_to_dashboard(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": DASHBOARD})


def format_time(at: float | None, language: Language = SOURCE_LANGUAGE) -> Markup:
    """Seconds since 1970 as "20 Nov 2026, 14:02 UTC"; a dash for None. Scripts turn it into the
    reader's own time.
    """
    if at is None:
        return Markup("–")
    moment = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), localise(format_moment(at), language)
    )


def format_moment(at: float) -> LocalisableText:
    """Seconds since 1970 as a text without markup, in UTC."""
    moment = datetime.fromtimestamp(at, UTC)
    return LocalisableValue(
        lambda language: TIME_FORMATS[language].format(moment, month=MONTHS[moment.month - 1])
    )


def format_seconds(seconds: float | None) -> str:
    """Seconds as the two largest units: "1 h 20 min", "2 min 5 s", "0.4 s"; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return _localisable_duration(f"{seconds:.1f} s")
    whole = round(seconds)
    if whole < MINUTE_S:
        text = f"{whole} s"
    elif whole < HOUR_S:
        text = f"{whole // MINUTE_S} min {whole % MINUTE_S} s"
    elif whole < DAY_S:
        text = f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S} min"
    else:
        text = f"{whole // DAY_S} d {whole % DAY_S // HOUR_S} h"
    return _localisable_duration(text)


def _localisable_duration(text: str) -> LocalisableText:
    """A duration of one or two units, whose words are those of the page's language."""
    parts = text.split()
    values = {"first": localisable_number(parts[0]), "second": parts[2] if parts[2:] else ""}
    return LocalisableText(DURATION_TEXTS[tuple(parts[1::2])], values=values)


def format_left(seconds: float) -> str:
    """A time that is left, no finer than it is known: "40 s", "2 h 10 min"."""
    return _localisable_duration(format_time_left(seconds))


def format_decimal_size(number_bytes: float) -> str:
    """A size as hubs give it, in powers of 1,000: "54.4 MB"."""
    return localisable_number(format_size(number_bytes))


def format_number(number: float | None, digits: int = 2, sign: str = "-") -> str:
    """A number with decimals: "1.25", with the `sign` "+" "+1.25"; a dash for None."""
    return "–" if number is None else localisable_number(f"{number:{sign},.{digits}f}")


def format_by_pattern(pattern: str, *numbers: float) -> str:
    """Numbers by a pattern of printf, such as "%.3g"; in place of Jinja's own filter."""
    return localisable_number(pattern % numbers)


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
        return gettext_lazy("{count} bytes", count=f"{value:.0f}")
    digits = 0 if value >= 100 else 1
    return localisable_number(f"{value:.{digits}f} {BYTE_UNITS[unit]}")


def format_count(number: float) -> str:
    """A whole number with thousands separators: "12,345"."""
    return localisable_number(f"{number:,.0f}")


def format_percent(share: float | None, digits: int = 0) -> str:
    """A share of 1 as "42 %"; a dash for None."""
    return "–" if share is None else localisable_number(f"{share * 100:.{digits}f} %")


def format_inline_code(
    text: str, links: bool = True, *, language: Language = SOURCE_LANGUAGE
) -> Markup:
    """Escape a text whose `commands` stand in backticks, as on Discord, and mark them as code. The
    documents that it names are `links`, which a text inside a link must not have. Markup, such as
    what `join` returns, is escaped already.
    """
    parts = INLINE_CODE_PATTERN.split(localise(text, language))
    marked = Markup("")
    for number, part in enumerate(parts):
        shown = Markup(part) if isinstance(text, Markup) else escape(part)  # nosec B704  # it is escaped
        if links:
            link = rf'<a href="{DOCUMENTS_PATH}/\1\2">\g<0></a>'
            shown = Markup(DOCUMENT_PATTERN.sub(link, str(shown)))  # nosec B704  # it is escaped
        marked += Markup("<code>{}</code>").format(shown) if number % 2 else shown
    return marked


def _find_label(page: str, field: str) -> str:
    """Return the label of the field with an id in a page, without the hint beside it; the id in
    words where it has none.
    """
    pattern = rf'<label[^>]*\sfor="{re.escape(field)}"[^>]*>(.*?)</label>'
    found = re.search(pattern, page, re.DOTALL)
    if not found:
        return field.replace("_", " ").capitalize()
    label = re.sub(r'<span class="muted">.*?</span>', "", found[1], flags=re.DOTALL)
    return Markup(label).striptags()  # nosec B704  # it stands in the page already


def _join(values: Iterable[object], separator: str = "", *, language: Language) -> Markup:
    shown = [localise(each, language) if isinstance(each, str) else str(each) for each in values]
    return escape(separator).join(shown)


def _name_commands_as_typed(text: str) -> str:
    shown = commands_as_typed(text)
    return Markup(shown) if isinstance(text, Markup) else shown  # nosec B704  # as it came


def _translate_term(word: str, *, language: Language) -> str:
    """A word of the data, which is translated where the code marks it."""
    shown = localise(word, language)
    is_term = word and shown == word and not isinstance(word, Markup)
    return translate(word, language) if is_term else shown


@cache
def _environment(language: Language) -> Environment:
    """Jinja's environment of a language. Each has its own, because the macros that a template
    imports do not see the variables of a page.
    """
    texts = PageTexts(language)
    environment = Environment(
        loader=_LOADER,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=texts.finalize,
        extensions=["jinja2.ext.i18n"],
    )
    environment.newstyle_gettext = True  # type: ignore[attr-defined]  # of the extension
    environment.globals |= {
        "_": texts.gettext,
        "gettext": texts.gettext,
        "ngettext": texts.ngettext,
        "language_tag": language_tag(language),
        "script_texts": script_texts(language),
    }
    environment.filters |= {
        "term": partial(_translate_term, language=language),
        "shown": texts.finalize,
        "label_of": _find_label,
        "as_typed": _name_commands_as_typed,
        "inline_code": partial(format_inline_code, language=language),
        "join": partial(_join, language=language),
        "when": partial(format_time, language=language),
        "duration": format_seconds,
        "time_left": format_left,
        "size": format_bytes,
        "decimal_size": format_decimal_size,
        "count_of": format_count,
        "number": format_number,
        "format": format_by_pattern,
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
