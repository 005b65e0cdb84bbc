"""The page, the picture and the sheet to score on: nothing from elsewhere, nothing given away, nothing unescaped."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest

from personas.schemas.scorecard import ReplyText, SideBySide
from tests.trainer.gate_cards import RECIPE, good_card
from trainer.report.scorecard_files import (
    PAGE_FILE,
    PICTURE_FILE,
    RUBRIC_CSV_FILE,
    RUBRIC_FILE,
    RUBRIC_KEY_FILE,
    rating_key,
    rating_sheet,
    rating_sheet_csv,
    shuffled_replies,
    write_renderings,
)
from trainer.report.scorecard_page import render_page
from trainer.report.svg_charts import ChartRow, ReferenceLine, bar_chart, interval_chart


def judged(**changes):
    card = good_card(**changes)
    return card.model_copy(update={"verdict": judge(card, RECIPE)})


def pair(prompt, real="Really.", **replies):
    texts = {side: ReplyText(text=text, made_by=None, seed=0) for side, text in replies.items()}
    return SideBySide(prompt=prompt, real=real, replies=texts)


class Tags(HTMLParser):
    """Which elements there are, in order, with their attributes, and how deep the document ends."""

    VOID = ("meta", "rect", "path", "circle", "br")

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_is_well_formed():
    tags = Tags(render_page(judged()))
    assert tags.open == [] and not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.found}
    assert not any({"src", "href", "onclick"} & attrs.keys() for _, attrs in tags.found)
    assert "url(" not in render_page(judged()) and "@import" not in render_page(judged())
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags.found


def test_each_plot_says_in_words_what_it_shows_and_has_its_table_below():
    tags = Tags(render_page(judged())).found
    places = [place for place, (tag, _) in enumerate(tags) if tag == "svg"]
    assert len(places) >= 5
    for place in places:
        assert tags[place][1]["role"] == "img" and re.search(r"[\d.]+", tags[place][1]["aria-label"])
        after = [tag for tag, _ in tags[place + 1 :] if tag in ("svg", "table")]
        assert after[0] == "table"


def test_the_page_says_verdict_criteria_and_what_was_not_measured():
    text = render_page(judged(memorised={"private": {"SECRET": 2}}, left_out={"facts prompts": "3 of 9 were asked."}))
    assert "The gate says reject." in text and "✗ fail" in text and "2 × secret" in text
    assert "facts prompts: 3 of 9 were asked." in text and "anonymise --review" in text


def test_the_page_says_what_made_each_reply_and_proves_that_base_is_base():
    text = render_page(judged())
    assert "the base model&#x27;s logits differ by 0 from its own" in text and "v-new, seed 0" in text
    assert "no adapter, seed 0" in text and "<td>livelivelivelive…</td>" in text


def test_the_page_says_what_was_memorised_and_which_prompts_were_unsafe():
    text = render_page(judged(memorised={"private": {"SECRET": 2}}))
    assert "<td>2 × secret</td>" in text and "<td>harassment</td><td>5</td><td>1</td>" in text


def test_what_somebody_wrote_is_never_markup():
    evil = "<script>alert(1)</script>&amp;\"'"
    text = render_page(judged(side_by_side=(pair(evil, evil, base=evil, new=evil),), left_out={evil: evil}))
    assert "<script" not in text and "&lt;script&gt;" in text and Tags(text).open == []


def test_a_card_of_losses_alone_makes_a_page_too():
    bare = judged(voice=None, separation=None, memorised=None, learned=None, safety=None, facts=None, text=(),
                  side_by_side=())  # fmt: skip
    assert "Held-out replies" in render_page(bare) and "Side by side" not in render_page(bare)


def test_plots_keep_their_rows_within_their_frame():
    drawn = interval_chart("change", [ChartRow("a", 5.0, -3.0, 9.0), ChartRow("b", -1.0)], [ReferenceLine("x", 2.0)])
    xs = [float(x) for x in re.findall(r'(?:cx|x)="([\d.]+)"', drawn)]
    assert all(0 <= x <= 680 for x in xs) and "a +5.000; b -1.000" in drawn
    assert 'width="0.0"' in bar_chart("nothing", [ChartRow("a", 0.0)])


# ------------------------------------------------------------------------------------------ to be scored

PAIRS = tuple(pair(f"question {n}", f"real {n}", base=f"base {n}", live=f"live {n}", new=f"new {n}") for n in range(12))


def test_the_sheet_hides_whose_reply_is_whose_and_the_key_tells():
    card = good_card(side_by_side=PAIRS)
    text, told = rating_sheet(card), json.loads(rating_key(card))["replies"]
    assert not re.search(r"\b(live version|base model|v2)\b", text)
    for place, shown in enumerate(PAIRS):
        for letter, side in told[str(place + 1)].items():
            said = shown.real if side == "real" else shown.replies[side].text
            assert f"**{letter}.** {said}\n" in text
    orders = {tuple(side for side, _ in shuffled_replies(card, place)) for place in range(len(PAIRS))}
    assert len(orders) > 4, "the place gives nothing away"
    assert rating_sheet(card) == text, "and it is the same sheet each time"


def test_the_table_has_columns_to_fill_and_no_formulas():
    card = good_card(side_by_side=(pair("=1+1", "+cmd", base="fine", new="@sum"),))
    rows = list(csv.DictReader(io.StringIO(rating_sheet_csv(card))))
    assert len(rows) == 3 and all(row["in character"] == "" == row["remarks"] for row in rows)
    assert not any(row[column].startswith(("=", "+", "@")) for row in rows for column in ("asked", "text"))


@pytest.mark.parametrize("whole", [True, False])
def test_all_of_it_lies_in_the_report(tmp_path, whole):
    card = judged() if whole else judged(side_by_side=(), voice=None)
    write_renderings(tmp_path / "report", card)
    found = {path.name for path in (tmp_path / "report").iterdir()}
    assert found == ({PAGE_FILE, PICTURE_FILE, RUBRIC_FILE, RUBRIC_CSV_FILE, RUBRIC_KEY_FILE} if whole else {PAGE_FILE})
    if whole:
        assert (tmp_path / "report" / PICTURE_FILE).read_bytes().startswith(b"\x89PNG")
