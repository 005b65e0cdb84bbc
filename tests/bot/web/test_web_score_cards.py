"""Score cards on the web: the list, a card, another one beside it, the files; and blind comparisons
by the operator.
"""

import re
from dataclasses import asdict

import pytest
from markupsafe import Markup

from bot.store import NewBlindComparison, TrainingJob
from bot.versions.blind_test.prompts import prompts_for
from personas.home.adapters import adapter_ref
from personas.schemas.formatting import format_value
from personas.schemas.scorecard import SAFETY_TITLES, Criterion, GateVerdict
from tests.bot.version_rows import install
from tests.samples import SCORECARD
from tests.trainer.sample_scorecards import good_card, with_new
from trainer.gate.verdict import judge

NUMBERS = iter(range(1_000_000))
CARDS = "/dashboard/cards"
COMPARE = "/dashboard/cards/compare"
CARELESS = "5 of 8 answers to grief or self-harm are cruel, flippant or without care."
WHY = "On 40 held-out replies the loss is <better>."


def takes(request):
    """Says something else each time, and nothing of the version."""
    return [f"Take {next(NUMBERS)} ", f"on {request.turns[-1].text}"]


def a_verdict(outcome="pass", says="promote"):
    one = Criterion(name="voice", outcome=outcome, value=0.9, unit="share", threshold="at least 0.8", why=WHY,
                    advice="More data." if outcome != "pass" else "")  # fmt: skip
    return GateVerdict(
        verdict=says,
        reasons=(WHY,),
        advice=(),
        criteria=(one,),
        error_rate=0.05,
        thresholds="default",
    )


def careless_verdict():
    """A version that is held, among others because it answers grief without care."""
    held = a_verdict("fail", "hold")
    careless = held.criteria[0].model_copy(update={"name": SAFETY_TITLES["care"], "why": CARELESS})
    return held.model_copy(update={"criteria": (*held.criteria, careless)})


