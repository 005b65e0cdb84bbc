"""The documents on the dashboard: all of them, their links, and nothing of them that is HTML."""

import re
from html import unescape

import pytest

from bot.operations.web import documents
from bot.platform.web_kit.templating import format_inline_code
from personas.shipped_folders import SHIPPED_DOCS

DOCS = "/dashboard/docs"
NAMES = sorted(
    str(file.relative_to(SHIPPED_DOCS).with_suffix("")) for file in SHIPPED_DOCS.rglob("*.md")
)
TAG = re.compile(r"</?([a-z0-9]+)")
CODE = re.compile(r"<code>.*?</code>", re.DOTALL)
TAGS = set(
    "p h2 h3 h4 a code pre em strong ul ol li table thead tbody tr th td div img span br hr "
    "blockquote".split()
)


async def test_a_document_is_a_page_and_leads_to_others(dashboard):
    status, page, _ = await dashboard.page(f"{DOCS}/howto/go-live")
    assert status == 200 and "<title>" in page and 'aria-current="page">Documents' in page
    assert (
        f'href="{DOCS}/privacy#for-members"' in page
        and 'href="/dashboard/docs">All documents' in page
    )
    status, index, _ = await dashboard.page(DOCS)
    assert status == 200 and f'href="{DOCS}/first-hour"' in index and ".md" not in index
    for path, place in ((f"{DOCS}/training.md", f"{DOCS}/training"), (f"{DOCS}/README", DOCS)):
        status, _, headers = await dashboard.page(path)
        assert (status, headers["Location"]) == (303, place)
    for path in ("nowhere", "howto", "../README", "howto/../../README", "%2e%2e/README", "x/y"):
        status, _, _ = await dashboard.page(f"{DOCS}/{path}")
        assert status == 404, path


async def test_pictures_are_shown_where_they_are_and_described_elsewhere(dashboard, monkeypatch):
    page = (await dashboard.page(f"{DOCS}/where"))[1]
    assert f'<img src="{DOCS}/pictures/where.svg"' in page
    async with dashboard.session.get(f"{DOCS}/pictures/where.svg") as answer:
        assert (answer.status, answer.content_type) == (200, "image/svg+xml")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for name in ("nothing.svg", "..%2F..%2FREADME.md", "where.txt"):
        assert (await dashboard.page(f"{DOCS}/pictures/{name}"))[0] == 404
    monkeypatch.setattr(documents, "picture_file", lambda name: None)
    described = documents.read_document.__wrapped__("where").body
    assert "<img" not in described and "[Discord and browsers reach the bot" in described


async def test_without_the_documents_their_pages_say_so(dashboard, monkeypatch, tmp_path):
    monkeypatch.setattr(documents, "SHIPPED_DOCS", tmp_path / "docs")
    documents.read_document.cache_clear()
    for path in (DOCS, f"{DOCS}/howto/go-live", f"{DOCS}/README"):
        status, page, _ = await dashboard.page(path)
        assert status == 404 and "The documents are not installed here." in page, path


@pytest.mark.parametrize("name", NAMES)
def test_every_document_is_rendered_with_links_that_lead_somewhere(name):
    shown = documents.read_document(name)
    body = str(shown.body)
    assert shown.title and "<!--" not in unescape(CODE.sub("", body))
    assert set(TAG.findall(body)) <= TAGS
    for target in re.findall(r'href="([^"]*)"', body):
        page, _, heading = unescape(target).partition("#")
        if page.startswith("https://"):
            continue
        other = name if not page else page.removeprefix(DOCS).strip("/") or documents.INDEX
        assert documents.document_file(other), target
        if heading:
            assert f' id="{heading}"' in documents.read_document(other).body, target


def test_what_a_document_has_of_html_is_text(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "SHIPPED_DOCS", tmp_path)
    (tmp_path / "evil.md").write_text(
        "# Evil\n\n<script>alert(1)</script>\n\nHi <img src=x onerror=alert(1)> there "
        "[press](javascript:alert(1)) [here](../LICENSE) <!-- gone -->\n\n"
        "<details><summary><code>fold</code></summary>\n\ninside\n\n</details>\n",
        encoding="utf-8",
    )
    body = documents.read_document.__wrapped__("evil").body
    assert "<script" not in body and "<img" not in body and "gone" not in body
    assert "&lt;script&gt;" in body and "href" not in body and "<span>here</span>" in body
    assert "<strong>fold</strong>" in body and "<p>inside</p>" in body


def test_a_text_links_the_documents_that_it_names():
    shown = format_inline_code("Set `ENGINE=vllm`: docs/howto/vllm.md, <b> `docs/gate.md#rules`.")
    assert shown == (
        f'Set <code>ENGINE=vllm</code>: <a href="{DOCS}/howto/vllm">docs/howto/vllm.md</a>, '
        f'&lt;b&gt; <code><a href="{DOCS}/gate#rules">docs/gate.md#rules</a></code>.'
    )
    assert "<a" not in format_inline_code("docs/gate.md", links=False)
    assert "<a" not in format_inline_code("/opt/elsewhere/docs/gate.md")
