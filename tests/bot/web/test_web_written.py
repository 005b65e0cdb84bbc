"""What a model wrote from a card: read, changed and struck out on its page until it is trained on."""

import json
from dataclasses import asdict, replace

import pytest

from bot.training.backend_protocol import TrainingFailed
from bot.training.status_text import cancelled_writing_lines
from personas.home.written_replies import (
    ATTEMPTS_FILE,
    REVIEW_ADVICE,
    SUMMARY_FILE,
    WrittenReply,
    read_written,
    store_written,
    struck_file,
    written_file,
)
from personas.schemas.training import WrittenReplies
from personas.schemas.training_events import Phase
from tests.bot.web.test_web_plan import plan_made
from tests.bot.web.training_runs import folder_in, put_job, step
from tests.fakes import until

PATH = "/dashboard/training/j1/written"
REPLIES = [
    WrittenReply(1, "<b>what's</b> for supper?", "Broth, duck.", "small_talk"),
    WrittenReply(4, "who are you?", "I am a <script> of a person.", "self"),
    WrittenReply(9, "are you cold?", "Never by this fire.", "self"),
]


@pytest.fixture
async def written(dashboard):
    """The file of a job that has stopped for its replies to be read."""
    put_job(dashboard, "j1", from_card=1, review=True, recipe="card")
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    folder = folder_in(dashboard, "j1")
    file = written_file(folder)
    file.parent.mkdir(parents=True)
    store_written(file, REPLIES)
    summary = WrittenReplies(
        teacher="big", licence="MIT", asked=12, kept=3, dropped={"breaks character": 9}
    )
    (file.parent / SUMMARY_FILE).write_text(summary.model_dump_json())
    dashboard.backend.finish(
        TrainingFailed(
            "3 replies are written, and wait to be read.", REVIEW_ADVICE, can_resume=True
        )
    )
    await until(lambda: dashboard.store.jobs.get("j1").state == "failed")
    return file


def typed(number, reply):
    """The fields of a page that has this in place of a reply."""
    seen = {one.number: one.reply for one in REPLIES}[number]
    return {f"seen-{number}": seen, f"reply-{number}": reply}


async def test_replies_are_read_changed_and_struck_out_and_then_trained_on(dashboard, written):
    _, page, _ = await dashboard.page("/dashboard/training/j1")
    assert f'href="{PATH}">Written replies</a>' in page and "wait to be read" in page
    _, page, _ = await dashboard.page(PATH)
    assert "big (MIT) wrote 3 replies" in page and "9 × breaks character" in page
    assert "&lt;b&gt;what&#39;s&lt;/b&gt; for supper?" in page and "<script> of" not in page
    edited = typed(1, "Broth, duck. ") | typed(4, " I am Oda, duck. ")
    status, _, headers = await dashboard.submit(PATH, **edited, do="save 4")
    assert status == 303 and headers["Location"] == f"{PATH}#written-4"
    assert (await dashboard.submit(PATH, **typed(9, "x"), do="strike 9"))[0] == 303
    left = read_written(written)
    assert [reply.reply for reply in left] == ["Broth, duck.", "I am Oda, duck."]
    assert [reply.by for reply in left] == ["teacher", "edited"], "it is not the model's any more"
    for edit, reason in (
        (typed(1, "  "), "The reply is empty."),
        (typed(1, "a" * 2001), "The reply has 2,001 characters. 2,000 are the most."),
        (typed(9, "Gone."), "struck it out meanwhile. You have written: Gone."),
        ({"reply-²": "x"}, "struck it out meanwhile."),
    ):
        status, page, _ = await dashboard.submit(PATH, **edit, do="save 1")
        assert status == 409 and reason in page
    assert read_written(written) == left
    assert (await dashboard.submit("/dashboard/training/j1/resume"))[0] == 303
    assert dashboard.backend.accepted == ["j1"]
    status, page, _ = await dashboard.submit(PATH, **typed(1, "Too late."), do="save 1")
    assert status == 409 and read_written(written) == left, "it is trained on now"
    _, page, _ = await dashboard.page(PATH)
    assert "They cannot be changed any more." in page and "<textarea" not in page


async def test_the_page_says_what_is_left_and_what_a_macro_stands_for(dashboard, written):
    _, page, _ = await dashboard.page(PATH)
    assert "replies are left" not in page and "{{user}}" not in page
    await dashboard.submit(PATH, **typed(4, "Oda, {{user}}."), do="save 4")
    await dashboard.submit(PATH, do="strike 9")
    _, page, _ = await dashboard.page(PATH)
    assert "2 of these 3 replies are left; changed by hand: 1." in page
    assert "<code>{{user}}</code> stands for the name" in page


async def test_a_reply_that_would_be_withheld_can_only_be_struck_out(dashboard, written):
    store_written(written, [*REPLIES, WrittenReply(12, "what for?", "Go hang yourself.", "self")])
    _, page, _ = await dashboard.page(PATH)
    assert "hang yourself" not in page and "(withheld: it may suggest self-harm)" in page
    assert 'value="strike 12"' in page and 'name="reply-12"' not in page
    assert (await dashboard.submit(PATH, do="strike 12"))[0] == 303
    _, page, _ = await dashboard.page(PATH)
    assert "hang yourself" not in page


