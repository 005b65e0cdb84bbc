"""The score card's picture and rating sheet: replies stay anonymous, and nothing reads as a
formula.
"""

import csv
import io
import json
import re

import pytest

from personas.schemas.scorecard import Criterion, ReplyText, SideBySide
from tests.trainer.sample_scorecards import RECIPE, good_card
from trainer.gate.measurement import CRITERIA
from trainer.gate.verdict import judge
from trainer.report.rating_sheet import (
    rating_key,
    rating_sheet,
    rating_sheet_csv,
    shuffled_replies,
)
from trainer.report.scorecard_files import (
    PICTURE_FILE,
    RUBRIC_CSV_FILE,
    RUBRIC_FILE,
    RUBRIC_KEY_FILE,
    write_renderings,
)
from trainer.report.scorecard_markdown import render_markdown
from trainer.report.scorecard_picture import make_figure


def judged(**changes):
    card = good_card(**changes)
    return card.model_copy(update={"verdict": judge(card, RECIPE)})


def pair(prompt, real="Really.", **replies):
    texts = {side: ReplyText(text=text, made_by=None, seed=0) for side, text in replies.items()}
    return SideBySide(prompt=prompt, real=real, replies=texts)


def test_shares_stand_between_their_bounds_and_what_was_not_measured_has_none():
    result = render_markdown(good_card())
    assert "| passage found | – | – | 90.0% (80% to 100%) | – | – |" in result
    row = (
        "| right, with the passage | 40.0% (30% to 50%) | 40.0% (30% to 50%) | 40.0% (30% to 50%) |"
    )
    assert f"{row} 100.0% (100% to 100%) | – |" in result
    unbounded = good_card().lore.model_copy(update={"ceiling": {}, "floor": {}})
    assert f"{row} – | – |" in render_markdown(good_card(lore=unbounded))
    assert "Knows the lore" not in render_markdown(good_card(lore=None))


def test_replies_stand_side_by_side_before_any_figure():
    result = render_markdown(judged())
    assert result.index("- **new version**") < result.index("## Verdict") < result.index("| side |")
    assert "|" not in result[: result.index("## Verdict")]
    assert "| copied | 0.0% | 2.0% | 4.0% |" in result


def test_of_an_earlier_card_nothing_is_read_that_readers_disagreed_with():
    card = good_card()
    earlier = card.model_dump(mode="json")
    share = {"estimated sense": {"new": {"estimate": 0.4, "low": 0.3, "high": 0.5}}}
    earlier["belongs"] = earlier["sense"] = {"prompts": 24, "shares": share}
    earlier["text"] = [{"task": "heldout", "prompts": 9, "scores": {}}]
    earlier["voice"] |= {"similarity": {}, "similarity_ceiling": 0.6, "similarity_floor": 0.2}
    assert type(card).model_validate_json(json.dumps(earlier)) == card


# ------------------------------------------------------------------------------------- to be scored

PAIRS = tuple(
    pair(f"question {n}", f"real {n}", base=f"base {n}", live=f"live {n}", new=f"new {n}")
    for n in range(12)
)


def test_the_sheet_hides_whose_reply_is_whose_and_the_key_tells():
    card = good_card(side_by_side=PAIRS)
    text = rating_sheet(card)
    result = json.loads(rating_key(card))["replies"]
    assert not re.search(r"\b(live version|base model|v2)\b", text)
    for place, shown in enumerate(PAIRS):
        for letter, side in result[str(place + 1)].items():
            said = shown.real if side == "real" else shown.replies[side].text
            assert f"**{letter}.** {said}\n" in text
    orders = {
        tuple(side for side, _ in shuffled_replies(card, place)) for place in range(len(PAIRS))
    }
    assert len(orders) > 4, "the place gives nothing away"
    assert rating_sheet(card) == text, "and it is the same sheet each time"


def test_the_table_has_columns_to_fill_and_no_formulas():
    card = good_card(side_by_side=(pair("=1+1", "+cmd", base="fine", new="@sum"),))
    rows = list(csv.DictReader(io.StringIO(rating_sheet_csv(card))))
    assert len(rows) == 3 and all(row["in character"] == "" == row["remarks"] for row in rows)
    assert not any(
        row[column].startswith(("=", "+", "@")) for row in rows for column in ("asked", "text")
    )


@pytest.mark.parametrize("whole", [True, False])
def test_all_of_it_lies_in_the_report(tmp_path, whole):
    card = judged() if whole else judged(side_by_side=(), voice=None)
    write_renderings(tmp_path / "report", card)
    found = {path.name for path in tmp_path.glob("report/*")}
    assert found == (
        {PICTURE_FILE, RUBRIC_FILE, RUBRIC_CSV_FILE, RUBRIC_KEY_FILE} if whole else set()
    )
    if whole:
        assert (tmp_path / "report" / PICTURE_FILE).read_bytes().startswith(b"\x89PNG")


def test_no_words_overlap_in_the_picture_and_it_names_the_persona():
    criteria = tuple(
        Criterion(
            name=info.title, outcome="fail", value=-0.12345, unit=info.unit, threshold="", why=""
        )
        for info in CRITERIA.values()
    )
    reason = "The words that say why are many, and they take as much room as they can get. " * 3
    verdict = judge(good_card(), RECIPE).model_copy(
        update={"verdict": "promote", "criteria": criteria, "reasons": (reason,)}
    )
    card = good_card().model_copy(
        update={"verdict": verdict, "persona": "bran-bz4fflrq", "persona_name": "Brannock " * 5, "version": "v12"}
    )  # fmt: skip
    figure = make_figure(card)
    figure.canvas.draw()
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    assert len(texts) > 2 * len(CRITERIA)
    assert not any("bran-bz4" in text.get_text() for text in texts)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for place, (said, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, said
        for other, another in boxes[place + 1 :]:
            assert not box.overlaps(another), (said, other)
