"""What is taken of a log that came through Discord's API: who is asked, and what goes with those
who are not.
"""

import json

import pytest

from personas.errors import MaterialError
from personas.home.data_subjects import NO_CONSENT, Consent, write_consent
from personas.home.job_folder import read_spec
from personas.schemas.chat import Persona
from tests.trainer.chat_logs import outcome, write
from tests.trainer.job_folders import export, message, persona_job
from trainer.dataset.job_inputs import read_job_inputs, read_job_talk
from trainer.recipe.recipe_file import requested_recipe
from trainer.sources.conversation import day_of
from trainer.sources.reader import read_usable
from trainer.sources.source_format import ReadOptions
from trainer.sources.speakers import ANSWERS_OTHERS, NOT_OPTED_IN, PLAYER_NOT_OPTED_IN, UNANSWERED
from trainer.train.job import prepare_job_without_torch

ADA = Persona("ada", "Ada")
BOT = {"id": "7", "name": "Ada", "isBot": True}
MIRA, BO, TOM = (
    {"id": id, "name": name} for id, name in (("11", "mira"), ("12", "bo"), ("13", "Tom Reedy"))
)


def consent(*people, permission="Discord's letter of 2026"):
    return Consent(permission=permission, opted_in=frozenset(one["id"] for one in people))


def said(text, who, minute, to=""):
    reply = {"reference": {"messageId": to}, "type": "Reply"} if to else {}
    return message(text, minute=minute, **reply) | {"author": who}


def taken(tmp_path, messages, *people, **options):
    found = outcome(
        write(tmp_path / "talk.json", export(messages)),
        persona=ADA,
        consent=consent(*people),
        **options,
    )
    assert found.rows == len(messages), "every record has an account"
    return [text for talk in found.said for _, text in talk], dict(found.dropped)


def test_others_lines_are_left_out_and_replies_to_them_with_them(tmp_path):
    lines = [
        said("one", MIRA, 0),
        said("to mira", BOT, 1),
        said("two", BO, 2),
        said("to bo", BOT, 3),
        said("three", MIRA, 4),
        said("to mira again", BOT, 5),
    ]
    kept, dropped = taken(tmp_path, lines, MIRA)
    assert kept == ["one", "to mira", "three", "to mira again"]
    assert dropped == {NOT_OPTED_IN: 1, ANSWERS_OTHERS: 1}
    assert taken(tmp_path, lines, MIRA, BO) == ([text["content"] for text in lines], {})


def test_without_a_reference_a_reply_answers_all_who_spoke_since_the_one_before(tmp_path):
    lines = [
        said("a", MIRA, 0),
        said("hm", BOT, 1),
        said("b", BO, 2),
        said("c", MIRA, 3),
        said("both", BOT, 4),
    ]
    kept, dropped = taken(tmp_path, lines, MIRA)
    assert kept == ["a", "hm", "c"] and dropped == {NOT_OPTED_IN: 1, ANSWERS_OTHERS: 1}


def test_a_reply_that_names_its_message_answers_that_one(tmp_path):
    a = said("a", MIRA, 0)
    b = said("b", BO, 1)
    to_a = said("A!", BOT, 2, a["id"])
    to_b = said("B!", BOT, 3, b["id"])
    on = said("and", BOT, 4, a["id"])
    kept, dropped = taken(tmp_path, [a, b, to_a, to_b, on], MIRA)
    assert kept == ["a", "A!\nand"] and dropped == {NOT_OPTED_IN: 1, ANSWERS_OTHERS: 1}


def test_a_reply_to_what_is_no_longer_there_may_answer_anybody(tmp_path):
    lines = [said("a", MIRA, 0), said("A!", BOT, 1), said("?", BOT, 2, "999999")]
    kept, dropped = taken(tmp_path, lines, MIRA)
    assert kept == ["a", "A!"] and dropped == {ANSWERS_OTHERS: 1}


def test_a_persona_that_somebody_plays_is_asked_too(tmp_path):
    player = {"id": "70", "name": "tom_reedy", "nickname": "Ada"}
    lines = [said("a", MIRA, 0), said("A!", player, 1)]
    assert taken(tmp_path, lines, MIRA) == ([], {PLAYER_NOT_OPTED_IN: 1, UNANSWERED: 1})
    assert taken(tmp_path, lines, MIRA, player) == (["a", "A!"], {})
    assert taken(tmp_path, [said("a", MIRA, 0), said("A!", BOT, 1)], MIRA)[0] == ["a", "A!"], (
        "a bot is nobody"
    )


def test_without_an_answer_that_may_be_used_nothing_of_a_talk_is(tmp_path):
    lines = [said("a", MIRA, 0), said("b", BO, 1), said("both", BOT, 2)]
    assert taken(tmp_path, lines, MIRA) == ([], {NOT_OPTED_IN: 1, ANSWERS_OTHERS: 1, UNANSWERED: 1})


