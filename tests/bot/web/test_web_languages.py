"""The pages in the browser's language: which one it is, that texts in it are escaped, and that a
page says nothing in English that its catalogue has in that language.
"""

import json
import re
from functools import cache
from html.parser import HTMLParser
from typing import Annotated, get_args

import pytest
from babel.messages.catalog import Catalog
from jinja2 import Environment, nodes
from markupsafe import Markup, escape
from pydantic import Field, field_validator

from bot.chat.model_names import version_label
from bot.data.anonymisation_review import REVIEW_FILE, add_correction
from bot.data.build_request import DatasetBuildBody, save_build_request
from bot.data.folders import DataFolders
from bot.data.inspections import save_inspection
from bot.data.jobs import DataJobState, TrainerProcessError
from bot.data.rights import statement_error
from bot.data.web.source_pages import DATA_PATH
from bot.data.web.terms import DROP_REASONS
from bot.moderation.store import Block
from bot.platform import localisation
from bot.platform.localisation import TRANSLATED_LANGUAGES, gettext_lazy, localise
from bot.platform.web_kit.charts import Series, line_chart
from bot.platform.web_kit.page_language import choose_language, language_tag
from bot.platform.web_kit.page_texts import LocalisableMarkup, PageTexts
from bot.platform.web_kit.problems import PROBLEMS, Problem
from bot.platform.web_kit.script_texts import SCRIPT_TEXTS, script_texts
from bot.platform.web_kit.templating import (
    FLASH_COOKIE,
    STATIC_FOLDER,
    format_bytes,
    format_count,
    format_inline_code,
    format_left,
    format_percent,
    format_seconds,
    format_time,
)
from bot.platform.web_kit.validation import parse_body
from bot.training.source_rights import refusal_texts
from bot.training.store import JobState
from personas.home.atomic_files import write_file
from personas.home.data_subjects import Consent
from personas.home.rights import decide_right, statement_date_error
from personas.schemas.base import FrozenModel, right_error
from tests.bot.web.conftest import put_talk
from tests.bot.web.dataset_folders import STATED, put_set
from tests.bot.web.test_web_schedules import put_schedules
from tests.bot.web.test_web_score_cards import put_two
from tests.bot.web.two_servers import SERVERS
from tests.fakes import until
from tests.test_package import ROOT
from tools.catalogues import compile_catalogue, read_catalogue

