"""What a teacher's server gets of a training that a server's moderators start: card and lore, and nothing
of its members, whatever the home has of them.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiohttp import web

from bot.chat.store.quoted_messages import QuotedMessage
from bot.platform.clock import SystemClock
from bot.reports.store import Report
from bot.store import ConsentDecision, Lesson, Memory, Store, guild_suffix
from bot.training.backends.job_folder_backend import write_job_folder
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.member_names import MemberNames
from bot.training.queue import JobQueue
from bot.training.request_materials import gather_materials
from bot.training.store import NewTrainingJob
from personas.card.toml_card import read_card
from personas.home.data_subjects import Consent, write_consent
from personas.home.job_folder import read_spec
from personas.home.job_material import ShippedData
from personas.home.written_replies import (
    read_struck,
    read_written,
    store_written,
    struck_file,
    written_file,
)
from personas.schemas.training import Teacher, TrainingRequest
from tests.trainer.job_folders import dialogues, sign
from tests.trainer.lore_server import CARD, LORE
from tests.trainer.scripted_teacher import reply_about
from trainer.dataset.job_inputs import read_job_inputs
from trainer.dataset.synthetic import reply_backends
from trainer.teacher.writing_stage import ReviewNeededError, write_job_replies
from trainer.train.training_run import RunControl

GUILD = 910_000_000_000_000_001
ELSEWHERE = 910_000_000_000_000_009
WHO = 734_829_104_458_293_761
STRANGER = 734_829_104_458_293_999
QUOTED = 734_829_104_458_294_111
NAME = "Ottoline Quillverne"
STRANGERS_NAME = "Tamsin Wherrold"
QUOTED_NAME = "petronella_44"
ASKED = "Does the brass heron on Tallowmere Street number {} still turn its head at noon?"
ANSWERED = "I oiled heron number {} myself, and it is slow."
REMEMBERED = "The samphire recipe of Wexcombe needs no salt at all."
TAUGHT = "The wherry sails when the ostler of Pemberlow whistles twice."
GIVEN_ELSEWHERE = "The xandorel hangs in the third boathouse."
DOORS = f"""# The wharf

## The doors
{NAME} painted the doors of the tower green. <@{WHO}> has the key, as Ottoline said in {GUILD}.

## The visitors
Ada Marsh lets {STRANGERS_NAME} wind the clock on Sundays, and {QUOTED_NAME}'s cat sleeps on the bell.
"""
SECRETS = (
    str(WHO), str(STRANGER), str(QUOTED), str(GUILD), str(ELSEWHERE), "Ottoline", "Quillverne", "Tamsin",
    "Wherrold", "petronella", "heron", "Tallowmere", "samphire", "Wexcombe", "wherry", "Pemberlow", "xandorel",
    "boathouse",
)  # fmt: skip
ADA = f"ada{guild_suffix(GUILD)}"
PERMISSION = "By letter of Discord, 3 March 2026."
SMALL = {
    "written_replies": 12, "written_drafts": 1, "max_length": 400, "heldout_share": 0.25, "general_share": 0,
    "card_deadline_minutes": 0, "lore_share": 0,
}  # fmt: skip


@asynccontextmanager
async def recording():
    """A teacher's server that keeps every byte that reaches it."""
    heard = bytearray()

    async def answer(request):
        body = await request.read()
        heard.extend(f"{request.method} {request.raw_path}\n{dict(request.headers)}\n".encode())
        heard.extend(body + b"\n")
        form = "You ask of {words}. I think slowly. The {noun} {verb} by my {other}."
        message = {"role": "assistant", "content": reply_about(json.loads(body), form)}
        return web.json_response({"choices": [{"finish_reason": "stop", "message": message}]})

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{runner.addresses[0][1]}/v1", heard=heard)
    finally:
        await runner.cleanup()