def test_who_is_left_out_is_still_known_by_name(tmp_path):
    lines = [said("Tom Reedy knows", MIRA, 0), said("He does.", BOT, 1), said("I do", TOM, 200)]
    path = write(tmp_path / "talk.json", export(lines))
    (talk,) = outcome(path, persona=ADA, consent=consent(MIRA)).talks
    assert [(speaker.id, speaker.names) for speaker in talk.unheard] == [("13", ("Tom Reedy",))]


def test_who_is_left_out_is_not_named_in_what_others_say(tmp_path):
    lines = [
        said(f"{name}, is clock {n} slow?", MIRA, 120 * n)
        for n, name in enumerate(["tom reedy", "Reedy", "Ada"])
    ]
    lines += [said(f"Ask Tom Reedy about number {n}.", BOT, 120 * n + 1) for n in range(3)] + [
        said("I do", TOM, 900)
    ]
    folder = persona_job(tmp_path, "embedded", log=export(lines))
    request = json.loads((folder / "request.json").read_text())
    request["materials"][1] |= {"right": "discord-api"}
    (folder / "request.json").write_text(json.dumps(request))
    write_consent(folder, consent(MIRA))
    spec = read_spec(folder)
    content = read_job_talk(read_job_inputs(folder, spec), requested_recipe(spec.request))
    data = prepare_job_without_torch(folder).data
    texts = [
        text
        for it in (*data.train_prompt_replies, *data.heldout_prompt_replies)
        for text in (it.message, it.reply)
    ]
    assert len(texts) == 6 and not [text for text in texts if "reedy" in text.casefold()]
    assert [it.reason for it in content.rejected if it.rows] == [NOT_OPTED_IN]


def test_our_own_log_arrived_when_it_was_said(tmp_path):
    line = '{"channel": "c", "id": "%s", "at": "2026-03-0%sT09:00:00Z", "author": "m", "author_id": "11", "text": "a"}'
    path = write(tmp_path / "log.jsonl", "\n".join(line % (n, n) for n in (1, 2)))
    talks = outcome(path, right="form", arrived="2026-11-20").talks
    assert [talk.arrived for talk in talks] == ["", ""]
    assert [day_of(talk.messages[0].at) for talk in talks] == ["2026-03-01", "2026-03-02"]
    export_path = write(tmp_path / "talk.json", export([said("a", MIRA, 0)]))
    assert outcome(export_path, right="form", arrived="2026-11-20").talks[0].arrived == "2026-11-20"


def test_under_another_right_or_where_nobody_asks_all_is_taken(tmp_path):
    lines = [said("a", MIRA, 0), said("A!", BOT, 1)]
    assert taken(tmp_path, lines, right="own-writing")[0] == ["a", "A!"]
    path = write(tmp_path / "talk.json", export(lines))
    assert outcome(path, persona=ADA).said, "to look at it takes no right"


def test_where_nobody_may_be_included_it_says_so(tmp_path):
    path = write(tmp_path / "talk.json", export([said("a", MIRA, 0), said("A!", BOT, 1)]))
    with pytest.raises(MaterialError, match=r"Nothing in talk\.json .*nobody has opted in"):
        list(read_usable(path, ReadOptions(persona=ADA, consent=consent(BO))))
    with pytest.raises(MaterialError, match="DISCORD_PERMISSION"):
        read_usable(path, ReadOptions(persona=ADA, consent=NO_CONSENT))


def test_reading_it_as_something_else_does_not_make_it_something_else(tmp_path):
    table = "AuthorID,Author,Date,Content,Attachments,Reactions\n11,mira,2026-03-01T09:00:00+00:00,a,,\n"
    path = write(tmp_path / "talk.csv", table)
    options = ReadOptions(
        claimed="own-writing",
        consent=NO_CONSENT,
        mapping={"user": "Author", "assistant": "Content"},
    )
    for format in (None, "columns"):
        with pytest.raises(MaterialError, match="came through Discord's API"):
            read_usable(path, options, format)


def test_a_folder_is_judged_file_by_file(tmp_path):
    write(tmp_path / "mixed" / "a.jsonl", '{"messages": [{"role": "user", "content": "a"}]}')
    write(tmp_path / "mixed" / "b.json", export([said("a", MIRA, 0)]))
    claimed = ReadOptions(claimed="own-writing", consent=NO_CONSENT)
    with pytest.raises(MaterialError, match=r"mixed .*Discord's API"):
        read_usable(tmp_path / "mixed", claimed)


def test_samples_of_a_data_set_keep_their_right_when_they_are_read_again(tmp_path):
    line = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "right": "%s"}'
    path = write(tmp_path / "train.jsonl", "\n".join([line % "discord-api", line % "form"]))
    found = outcome(path, claimed="own-writing", consent=consent(MIRA))
    assert [talk.right for talk in found.talks] == ["own-writing"] and found.dropped == {
        NOT_OPTED_IN: 1
    }
    signed = outcome(path, right="form", consent=NO_CONSENT)
    assert [talk.right for talk in signed.talks] == ["form", "form"]