TEMPLATES = sorted((ROOT / "bot").glob("**/templates/*.html"))
SPLIT_PATTERN = re.compile(r"(</?[a-z][^<>]*>)|%\(\w+\)s|\{\w*(?:![rs])?(?::[^{}]*)?\}")
SHOWN_ATTRIBUTES = (
    "aria-label", "title", "placeholder", "alt", "data-label", "data-confirm", "label",
)  # fmt: skip
PAGES = (
    "/dashboard",
    "/dashboard/personas",
    "/dashboard/personas/ballast",
    "/dashboard/personas/ballast/lore",
    "/dashboard/personas/ballast/versions",
    "/dashboard/personas/ballast/versions/v1/promote",
    "/dashboard/personas/ballast/replies",
    "/dashboard/personas/ballast/answering",
    "/dashboard/new-persona",
    "/dashboard/cards/compare",
    "/dashboard/training",
    "/dashboard/training/compare",
    "/dashboard/data/plan",
    "/dashboard/schedules",
    "/dashboard/personas/ballast/schedules",
    "/dashboard/system",
    "/dashboard/system/safety",
    "/dashboard/moderation",
    "/dashboard/moderation/5",
    "/dashboard/moderation/5/rules",
    "/dashboard/docs",
    "/dashboard/docs/translating",
)
DATA_PAGES = (
    "",
    "/build",
    "/build?again=harbour",
    "/builds/harbour",
    "/builds/failed",
    "/sets/harbour",
    "/sets/harbour/samples",
    "/sets/harbour/samples?split=dropped",
    "/sets/harbour/review",
    "/sets/gone",
    "/sets/gone/samples",
    "/sets/gone/review",
    "/uploads/talk.jsonl",
    "/uploads/unsigned.jsonl",
    "/uploads/unclear.csv",
    "/published/oasst2",
    "/published/firefly",
)
INSPECTED = {
    "format": "sharegpt",
    "rows": 7,
    "conversations": 5,
    "turns": 12,
    "languages": {"en": 5},
    "rejected_count": 2,
    "reasons": {"no text": 2},
    "report": {"as_is": [{"what": "column 1", "why": ""}], "other_meaning": [], "not_taken": []},
    "examples": [
        {"row": "line 1", "messages": [{"speaker": "Mina", "text": "Who?", "persona": True}] * 9}
    ],
}
"""What the trainer's inspection of an upload finds."""
MARKED_PATTERN = re.compile(r"{#.*?#}|{% trans\b.*?{% endtrans %}|{{.*?}}|{%.*?%}", re.DOTALL)
"""What a template computes, and the texts that it marks."""
NAMES = (
    "Understudy", "owner/name", "CHARX", "TOML", "talk.jsonl", "sharegpt",
    "Wick, 123456789012345678", "num_train_epochs=3, learning_rate=2e-4, lora_r=8",
)  # fmt: skip
"""What is the same in each language, such as an example in a field."""
GAP = ".{1,40}"
"""Longer ones are sentences of the data that end alike."""
HOSTILE = '<script>alert("x")</script>'
QUICK_LANGUAGES = ("vi", "de")
every_translation = pytest.mark.parametrize(
    "language",
    [
        pytest.param(each, marks=[] if each in QUICK_LANGUAGES else [pytest.mark.slow])
        for each in TRANSLATED_LANGUAGES
    ],
)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("es-MX", "es"),
        ("es-419;q=0.5, vi;q=0.7", "vi"),
        ("fr-FR,fr;q=0.9,de;q=0.5", "de"),
        ("en-GB,de;q=0.9", "en"),
        ("de;q=0,es;q=0.1", "es"),
        ("de;q=2,es;q=0.1", "es"),
        ("DE-de", "de"),
        ("*", "en"),
        ("fr", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh_Hans"),
        ("zh-Hans", "zh_Hans"),
        ("zh-Hans-TW", "zh_Hans"),
        ("zh", "zh_Hans"),
        ("zh-TW,zh;q=0.9,en;q=0.8", "en"),
        ("zh-Hant-CN", "en"),
        ("zh-HK;q=0.9,vi;q=0.3", "vi"),
        ("<script>", "en"),
        (f"{'de' * 9},vi", "vi"),
    ],
)
def test_the_language_is_that_which_the_browser_prefers(accepted, language):
    assert choose_language(accepted) == language


async def test_a_page_says_its_language_and_that_it_depends_on_the_request(dashboard):
    for accepted, tag, title in (
        ("de-DE,de;q=0.9", "de", "Anmelden"),
        ("zh-CN", "zh-Hans", "登录"),
        ("zh-TW", "en", "Sign in"),
    ):
        headers = {"Accept-Language": accepted}
        status, text, got = await dashboard.page("/dashboard/personas/nobody", headers=headers)
        assert status == 404 and f'<html lang="{tag}">' in text
        assert got["Content-Language"] == tag and got["Vary"] == "Accept-Language"
        assert localise(gettext_lazy("Sign in"), choose_language(accepted)) == title


async def test_an_errors_page_and_a_message_are_in_the_pages_language(dashboard):
    headers = {"Accept-Language": "de"}
    _, text, _ = await dashboard.page("/dashboard/personas/nobody", headers=headers)
    assert "Es gibt keine Persona &#39;nobody&#39;." in text and "Es gibt: " in text
    _, _, said = await dashboard.submit("/dashboard/sign-out")
    cookies = [each.partition(";")[0] for each in said.getall("Set-Cookie")]
    headers["Cookie"] = next(each for each in cookies if each.startswith(FLASH_COOKIE))
    _, text, _ = await dashboard.page("/dashboard/personas", headers=headers)
    assert "Du bist abgemeldet." in text