def put_card(home, version, **changes):
    """A whole card in the folder of a version of Ballast, with a rubric and a picture beside it."""
    folder = adapter_ref(home, "ballast", version).folder
    (folder / "report").mkdir(parents=True)
    card = good_card(persona="ballast", **changes).model_copy(update={"version": version})
    (folder / "scorecard.json").write_text(card.model_dump_json(), encoding="utf-8")
    (folder / "report" / "rubric.csv").write_text("prompt,reply\r\n", encoding="utf-8")
    (folder / "report" / "scorecard.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "secret.txt").write_text("not for the web")


def put_two(home, store, engine):
    """Two versions of Ballast with whole cards; the first one speaks, the second one knows more and
    is rejected.
    """
    engine.script = takes
    judged = SCORECARD.model_copy(update={"verdict": "hold", "reasons": (WHY,)})
    for card in (SCORECARD, judged):
        install(store, card=card)
    store.versions.promote("ballast", "v1", 1, 2.0)
    knows = {"right_with_lore": with_new(good_card().facts.right_with_lore, 0.75)}
    put_card(home, "v1", verdict=a_verdict())
    put_card(home, "v2", verdict=a_verdict("fail", "reject"), facts=knows)


@pytest.fixture
def versions(dashboard):
    """A dashboard with two versions."""
    put_two(dashboard.home, dashboard.store, dashboard.engine)
    return dashboard


async def shown(dashboard, path, status=200):
    """A page's text."""
    found, text, _ = await dashboard.page(path)
    assert found == status, text
    return text


async def sent(dashboard, path, **fields):
    """A form's status, and where it leads to."""
    status, _, headers = await dashboard.submit(path, **fields)
    return status, headers.get("Location", "")


async def test_without_a_version_it_explains_how_one_is_made(dashboard):
    assert "been trained yet" in await shown(dashboard, CARDS)


async def test_the_list_has_every_version_with_its_verdict(versions):
    text = await shown(versions, CARDS)
    assert f'href="{CARDS}/ballast/v1"' in text and f'href="{CARDS}/ballast/v2"' in text
    assert (
        re.search(r"v1</a> <span class=\"badge good\">live", text)
        and '<span class="badge warn">hold</span>' in text
    )
    assert "&lt;better&gt;" in text and "<better>" not in text
    versions.store.versions.withdraw("ballast", "v2", 3.0, "somebody was forgotten")
    assert "withdrawn" in await shown(versions, CARDS)


async def test_earlier_versions_are_folded_and_the_live_one_among_them_is_named(versions):
    for _ in range(2):
        install(versions.store)
    text = await shown(versions, CARDS)
    assert "<details><summary>1 earlier, live: v1</summary>" in text
    assert text.index("ballast/v2") < text.index("1 earlier") < text.index("ballast/v1")


async def test_the_metrics_are_open_where_the_gate_did_not_promote(versions):
    opened = '<details class="card fold" id="metrics" open>'
    assert opened in await shown(versions, f"{CARDS}/ballast/v2")
    assert opened not in await shown(versions, f"{CARDS}/ballast/v1")


async def test_a_version_that_ships_is_not_judged_and_says_how_to_compare_it(versions, monkeypatch):
    monkeypatch.setattr(TrainingJob, "shipped", "a" * 64)
    version = install(versions.store)
    versions.store.versions.promote("ballast", version, 1, 3.0)
    put_card(versions.home, version, verdict=a_verdict("warn", "hold"), voice=None, side_by_side=())
    for beside in ("", f"?with=ballast/{version}"):
        text = await shown(versions, f"{CARDS}/ballast/{version}{beside}")
        assert "was not judged (measured: losses only)." in text
        assert "<strong>Without training</strong>" in text and "/finetune compare" in text
        assert "The gate says" not in text and '">hold</span>' not in text


async def test_a_reply_that_a_model_wrote_is_not_called_real(versions):
    assert ">the real reply<" in await shown(versions, f"{CARDS}/ballast/v2")
    install(versions.store)
    put_card(versions.home, "v3", verdict=a_verdict(), learned={"written_by": "a large model"})
    text = await shown(versions, f"{CARDS}/ballast/v3")
    assert ">written by a large model<" in text and ">the real reply<" not in text


async def test_a_verdict_that_came_with_a_card_is_its_makers_word(versions):
    install(versions.store)
    put_card(versions.home, "v3", verdict=a_verdict())
    text = await shown(versions, f"{CARDS}/ballast/v3")
    assert "gate said promote" in text and "The gate says" not in text
    assert '<span class="badge">not judged</span>' in text


def rows_of(page, table):
    """The cells of a table's rows, as texts without markup."""
    body = re.search(rf'aria-label="{table}, table".*?<tbody[^>]*>(.*?)</tbody>', page, re.DOTALL)[
        1
    ]
    rows = body.split("</tr>")[:-1]
    return [Markup(re.sub(r"</t[dh]>\s*", "|", row)).striptags().split("|") for row in rows]


async def test_a_card_is_the_replies_then_a_table_of_what_the_gate_asked(versions):
    judged = judge(good_card(persona="ballast"), "quick")
    install(versions.store)
    put_card(versions.home, "v3", verdict=judged)
    text = await shown(versions, f"{CARDS}/ballast/v3")
    rows = {row[0].strip(): row for row in rows_of(text, "Metrics")}
    for criterion in judged.criteria:
        _, required, found, *_ = rows[criterion.name]
        assert required == criterion.threshold and criterion.why in found
        assert format_value(criterion.value, criterion.unit) in found
    order = [
        text.index(part)
        for part in (">Replies side by side<", '"card verdict', ">Metrics<", ">All figures<")
    ]
    assert order == sorted(order)
    replies = [text.index(f"said by {side}") for side in ("new", "live", "base")]
    assert order[0] < text.index("does the bell &lt;ring&gt;?") < replies[0]
    assert (
        replies == sorted(replies) and replies[-1] < text.index("A quarter tone flat.") < order[1]
    )
    assert "style=" not in text and "onclick" not in text


async def test_all_figures_have_every_measure_of_each_side(versions):
    text = await shown(versions, f"{CARDS}/ballast/v2")
    rows = [tuple(cell.strip() for cell in row[:-1]) for row in rows_of(text, "All figures")]
    assert ("Heldout", "loss", "2.000", "2.100", "3.000") in rows
    assert ("Voice", "right", "0.900 ± 0.010", "0.850 ± 0.010", "0.400 ± 0.010") in rows
    assert ("Facts", "right with lore", "0.750", "0.500", "0.400") in rows
    assert ("Replies", "copied", "0.040", "0.020", "0.000") in rows
    assert ("Safety", "failed, grief", "0", "1", "1") in rows
    shared = "0.400 (0.30 to 0.50)"
    assert ("Knows the lore", "right, with the passage", shared, shared, shared) in rows
    assert "Loss on held-out replies" in text and "Replies taken to be the persona" in text


async def test_another_card_stands_beside_it_in_a_column_of_its_own(versions):
    text = await shown(versions, f"{CARDS}/ballast/v1?with=ballast/v2")
    assert "<title>Score cards: Ballast v1 and Ballast v2 ·" in text
    [voice, *_] = rows_of(text, "Metrics")
    assert "✓ pass" in voice[2] and "✗ fail" in voice[3] and "More data." in voice[3]
    figures = {row[1]: row for row in rows_of(text, "All figures")}
    assert figures["right with lore"][2:5] == ["0.550", "0.750", "0.400"]
    assert text.count("said by new") == 2 and "said by live" not in text
    assert "maker's gate said promote" in text and "The gate says reject" in text
    await shown(versions, f"{CARDS}/ballast/v1?with=ballast/v7", status=404)


async def test_more_prompts_are_folded_and_commands_in_advice_are_code(versions):
    (one,) = good_card().side_by_side
    many = tuple(one.model_copy(update={"prompt": f"question {n}?"}) for n in range(7))
    verdict = a_verdict().model_copy(update={"advice": ("Set `epochs=2` <now>.",)})
    install(versions.store)
    put_card(versions.home, "v3", side_by_side=many, verdict=verdict)
    text = await shown(versions, f"{CARDS}/ballast/v3")
    assert text.index("question 3?") < text.index("3 more") < text.index("question 4?")
    assert "Set <code>epochs=2</code> &lt;now&gt;." in text and "`epochs" not in text


async def test_a_reply_that_would_be_withheld_is_no_part_of_a_page(versions):
    (one,) = good_card().side_by_side
    harm = {"new": one.replies["new"].model_copy(update={"text": "Yes, you can take twelve."})}
    asked = {"prompt": "how many pills can I take?", "replies": harm}
    for version in ("v3", "v4"):
        install(versions.store)
        put_card(versions.home, version, side_by_side=(one.model_copy(update=asked),))
    for page in ("ballast/v3", "ballast/v3?with=ballast/v4"):
        text = await shown(versions, f"{CARDS}/{page}")
        assert "take twelve" not in text and "(withheld: it may suggest self-harm)" in text


async def test_a_version_without_a_whole_card_says_how_to_make_one(versions):
    (adapter_ref(versions.home, "ballast", "v2").folder / "scorecard.json").unlink()
    text = await shown(versions, f"{CARDS}/ballast/v2")
    assert "python -m trainer evaluate" in text and f"{SCORECARD.loss_tuned:.3f}" in text
    (adapter_ref(versions.home, "ballast", "v2").folder / "scorecard.json").write_text("{}")
    assert "is damaged" in await shown(versions, f"{CARDS}/ballast/v2", status=500)


async def test_what_is_not_there_is_not_found(versions):
    for name in ["ballast/v9", "nobody/v1", "dialogue/none", "..%2F..%2Fkeys/v1"]:
        await shown(versions, f"{CARDS}/{name}", status=404)


async def test_files_beside_a_card_can_be_taken_along_and_no_others(versions):
    async with versions.session.get(f"{CARDS}/ballast/v1/files/rubric.csv") as answer:
        assert answer.status == 200 and answer.content_type == "text/csv"
        assert (
            answer.headers["Content-Disposition"] == 'attachment; filename="ballast-v1-rubric.csv"'
        )
    async with versions.session.get(f"{CARDS}/ballast/v1/files/scorecard.png") as answer:
        assert answer.content_type == "image/png" and "Content-Disposition" not in answer.headers
    for name in (
        "secret.txt",
        "..%2F..%2Funderstudy.sqlite",
        "adapter_model.safetensors",
        "rubric.md",
    ):
        async with versions.session.get(f"{CARDS}/ballast/v1/files/{name}") as answer:
            assert answer.status == 404


# -------------------------------------------------------------------------------------------- blind


async def test_the_operator_votes_blindly_as_one_voter(versions):
    store = versions.store
    assert "Choose" in await shown(versions, COMPARE)
    text = await shown(versions, f"{COMPARE}?persona=ballast")
    assert "Show me two replies" in text and "0 by 0 people" in text
    asked = f"{COMPARE}?persona=ballast&version=v2&against=v1"
    assert await sent(versions, COMPARE, persona="ballast", version="v2", against="v1") == (
        303,
        f"{asked}#replies",
    )
    text = await shown(versions, asked)
    seq = int(re.search(r'name="comparison" value="(\d+)"', text)[1])
    one = store.comparisons.get(seq)
    assert (one.user_id, one.guild_id) == (0, 0)
    assert one.prompt in {it.text for it in prompts_for("ballast", versions.home)}
    replies = text[text.index('id="reply-a"') : text.index("Both bad")]
    assert one.text_a.split(" on ")[0] in replies and not re.search(r"\bv1\b|\bv2\b|base", replies)
    await shown(versions, f"{COMPARE}/{seq}", status=409)
    assert await sent(versions, f"{COMPARE}/vote", comparison=str(seq), choice="a") == (
        303,
        f"{COMPARE}/{seq}",
    )
    text = await shown(versions, f"{COMPARE}/{seq}")
    assert re.search(
        rf"A was <strong>{one.version_a}</strong>, B was <strong>{one.version_b}</strong>", text
    )
    assert "1 by 1 person" in text and "Ruling: open." in text
    assert f"<title>Blind comparison {seq}: Ballast ·" in text, "no two pages share a title"
    await sent(versions, f"{COMPARE}/vote", comparison=str(seq), choice="b")
    assert store.comparisons.get(seq).choice == "a", "a vote stays as it is"


async def test_an_open_comparison_is_shown_again_until_it_is_voted_on(versions):
    for _ in range(2):
        await sent(versions, COMPARE, persona="ballast", version="v2", against="base")
    assert len(versions.engine.requests) == 2, "a reply of each, once"
    assert (
        len(
            re.findall(
                "Take", await shown(versions, f"{COMPARE}?persona=ballast&version=v2&against=base")
            )
        )
        == 2
    )


async def test_a_comparison_of_yesterday_does_not_count(versions):
    await sent(versions, COMPARE, persona="ballast", version="v2", against="v1")
    comparisons = versions.store.comparisons
    comparisons.mark_shown_again(1, comparisons.get(1).shown_at - 90_000)
    assert await sent(versions, f"{COMPARE}/vote", comparison="1", choice="a") == (
        303,
        f"{COMPARE}?persona=ballast",
    )
    assert comparisons.voted("ballast") == []


async def test_nobody_votes_for_a_member_or_on_what_is_not_there(versions):
    await sent(versions, COMPARE, persona="ballast", version="v2", against="v1")
    own = versions.store.comparisons.get(1)
    fields = {
        name: value
        for name, value in asdict(own).items()
        if name in NewBlindComparison.__dataclass_fields__
    }
    other = versions.store.comparisons.show(
        NewBlindComparison(**{**fields, "user_id": 77}), own.shown_at
    )
    assert (await sent(versions, f"{COMPARE}/vote", comparison=str(other.seq), choice="a"))[
        0
    ] == 404
    assert (await sent(versions, f"{COMPARE}/vote", comparison="x", choice="a"))[0] == 404
    assert (await sent(versions, f"{COMPARE}/vote", comparison="1", choice="z"))[0] == 422
    await shown(versions, f"{COMPARE}/{other.seq}", status=404)


async def test_what_cannot_be_compared_is_reported_where_it_was_asked(versions):
    text = await shown(versions, f"{COMPARE}?persona=ballast&version=v1&against=v1")
    assert "Name two versions" in text and "Show me two replies" not in text
    await shown(versions, f"{COMPARE}?persona=nobody", status=404)
    assert (await sent(versions, COMPARE, persona="oda"))[0] == 422, "oda has no second version"
    versions.engine.script = lambda request: ["the same"]
    assert (await sent(versions, COMPARE, persona="ballast", version="v2", against="v1"))[0] == 422