def put(home, *names, text):
    path = home.joinpath(*map(str, names))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def fill(home, store):
    """Members' messages, memories, lessons and reports, and what moderators wrote in two servers."""
    for number in range(8):
        say(store, WHO, NAME, ASKED.format(number), ANSWERED.format(number), number)
    say(store, STRANGER, STRANGERS_NAME, "Who keeps the boathouse?", "Nobody.", 40, ELSEWHERE)
    quoted = QuotedMessage(
        message_id=77, channel_id=5, author_id=QUOTED, author_name=QUOTED_NAME, text="A heron!"
    )
    store.quoted.add(quoted, GUILD, 6.0)
    for who in (WHO, STRANGER):
        store.memories.add(Memory(GUILD, ADA, who, REMEMBERED, False, None, 5.0))
        store.lessons.add(Lesson(GUILD, ADA, who, True, "When?", TAUGHT, "", "form", 5.0))
    report = Report(0, GUILD, 5, 1001, 1000, ADA, None, "private", STRANGER, 5.0)
    store.reports.add(report)
    store.people.decide(ConsentDecision(WHO, True, 3.0, "en"))
    oil = f'description = "You keep the clock of the harbour. {NAME} brings you oil.'
    card = CARD.replace('description = "You keep the clock of the harbour.', oil)
    put(home, "personas", GUILD, ADA, "card.toml", text=card.replace('id = "ada"', f'id = "{ADA}"'))
    put(home, "lore", GUILD, ADA, "doors.md", text=DOORS)
    put(home, "lore", GUILD, ADA, "clock.md", text=LORE["ada/clock.md"])
    put(home, "lore", ELSEWHERE, ADA, "boats.md", text=f"# Boats\n\n## One\n{GIVEN_ELSEWHERE}\n")
    put(home, "lore", ELSEWHERE, "oda", "boats.md", text=f"# Boats\n\n## One\n{GIVEN_ELSEWHERE}\n")


def say(store, who, name, asked, answered, number, guild_id=GUILD):
    """Store a message of a member to Ada, and her reply."""
    place = {"guild_id": guild_id, "channel_id": 5, "at": 1000.0 + 9000 * number}
    event = 1000 + 2 * number
    seq = store.messages.append(
        author_id=who, author_name=name, text=asked, discord_message_id=event, **place
    )
    store.replies.begin(event, persona_id=ADA, asked_by=who, trigger_seq=seq, **place)
    store.replies.record_parts(event, [event + 1])
    store.replies.finish(event, "done")
    store.messages.append(
        author_id=0,
        author_name="Ada Marsh",
        text=answered,
        discord_message_id=event + 1,
        persona_id=ADA,
        **place,
    )


@pytest.fixture
def catalogue(tmp_path, tiny_base):
    """A home full of members, and a source tree without personas."""
    home = tmp_path / "home"
    shipped = ShippedData.from_source_tree()
    general = tmp_path / "general"
    general.mkdir()
    (general / "chat.jsonl").write_text(dialogues(3), encoding="utf-8")
    sign(general / "chat.jsonl")
    with Store.open(home / "understudy.sqlite") as store:
        fill(home, store)
        write_consent(home, Consent(permission=PERMISSION, opted_in=frozenset({str(WHO)})))
        yield DatasetCatalog(replace(shipped, general=general), tiny_base.source, home, store)


def make_folder(catalogue, url, persona=ADA, job_id="j1", guild_id=GUILD, **asked):
    """The folder of a job that moderators have started."""
    request = TrainingRequest(
        job_name="j",
        persona=persona,
        base_model=catalogue.base_model,
        recipe="card",
        hyperparameters=SMALL,
        teacher=Teacher(model="tester", url=url, licence="MIT") if url else None,
        **asked,
    )
    materials = gather_materials(catalogue, request, guild_id)
    jobs = catalogue.store.jobs
    job = jobs.add(NewTrainingJob(job_id, guild_id, 5, WHO, request), 10.0)
    earlier = jobs.ended_before(job)
    return write_job_folder(catalogue.home, job, materials, precision="float32", earlier=earlier)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{"from_card": 1}, {"from_card": 0.5, "dataset": "history"}])