async def test_why_two_versions_cannot_be_compared_is_said_in_the_pages_language(dashboard):
    path = "/dashboard/cards/compare?persona=ballast&version=base&against=base"
    _, text, _ = await dashboard.page(path, headers={"Accept-Language": "de"})
    assert localise(gettext_lazy("Both are {version}.", version=version_label(None)), "de") in text


def test_a_chart_is_drawn_once_for_a_page_in_english():
    drawn = []

    def draw(language):
        drawn.append(language)
        return Markup(language)

    chart = LocalisableMarkup.drawn_by(draw)
    assert PageTexts("en").finalize(chart) == "en" and drawn == ["en"]
    assert PageTexts("de").finalize(chart) == "de"


@pytest.fixture
def hostile_catalogue(tmp_path, monkeypatch):
    """A catalogue whose translations hold markup."""
    catalogue = Catalog(locale="de", domain="understudy")
    catalogue.add("Name", f"Name {HOSTILE}")
    catalogue.add("<b>%(name)s</b> is <i>here</i>.", f"<i>Da</i> ist <b>%(name)s</b>{HOSTILE}<u>.")
    catalogue.add(("%(num)s reply", "%(num)s replies"), (f"%(num)s {HOSTILE}", "%(num)s Antworten"))
    path = tmp_path / "de" / "LC_MESSAGES" / "understudy.mo"
    path.parent.mkdir(parents=True)
    write_file(path, compile_catalogue(catalogue))
    monkeypatch.setattr(localisation, "CATALOGUE_FOLDER", tmp_path)
    localisation._catalogue.cache_clear()
    yield PageTexts("de")
    localisation._catalogue.cache_clear()


def test_neither_a_translation_nor_a_value_brings_markup_into_a_page(hostile_catalogue):
    texts = hostile_catalogue
    escaped = str(Markup.escape(HOSTILE))
    assert texts.gettext("Name") == f"Name {escaped}"
    shown = texts.gettext("<b>%(name)s</b> is <i>here</i>.", name=HOSTILE)
    # The tags of the template's text stay tags; one that only the translation has is text.
    assert shown == f"<i>Da</i> ist <b>{escaped}</b>{escaped}&lt;u&gt;."
    assert texts.ngettext("%(num)s reply", "%(num)s replies", 1) == f"1 {escaped}"
    assert texts.gettext("%(name)s %%", name=Markup("<b>1</b>")) == "<b>1</b> %"
    assert format_inline_code(gettext_lazy("Name"), language="de") == f"Name {escaped}"


def test_a_persona_with_markup_in_its_name_is_escaped_in_a_sentence():
    name = gettext_lazy("{name}: card", name=HOSTILE)
    assert PageTexts("de").gettext("Remove %(name)s", name=name) == (
        f"{Markup.escape(HOSTILE)}: Karte entfernen"
    )


@pytest.mark.parametrize(
    "file", TEMPLATES, ids=lambda file: file.relative_to(ROOT / "bot").as_posix()
)
def test_the_texts_that_templates_translate_are_their_own(file):
    """The tags of a marked text are trusted: so no variable may be translated."""
    environment = Environment(autoescape=True, extensions=["jinja2.ext.i18n"])
    for call in environment.parse(file.read_text(encoding="utf-8")).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in ("_", "gettext", "ngettext"):
            literals = call.args[: 2 if call.node.name == "ngettext" else 1]
            assert all(isinstance(each, nodes.Const) for each in literals), call.lineno


def test_scripts_and_pages_write_numbers_with_the_same_separators():
    script = (STATIC_FOLDER / "base.js").read_text(encoding="utf-8")
    languages = ", ".join(f'"{language}"' for language in localisation.COMMA_LANGUAGES)
    assert f"const COMMA_LANGUAGES = [{languages}];" in script