async def test_a_training_that_waits_to_be_read_has_not_failed(dashboard, written):
    badge = f'<a class="badge" href="{PATH}">waits to be read</a>'
    for path in ("/dashboard/training", "/dashboard/training/j1"):
        _, page, _ = await dashboard.page(path)
        assert badge in page and 'class="badge bad"' not in page, path
    assert f'<a href="{PATH}">Read them</a>' in page
    assert "on the page of the training" not in page, "it is this page"
    _, page, _ = await dashboard.page("/dashboard")
    assert "The replies for" in page and f'href="{PATH}"' in page
    assert "failed" not in page and "card problem" not in page
    _, page, _ = await dashboard.page("/dashboard/training/compare?a=j1&b=j1")
    assert "waits to be read" in page


async def test_what_was_struck_out_is_put_back_and_the_last_replies_stay(dashboard, written):
    async def press(do, number):
        return (await dashboard.submit(PATH, do=f"{do} {number}"))[0]

    assert await press("strike", "4") == 303
    _, page, _ = await dashboard.page(PATH)
    assert "<del>I am a &lt;script&gt; of a person.</del>" in page
    assert "the 2 that are left" in page and page.count('value="put-back 4"') == 1
    assert await press("strike", "1") == 409, "one is measured with what the other teaches"
    assert await press("strike", "4") == 409 == await press("put-back", "1")
    assert await press("put-back", "4") == 303
    assert read_written(written) == REPLIES
    assert await press("put-back", "4") == 409
    # Killed after it was stored where it is put back from: it is not struck out.
    store_written(struck_file(written.parents[1]), [REPLIES[0]])
    _, page, _ = await dashboard.page(PATH)
    assert "put-back" not in page and "the 3 that are left" in page
    assert await press("strike", "1") == 303 and await press("put-back", "1") == 303
    assert read_written(written) == REPLIES


async def test_an_edit_never_replaces_the_one_of_somebody_else_unseen(dashboard, written):
    assert (await dashboard.submit(PATH, **typed(4, "I am Oda, duck."), do="save 4"))[0] == 303
    # A page from before that edit, with the same reply and another one edited, and one struck out.
    late = typed(1, "Stew, duck.") | typed(4, "I am the innkeeper.") | typed(9, REPLIES[2].reply)
    status, page, _ = await dashboard.submit(PATH, **late, do="strike 9")
    assert status == 409 and "Somebody has changed it meanwhile, to: I am Oda, duck." in page
    assert "I am the innkeeper.</textarea>" in page, "what was typed is not lost"
    assert [reply.reply for reply in read_written(written)] == ["Stew, duck.", "I am Oda, duck."]
    # That page shows the other's edit, so pressing again replaces it on purpose.
    again = {"seen-4": "I am Oda, duck.", "reply-4": "I am the innkeeper."}
    assert (await dashboard.submit(PATH, **again, do="save 4"))[0] == 303
    assert read_written(written)[1].reply == "I am the innkeeper."


async def test_a_press_that_is_refused_loses_nothing_that_was_typed(dashboard, written):
    assert (await dashboard.submit(PATH, do="strike 4"))[0] == 303
    edited = typed(1, "Stew, duck.")
    status, page, _ = await dashboard.submit(f"{PATH}?first=0", **edited, do="strike 1")
    assert status == 409 and "These are the last replies" in page and "Stew, duck.</" in page
    assert [reply.reply for reply in read_written(written)] == ["Stew, duck.", REPLIES[2].reply]
    status, _, headers = await dashboard.submit(f"{PATH}?first=1", do="put-back 4")
    assert status == 303 and headers["Location"] == f"{PATH}?first=1#written-4"


async def test_a_file_that_was_changed_by_hand_loses_no_line_on_the_page(dashboard, written):
    copied = replace(REPLIES[0], reply="Stew, duck.")
    store_written(written, [*REPLIES, copied])
    assert (await dashboard.submit(PATH, **typed(4, "I am Oda."), do="save 4"))[0] == 303
    assert read_written(written)[2:] == [REPLIES[2], copied]
    line = json.dumps(asdict(REPLIES[0]) | {"reply": "\ud800 is half a character"})
    written.write_text(f"{line}\n")
    status, page, _ = await dashboard.page(PATH)
    assert status < 500 and "line 1 is no reply" in page


async def test_what_is_learned_from_already_cannot_be_changed(dashboard, written):
    (written.parents[1] / "checkpoints" / "checkpoint-40").mkdir(parents=True)
    _, page, _ = await dashboard.page(PATH)
    assert "They cannot be changed any more." in page and "<textarea" not in page
    assert (await dashboard.submit(PATH, **typed(1, "Stew."), do="save 1"))[0] == 409
    assert read_written(written) == REPLIES, "or the steps done so far would be lost"