async def test_card_and_lore_reach_the_server_and_nothing_of_a_member(
    catalogue, asked, monkeypatch
):
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)
    monkeypatch.setenv("UNDERSTUDY_HOME", str(catalogue.home))
    async with recording() as server:
        folder = make_folder(catalogue, server.url, **asked)
        await asyncio.to_thread(write_job_replies, folder, read_spec(folder), RunControl())
    sent = server.heard.decode()
    for written in ("brings you oil", "painted the doors of the tower green", "has eleven wheels"):
        assert written in sent, "card and lore are what the teacher writes from"
    assert "someone painted the doors of the tower green. someone has the key, as someone" in sent
    assert "Ada Marsh lets someone wind the clock" in sent and "someone's cat sleeps" in sent
    found = [secret for secret in SECRETS if secret.casefold() in sent.casefold()]
    assert not found
    assert str(catalogue.home) not in sent
    assert read_written(written_file(folder))


async def test_replies_are_trained_on_once_somebody_had_the_job_go_on_and_not_before(catalogue):
    """Not by a bot that was killed at the stop, and runs the job again."""
    store = catalogue.store
    backend = SubprocessBackend(
        catalogue.home,
        catalogue,
        SystemClock(),
        threads=1,
        nice=0,
        serving_precision="float32",
        environ={},
    )
    queue = JobQueue(store, backend, SystemClock())
    async with recording() as server:
        folder = make_folder(catalogue, server.url, from_card=1, review=True)

        async def run(**control):
            spec = read_spec(folder)
            await asyncio.to_thread(write_job_replies, folder, spec, RunControl(**control))

        for _ in range(2):
            with pytest.raises(ReviewNeededError) as stop:
                await run()
        asked = len(server.heard)
        claimed = store.jobs.claim(store.jobs.get("j1"), "token", 11.0)
        store.jobs.fail(claimed, "A fault.", "Mend it.", 12.0, can_resume=True)
        queue.resume("j1")
        with pytest.raises(ReviewNeededError):
            await run()
        claimed = store.jobs.claim(store.jobs.get("j1"), "token", 13.0)
        store.jobs.fail(claimed, stop.value.message, stop.value.advice, 14.0, can_resume=True)
        queue.resume("j1")
        await run()
        assert len(server.heard) == asked
        # Of replies that are written anew, nobody has read any; who runs the folder by hand has.
        written_file(folder).unlink()
        with pytest.raises(ReviewNeededError):
            await run(is_by_hand=True)
        await run(is_by_hand=True)


async def test_a_job_takes_over_what_a_cancelled_one_of_its_server_wrote_as_it_was_changed(
    catalogue, caplog
):
    jobs = catalogue.store.jobs
    async with recording() as server:

        async def run(job_id, guild_id=GUILD):
            folder = make_folder(catalogue, server.url, job_id=job_id, guild_id=guild_id, **asked)
            with pytest.raises(ReviewNeededError):
                await asyncio.to_thread(write_job_replies, folder, read_spec(folder), RunControl())
            return folder

        put(catalogue.home, "personas", 0, "ada", "card.toml", text=CARD)
        asked = {"from_card": 1, "review": True, "persona": "ada"}
        first = await run("j1")
        replies = read_written(written_file(first))
        edited = replace(replies[0], reply="Broth, duck.", by="edited")
        store_written(written_file(first), [edited, *replies[2:]])
        store_written(struck_file(first), replies[1:2])
        claimed = jobs.claim(jobs.get("j1"), "token", 11.0)
        jobs.fail(claimed, "A fault.", "Mend it.", 12.0, can_resume=True)
        another = replace(claimed, job_id="j2")
        assert jobs.ended_before(another) == [], "it can be resumed"
        jobs.expire("j1", "Start it again.")
        assert jobs.ended_before(another) == ["j1"] and jobs.ended_before(claimed) == []
        asked_once = len(server.heard)
        await run("elsewhere", ELSEWHERE)
        assert len(server.heard) == 2 * asked_once, "j1 is of another server"
        caplog.set_level("INFO")
        second = await run("j2")
        assert len(server.heard) == 2 * asked_once
    assert "of the job j1 are taken over" in caplog.text
    assert read_written(written_file(second)) == [edited, *replies[2:]]
    assert read_struck(second) == replies[1:2]