def test_the_texts_of_scripts_are_those_that_pages_bring_along():
    """No page would have the translation of another one."""
    scripts = "".join(each.read_text(encoding="utf-8") for each in STATIC_FOLDER.glob("*.js"))
    calls = re.findall(r"\btranslate\(((?:\"[^\"]*\"|[^,)\"])*)", scripts)
    literals = {text for call in calls for text in re.findall(r'"([^"]*)"', call)}
    assert literals - {"AbortError"} <= set(SCRIPT_TEXTS)
    states = {*get_args(JobState), *get_args(DataJobState)}
    assert set(SCRIPT_TEXTS) - literals <= states
    assert script_texts("de")["Nothing is changed."] == "Nichts ist geändert."
    assert script_texts("en") == {}


def test_numbers_times_and_sizes_are_written_as_the_language_does():
    def all_languages(text):
        return [localise(text, language) for language in ("en", *TRANSLATED_LANGUAGES)]

    narrow = "\N{NARROW NO-BREAK SPACE}"
    comma = f"12{narrow}345"
    assert all_languages(format_count(12345)) == ["12,345", comma, comma, comma, "12,345"]
    assert all_languages(format_percent(0.125, 1)) == ["12.5 %", *["12,5 %"] * 3, "12.5 %"]
    assert all_languages(format_bytes(1536))[2] == "1,5 KiB"
    assert all_languages(format_bytes(31))[::2] == [
        "31 bytes", "31 Bytes", "31 字节",
    ]  # fmt: skip
    assert all_languages(format_seconds(4810)) == [
        "1 h 20 min", "1 giờ 20 phút", "1 h 20 min", "1 h 20 min", "1 小时 20 分",
    ]  # fmt: skip
    assert localise(format_seconds(0.42), "de") == "0,4 s"
    assert localise(format_left(40), "vi") == "40 giây"
    shown = [format_time(1_795_500_000, each).striptags() for each in ("en", "de", "zh_Hans")]
    assert shown == [
        "24 Nov 2026, 06:00 UTC", "24.11.2026, 06:00 UTC", "2026年11月24日 06:00 UTC",
    ]  # fmt: skip


def test_numbers_in_the_gaps_of_a_text_are_written_as_the_language_does():
    text = gettext_lazy("{phase}, {count:,} of {wanted:,}", phase="v1.5", count=1734, wanted=2000)
    assert text == "v1.5, 1,734 of 2,000" and localise(text, "zh_Hans").count(",") == 2
    assert localise(text, "de") == "v1.5, 1\u202f734 von 2\u202f000"
    wait = gettext_lazy("wait {seconds:g} s", seconds=2.5)
    assert wait == "wait 2.5 s" and "2,5" in localise(wait, "vi")
    loss = gettext_lazy("{base:.3f} → {share:.0%}", base=2.345, share=0.5)
    assert localise(loss, "es") == "2,345 → 50%"


async def test_decimals_on_pages_and_charts_are_written_as_the_language_does(dashboard):
    path = "/dashboard/personas/ballast/lore"
    umbrella = "The violet umbrella hangs in the cab."
    await dashboard.submit(path, name="Umbrellas", text=umbrella)
    _, page, _ = await dashboard.submit(path, ask="the umbrella", accept_language="de")
    assert re.search(r"= Wörter [+-]\d,\d\d", page)
    assert not re.search(r"\d\.\d\d", re.sub(r"<[^>]*>", "", page))
    chart = line_chart("Loss", "step", "loss", [Series("a", ((0, 0.25), (1500, 1.5)))])
    drawn = PageTexts("de").finalize(chart)
    assert ">0,5</text>" in drawn and ">1\u202f500</text>" in drawn and ">0.5</text>" in chart


class Fields(FrozenModel):
    """A form whose fields allow little."""

    count: Annotated[int, Field(ge=1, le=12000)]
    share: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    names: Annotated[tuple[Annotated[str, Field(max_length=5)], ...], Field(max_length=2)] = ()
    code: Annotated[str, Field(max_length=3)] = ""

    @field_validator("code")
    @classmethod
    def _is_known(cls, code):
        raise ValueError(gettext_lazy("There is no persona {name!r}.", name=code))