async def test_the_page_says_from_which_training_replies_were_taken_over(dashboard, written):
    _, page, _ = await dashboard.page(PATH)
    assert "taken over" not in page
    summary = WrittenReplies(teacher="big", asked=12, kept=3, dropped={}, taken_from="j0")
    (written.parent / SUMMARY_FILE).write_text(summary.model_dump_json())
    _, page, _ = await dashboard.page(PATH)
    assert "They were taken over from an earlier training" in page
    assert '<a href="/dashboard/training/j0">The earlier training</a>' in page


async def test_a_training_that_is_cancelled_says_what_becomes_of_its_replies(dashboard):
    put_job(dashboard, "j1", from_card=1, recipe="card")
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    kept = {"material": "", "writing replies": "so far are kept", "training": "replies are kept"}
    for phase in kept:
        dashboard.backend.on_event(Phase(name=phase))
        lines = cancelled_writing_lines(dashboard.store.jobs.get("j1"))
        assert kept[phase] in "".join(lines) and len(lines) == (phase != "material")
    dashboard.backend.on_event(step(1))
    assert (await dashboard.submit("/dashboard/training/j1/cancel"))[0] == 303
    _, page, _ = await dashboard.page("/dashboard/training/j1")
    assert "with what was changed and struck out: the same training, started again, takes" in page


async def test_a_page_without_replies_and_a_damaged_file_say_so(dashboard, written):
    written.write_text("{", encoding="utf-8")
    status, page, _ = await dashboard.page(PATH)
    assert status >= 400 and "cannot be read" in page and str(dashboard.home) not in page
    written.unlink()
    _, page, _ = await dashboard.page(PATH)
    assert "Nothing is written yet." in page and "data-poll" not in page
    assert (await dashboard.page("/dashboard/training/none/written"))[0] == 404


async def test_the_time_until_replies_are_read_counts_no_reading(dashboard):
    put_job(dashboard, "j1", from_card=1, recipe="card", review=True)
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.on_event(Phase(name="writing replies", count=1, of=150, left_s=600))
    _, page, _ = await dashboard.page("/dashboard/training/j1")
    assert "The time does not include the reading: the training stops once the replies are" in page
    dashboard.backend.on_event(Phase(name="base model", left_s=600))
    _, page, _ = await dashboard.page("/dashboard/training/j1")
    assert "ready in about <b>10 min</b>" in page and "your reading" not in page


async def test_replies_are_read_while_they_are_written(dashboard):
    put_job(dashboard, "j1", from_card=1, recipe="card")
    _, page, _ = await dashboard.page(PATH)
    assert "Nothing is written yet." in page and "data-poll" in page
    dashboard.queue.start()
    await until(lambda: dashboard.backend.busy)
    dashboard.backend.on_event(Phase(name="writing replies", count=1, of=150))
    journal = written_file(folder_in(dashboard, "j1")).parent / ATTEMPTS_FILE
    journal.parent.mkdir(parents=True)
    lines = [{"teacher": "big"}, {"number": 1, "reply": asdict(REPLIES[0]), "faults": []}]
    lines += [{"number": 2, "reply": None, "faults": ["repeats"]}]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    journal.write_text(whole + '{"number": 4, "rep')  # while a line is written
    _, page, _ = await dashboard.page(PATH)
    assert "1 of 150 are written so far. The others are being written now" in page
    assert "Broth, duck." in page and "data-poll" in page and "<textarea" not in page
    assert (await dashboard.submit(PATH, **typed(1, "x"), do="save 1"))[0] == 409
    assert journal.read_text().startswith(whole), "the trainer alone writes to it"
    _, page, _ = await dashboard.page("/dashboard/training/j1")
    assert "writing replies, 1 of 150" in page
    dashboard.backend.finish(TrainingFailed("The disk is full.", "Free some.", can_resume=True))
    await until(lambda: dashboard.store.jobs.get("j1").state == "failed")
    _, page, _ = await dashboard.page(PATH)
    assert "Resume writes the others." in page and "Broth, duck." in page
    assert "data-poll" not in page and "<textarea" not in page
    journal.write_text(whole + "[]\n")
    status, page, _ = await dashboard.page(PATH)
    assert status >= 400 and "cannot be read" in page


async def test_the_form_asks_for_a_review(dashboard):
    path = "/dashboard/data/plan"
    fields = {"persona": "oda", "from_card": "1", "review": "yes", "start": "yes"}
    fields["recipe"] = "demo-cpu"
    assert (await dashboard.submit(path, **fields))[0] == 303
    (job,) = [*dashboard.store.jobs.in_state("queued"), *dashboard.store.jobs.in_state("running")]
    assert job.request.review is True and job.request.from_card == 1


async def test_the_card_is_one_of_the_things_to_learn_from(dashboard):
    path = "/dashboard/data/plan"
    _, page, _ = await dashboard.page(f"{path}?persona=oda&from_card=1")
    assert '<option value="from:card" selected>its card' in page
    page, _ = await plan_made(dashboard, persona="oda", dataset="from:card", recipe="demo-cpu")
    planned = dashboard.backend.plans[-1]
    assert planned.from_card == 1 and planned.dataset is None and "--from-card 1" in page