@pytest.mark.parametrize("named_in", ["card", "lore", "set"])
def test_what_the_operator_wrote_names_no_member_of_another_server(catalogue, named_in):
    home = catalogue.home
    who = "Xanthe Brambleford"
    persona = ADA if named_in == "set" else "ada"
    card = CARD.replace("the harbour.", f"the harbour for {who}.") if named_in == "card" else CARD
    put(home, "personas", 0, "ada", "card.toml", text=card)
    if named_in != "card":
        owner = "_oil" if named_in == "set" else "ada"
        put(home, "lore", 0, owner, "oil.md", text=f"# Oil\n\n{who} brings it.")
    put(home, "lore", GUILD, "sets.json", text=f'{{"{ADA}": {{"_oil": true}}}}')
    say(catalogue.store, 5, who, "Is it late?", "No.", 50, guild_id=ELSEWHERE)
    folder = make_folder(catalogue, "http://127.0.0.1:1/v1", from_card=1, persona=persona)
    inputs = read_job_inputs(folder, read_spec(folder))
    sent = f"{inputs.persona}{inputs.lore.passages if inputs.lore else ''}"
    assert "someone" in sent and "Xanthe" not in sent and "Brambleford" not in sent


def test_names_that_are_words_of_cards_and_lore_break_neither(catalogue):
    card = catalogue.home / "personas" / str(GUILD) / ADA / "card.toml"
    text = card.read_text(encoding="utf-8").replace(
        "{{user}}: is it late", "<START>\nUser: is it late"
    )
    card.write_text(f'tagline = "{NAME} rings."\n{text}', encoding="utf-8")
    rules = "<!-- lore\nkeys: bell\nmatch case: yes\n-->"
    bells = f"---\npersona: {ADA}\n---\n# Bells\n\n{rules}\n{NAME} rings.\n\n<!-- A note -->\n## Two\n\nLow."
    put(catalogue.home, "lore", GUILD, ADA, "bells.md", text=bells)
    words = (
        "mes_example",
        "tagline",
        "char",
        "User",
        "START",
        '"""',
        "---",
        "-->",
        "match case",
        ADA,
    )
    for number, word in enumerate(words):
        say(catalogue.store, STRANGER + 1 + number, word, "Hello?", "Hm.", 50 + number)
    folder = make_folder(catalogue, "http://127.0.0.1:1/v1", from_card=1)
    inputs = read_job_inputs(folder, read_spec(folder))
    before = read_card(card)
    assert inputs.persona.mes_example == before.mes_example
    assert inputs.persona.tagline == "someone rings."
    passages = [passage for passage in inputs.lore.passages if passage.source.endswith("bells.md")]
    assert [passage.text for passage in passages] == ["someone rings.", "Low."]
    assert passages[0].rules.keys == ("bell",) and passages[0].rules.match_case


def test_a_teacher_on_this_machine_gets_the_lore_as_it_is(catalogue):
    folder = make_folder(catalogue, "", from_card=1)
    doors = folder / "material" / "lore" / ADA / "doors.md"
    assert doors.read_text(encoding="utf-8") == DOORS


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("OTTOLINE QUILLVERNE sat.", "someone sat."),
        ("Ottoline's boat, and the Quillverne Arms", "someone's boat, and the Quillverne Arms"),
        ("the rose hedge of Rose", "the rose hedge of someone"),
        ("The castle is Will's; we will see.", "The castle is Will's; we will see."),
        ("Oda Marrow and Ada", "Oda Marrow and Ada"),
        ("Zoe\u0308 Vantongeren's", "someone's"),
        (f"<:wave:{WHO}> <#{GUILD}> <@!{STRANGER}>", f"<:wave:{WHO}> <#{GUILD}> someone"),
    ],
)
def test_whom_a_text_names(text, masked):
    people = [
        (1, NAME),
        (2, "Rose"),
        (3, "will"),
        (4, "Wren Castle"),
        (5, "Oda Marrow"),
        (6, "Ada"),
        (7, "Zo\xeb Vantongeren"),
    ]
    assert MemberNames(people, {"Ada Marsh", "Oda Marrow"}).masked(text) == masked