@pytest.mark.parametrize(
    ("fields", "english", "german"),
    [
        (
            {"count": "0"},
            "must be a whole number from 1 to 12000",
            "erlaubt: eine ganze Zahl ab 1 bis 12000",
        ),
        (
            {"share": "2"},
            "must be a number above 0 below 0.5",
            "erlaubt: eine Zahl über 0 unter 0,5",
        ),
        ({"names": ["a"] * 3}, "has more than 2 entries", "hat mehr als 2 Einträge"),
        ({"names": ["abcdef"]}, "is longer than 5 characters", "ist länger als 5 Zeichen"),
        (
            {"names": "a"},
            "must be a list of at most 2, each text of at most 5 characters",
            "erlaubt: eine Liste mit höchstens 2 Einträgen, jeder Text mit höchstens 5 Zeichen",
        ),
        ({"code": "x"}, "There is no persona 'x'.", "Eine Persona 'x' gibt es nicht."),
    ],
)
def test_what_a_field_may_be_is_said_in_the_pages_language(fields, english, german):
    with pytest.raises(Problem) as wrong:
        parse_body(Fields, {"count": "1", **fields}, is_form=True)
    (error,) = wrong.value.errors
    assert error["detail"] == english and localise(error["detail"], "de") == german


class ShownTexts(HTMLParser):
    """The texts that people see or hear of a page: those of elements, and of some attributes."""

    def __init__(self):
        super().__init__()
        self.texts = []
        self._hidden = 0
        self._articles = []
        """For each open article, whether it is in English."""

    def handle_starttag(self, tag, attrs):
        self._hidden += tag in ("pre", "script", "textarea", "code")
        if tag == "article":
            self._articles.append(("lang", "en") in attrs)
            self._hidden += self._articles[-1]
        self.texts += [value for name, value in attrs if name in SHOWN_ATTRIBUTES and value]

    def handle_endtag(self, tag):
        self._hidden -= tag in ("pre", "script", "textarea", "code")
        if tag == "article":
            self._hidden -= self._articles.pop()

    def handle_data(self, data):
        if not self._hidden and data.strip():
            self.texts.append(" ".join(data.split()))


def pieces(text):
    """What stands between the tags of a text, with its gaps as groups."""
    found = [""]
    for part in re.split(r"(</?[a-z][^<>]*>)", text):
        if part.startswith("<"):
            found.append("")
        else:
            found[-1] += part
    for piece in found:
        literal = SPLIT_PATTERN.sub("", piece).strip(" .,:;()“”")
        if len(re.findall(r"[A-Za-z]", literal)) > 3:
            yield piece.strip()


@cache
def english_patterns(language):
    """Patterns of texts that stand differently in the language, each with its longest part."""
    catalogue = read_catalogue(language)
    translated = set()
    for message in catalogue:
        strings = message.string if isinstance(message.string, tuple) else (message.string,)
        translated |= {piece for text in strings if message.id for piece in pieces(text)}
    patterns = {}
    for message in catalogue:
        sources = message.id if isinstance(message.id, tuple) else (message.id,)
        for piece in (piece for text in sources for piece in pieces(text)):
            if piece not in translated:
                parts = SPLIT_PATTERN.sub("\0", piece).replace("%%", "%").split("\0")
                pattern = re.compile(GAP.join(map(re.escape, parts)))
                patterns[piece] = (max(parts, key=len), pattern)
    return patterns


def in_english(page, language):
    """The texts of a page that the language says otherwise."""
    reader = ShownTexts()
    reader.feed(page)
    for text in reader.texts:
        for source, (longest, pattern) in english_patterns(language).items():
            if longest in text and pattern.fullmatch(text):
                yield f"{text!r}, which is {source!r}"


@every_translation
async def test_a_page_says_nothing_in_english_that_its_catalogue_has(dashboard, language):
    put_two(dashboard.home, dashboard.store, dashboard.engine)
    put_schedules(dashboard.store)
    dashboard.store.safety_answers.count("2026-11-20", "de")
    dashboard.store.blocks.add(Block(5, 7, "", 0, 1.0))
    dashboard.store.faces.choose(5, "ballast")
    for path in PAGES:
        headers = {"Accept-Language": language_tag(language)}
        status, text, _ = await dashboard.page(path, headers=headers)
        assert status == 200 and f'lang="{language_tag(language)}"' in text, path
        assert list(in_english(text, language)) == [], path


@every_translation
async def test_the_pages_of_errors_are_in_the_pages_language(dashboard, language):
    headers = {"Accept-Language": language_tag(language)}
    for path in ("nowhere", "docs/nothing", "static/none.css"):
        status, text, _ = await dashboard.page(f"/dashboard/{path}", headers=headers)
        assert status >= 400 and list(in_english(text, language)) == [], path
    for slug, (_, title) in PROBLEMS.items():
        assert localise(title, language) != title, slug


@every_translation
async def test_the_state_of_the_system_goes_on_in_the_pages_language(dashboard, language):
    headers = {"Accept-Language": language_tag(language)}
    async with dashboard.session.get("/dashboard/system/events", headers=headers) as answer:
        await answer.content.readuntil(b"data: ")
        state = json.loads(await answer.content.readline())
    _, text, _ = await dashboard.page("/dashboard/system", headers=headers)
    figures = {name: str(escape(figure)) for name, figure in state["figures"].items()}
    assert f'data-figure="gpu">{figures["gpu"]}<' in text
    assert f'data-figure="beginnings">{figures["beginnings"]}<' in text
    cells = [cell for rows in state["rows"].values() for row in rows for cell in row]
    said = "".join(f"<p>{escape(each)}</p>" for each in [*state["figures"].values(), *cells])
    assert list(in_english(said, language)) == []


@pytest.fixture
async def data_pages(dashboard, monkeypatch):
    """A dashboard with data sets, a review, uploads and their inspections, and a build that failed;
    its client.
    """
    home = dashboard.home
    # The catalogue has a text that could say the usual reason.
    monkeypatch.setitem(STATED, "why", "Mina wrote it.")
    for name in ("talk.jsonl", "unsigned.jsonl"):
        put_talk(home / "uploads", name, signed=name == "talk.jsonl")
    unclear = home / "uploads" / "unclear.csv"
    unclear.write_text("Wenda Quill,The ferry is late.\n")
    columns = [{"name": "1", "looks_like": "2 names that recur"}]
    question = {"columns": columns, "proposal": {"speaker": "1"}, "has_header": False}
    save_inspection(unclear, {"format": "columns", "question": question})
    save_inspection(home / "uploads" / "talk.jsonl", INSPECTED)
    for name, persona in (("harbour", "ballast"), ("gone", None)):
        put_set(home / "datasets" / name, persona=persona)
    (home / "datasets" / "gone" / "eval.jsonl").unlink()
    build = DataFolders(home).build("harbour")
    order = {"name": "harbour", "sources": [{"source": "ballast"}]}
    save_build_request(build, DatasetBuildBody.model_validate(order))
    find = {"kind": "PERSON", "original": "Wenda Quill", "replacement": "Galen"}
    (build / REVIEW_FILE).write_text(f"{{}}\n{json.dumps(find)}\n")
    add_correction(build, "keep", "Galen")

    async def end_work(job):
        if job.subject == "failed":
            raise TrainerProcessError("talk.json holds no reply of Oda.")
        return {"samples": {"train": 40, "eval": 6}, "rows": 124, "rows_used": 120, **INSPECTED}

    jobs = dashboard.services.data_jobs
    for kind, name in (("build", "harbour"), ("build", "failed"), ("inspect", "talk.jsonl")):
        jobs.start_work(home, kind, subject=name, work=end_work)
    await until(lambda: not jobs.open())
    return dashboard


async def test_a_page_of_data_says_nothing_in_english_that_its_catalogue_has(data_pages):
    for language in TRANSLATED_LANGUAGES:
        for path in DATA_PAGES:
            headers = {"Accept-Language": language_tag(language)}
            status, text, _ = await data_pages.page(DATA_PATH + path, headers=headers)
            assert status == 200 and f'lang="{language_tag(language)}"' in text, (language, path)
            assert list(in_english(text, language)) == [], (language, path)
    _, text, _ = await data_pages.page(
        f"{DATA_PATH}/sets/harbour", headers={"Accept-Language": "de"}
    )
    for words in ("34 Beispiele", "105 bis 129", "fast eine Dublette", "95 % haben"):
        assert words in text, words


async def test_what_is_wrong_with_a_form_of_data_is_said_in_the_pages_language(data_pages):
    own = {"Origin": data_pages.url, "Sec-Fetch-Site": "same-origin", "Accept-Language": "de"}
    build = {"name": "a b", "mix": "much", "max_length": "5", "languages": "English"}
    for path, fields, status, expected in (
        (
            "/build",
            build,
            422,
            (
                "Name: erlaubt: Buchstaben, Ziffern, - und _",
                "Mischung: Zahlen mit : dazwischen, etwa 80:20",
                "Meiste Token eines Beispiels: erlaubt: eine ganze Zahl ab 64 bis 32768",
                "Nur diese Sprachen behalten: &#39;English&#39; ist kein Sprachcode wie en",
            ),
        ),
        (
            "/build",
            {"name": "two", "source": "uploads/unsigned.jsonl"},
            422,
            ("Quellen: Mit unsigned.jsonl darf nicht trainiert werden: Niemand hat ein Recht",),
        ),
        (
            "/uploads/talk.jsonl/right",
            {"right": "licensed", "stated_by": "", "stated_on": "2126-01-01", "why": "x"},
            422,
            (
                "Lizenz oder Vereinbarung: die Angabe nennt die Lizenz nicht",
                "Angegeben von: in der Angabe fehlt stated_by",
                "Am: stated_on der Angabe liegt noch in der Zukunft (2126-01-01)",
            ),
        ),
        ("/uploads/talk.jsonl/right", {"right": "x"}, 422, ("Recht zum Training: ",)),
        ("/uploads/unclear.csv/columns", {"map": "wer"}, 422, ("Welche Spalte was ist: ",)),
    ):
        async with data_pages.session.post(DATA_PATH + path, data=fields, headers=own) as answer:
            text = await answer.text()
        assert answer.status == status, text
        for words in expected:
            assert words in text, words


async def test_an_error_of_data_is_said_in_the_pages_language(data_pages):
    headers = {"Accept-Language": "de"}
    for path, status, expected in (
        ("/sets/nowhere", 404, "Einen gebauten Datensatz &#39;nowhere&#39; gibt es nicht."),
        (
            "/uploads/nowhere.txt",
            404,
            "Eine hochgeladene Datei &#39;nowhere.txt&#39; gibt es nicht.",
        ),
        ("/uploads/odd.exe", 415, "odd.exe hat einen Typ, der nicht gelesen wird."),
        ("/builds/nowhere", 404, "Es wird kein Datensatz &#39;nowhere&#39; gebaut."),
        (
            "/published/nowhere",
            404,
            "Einen veröffentlichten Datensatz &#39;nowhere&#39; gibt es nicht.",
        ),
    ):
        got, text, _ = await data_pages.page(DATA_PATH + path, headers=headers)
        assert got == status and expected in text, path


ODD_UPLOAD = "/dashboard/data/uploads/odd.exe"


async def test_a_script_gets_errors_in_the_pages_language_and_a_program_in_english(dashboard):
    headers = {"Accept-Language": "de"}
    status, answer, _ = await dashboard.ask("PUT", ODD_UPLOAD, data=b"MZ", headers=headers)
    assert status == 415 and answer["detail"] == "odd.exe is of an unsupported type."
    headers["Sec-Fetch-Site"] = "same-origin"
    status, answer, _ = await dashboard.ask("PUT", ODD_UPLOAD, data=b"MZ", headers=headers)
    assert status == 415 and answer["detail"] == "odd.exe hat einen Typ, der nicht gelesen wird."
    assert answer["advice"].startswith("Gelesen werden .json") and answer["title"] == (
        "Unsupported file type"
    )


@pytest.mark.parametrize("permission", ["", "Granted on 1 November 2026."])
@pytest.mark.parametrize("right", ["", "discord-api"])
def test_why_a_source_may_not_be_trained_on_is_in_english_what_the_trainer_says(permission, right):
    consent = Consent(permission=permission, opted_in=frozenset())
    verdict = decide_right("talk.json", stated=right, consent=consent)
    texts = refusal_texts("talk.json", verdict, consent)
    assert texts == (verdict.refused, verdict.advice) and all(texts)
    for language in TRANSLATED_LANGUAGES:
        assert not {localise(text, language) for text in texts} & set(texts)


@pytest.mark.parametrize("right", ["licensed", "licensed:", "odd", ""])
def test_what_is_wrong_with_a_right_is_in_english_what_the_trainer_says(right):
    text = statement_error("right", right)
    assert text == f"the statement {right_error(right)}"
    assert localise(text, "de") not in ("", text)


@pytest.mark.parametrize("stated_on", ["tomorrow", "2126-01-01"])
def test_what_is_wrong_with_a_date_is_in_english_what_the_trainer_says(stated_on):
    text = statement_error("stated_on", stated_on)
    assert text == f"the statement {statement_date_error(stated_on)}"
    assert localise(text, "de") not in ("", text)


def test_the_reasons_that_pages_translate_are_the_trainers():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "trainer").rglob("*.py"))
    missing = [reason for reason in DROP_REASONS if f'"{reason}"' not in sources]
    assert missing == []


@every_translation
async def test_a_refused_form_of_moderation_says_nothing_in_english_that_its_catalogue_has(
    town, language
):
    town.stage.store.action_roles.add(town.first, "teach", 1)
    own = {"Origin": town.operator.url, "Sec-Fetch-Site": "same-origin"}
    own["Accept-Language"] = language_tag(language)
    for path, form in (
        ("", {"member": "Tob"}),
        ("", {}),
        ("/lift", {"user": "8"}),
        ("/limits", {"per_day": "x"}),
        ("/rules/mute", {"channel": "1"}),
        ("/rules/unmute", {"channel": "2"}),
        ("/rules/roles", {"action": "teach", "remove": "2"}),
        ("/rules/roles", {"action": "teach", "reset": ""}),
        ("/rules/roles", {"action": "teach", "role": "2"}),
        ("/rules/age", {"marked": "nobody"}),
    ):
        page = f"{SERVERS}/{town.first}{path}"
        refused = await town.operator.ask("POST", page, data=form, headers=own)
        assert refused.status in (404, 409, 422), path
        assert list(in_english(refused.text, language)) == [], path


@pytest.mark.parametrize(
    "file",
    TEMPLATES,
    ids=lambda file: file.relative_to(ROOT / "bot").as_posix(),
)
def test_a_template_has_no_text_that_is_not_marked(file):
    assert unmarked(file.read_text(encoding="utf-8")) == []


def test_an_unmarked_text_is_found_by_that_check():
    assert unmarked('<p title="Two words">{{ _("Marked") }} <b>{{ name }} answers</b></p>') == [
        "Two words", "answers",
    ]  # fmt: skip


def unmarked(template):
    """The texts of a template that no catalogue can have."""
    reader = ShownTexts()
    reader.feed(MARKED_PATTERN.sub("", template))
    # Macros for attributes have these outside of a tag.
    texts = (re.sub(r'[\w-]+="[^"]*"', "", text).strip(" ·") for text in reader.texts)
    return [text for text in texts if re.search(r"[a-zA-Z]{4}", text) and text not in NAMES]


async def test_an_english_page_is_found_by_that_check(dashboard):
    _, text, _ = await dashboard.page("/dashboard")
    found = list(in_english(text, "de"))
    assert any("Skip to the page" in each for each in found) and len(found) > 10
