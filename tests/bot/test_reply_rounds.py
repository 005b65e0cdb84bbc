"""A message that calls several personas is answered by each, in turn, and once."""

import asyncio

import pytest

from bot.chat.chat_words import order_named
from bot.chat.message_reader import IncomingMessage
from bot.chat.places import ChannelRef
from bot.platform.db.database import MAX_TIMESTAMP_S
from bot.safety.actions import SelfHarmError
from personas.errors import EngineBusyError
from personas.schemas.chat import asked_turn
from tests.bot.conftest import INN, QUAY, on_stage
from tests.bot.set_settings import set_answering
from tests.fake_engine import FakeEngine
from tests.fakes import until

NAMES = {"ballast": "Ballast", "oda": "Oda Marrow", "thrip": "Sir Aurelio Thrip"}


def speaking(request):
    """Say who speaks, so that a line is known in the next prompt."""
    return [f"{request.persona.name} ", f"says: {asked_turn(request.turns).text}"]


@pytest.fixture
async def stage(tmp_path):
    async with on_stage(tmp_path, engine=FakeEngine(speaking)) as made:
        assign(made)
        yield made


def assign(stage, channel=QUAY, first="ballast"):
    others = [persona for persona in NAMES if persona != first]
    services = stage.client.services
    place = services.client.get_channel(int(stage.sandbox.channel(channel)["id"]))
    personas = [services.personas.get(persona, 0) for persona in (first, *others)]
    services.reply_service.assign(
        personas[0], place, answers="everything", user_id=1, further=personas[1:]
    )


def place(stage, channel=QUAY):
    return ChannelRef(int(stage.sandbox.guild_id), int(stage.sandbox.channel(channel)["id"]))


def replies(stage, channel=QUAY):
    """The finished replies of personas in a channel: who said them, and their first line."""
    said = []
    for message in stage.sandbox.messages(channel):
        if message.get("webhook_id") and "\n-# AI-written" in message["content"]:
            said.append((message["author"]["username"], message["content"].partition("\n")[0]))
    return said


async def ended(stage, count):
    """Wait until so many replies have ended, and no other one goes on."""
    await until(lambda: len(stage.store.messages._db.read(ENDED)) == count)
    await until(lambda: not stage.client.services.reply_service.unfinished._counts)
    assert not stage.store.replies.unfinished()


ENDED = "select 1 from replies where state not in ('waiting', 'streaming') and trigger_seq > 0"


async def why(stage, channel=QUAY):
    answer = await stage.moderator.slash(channel, "persona why")
    await until(lambda: (answer.message or {}).get("content"))
    return answer.message["content"].split("\n")[-1]


def requests(stage):
    return [request.persona.id for request in stage.engine.requests]


# ------------------------------------------------------------------------------------ who, in turn


async def test_each_that_is_named_answers_in_turn_and_sees_the_lines_before(stage):
    text = "Oda, what does Oda say, and THRIP, and Ballast?"
    order = ["oda", "thrip", "ballast"]
    before = len(stage.sandbox.messages(QUAY))
    await stage.member.say(QUAY, text)
    await ended(stage, len(order))
    heard = [(name, f"{name} says: {text}") for name in map(NAMES.get, order)]
    assert replies(stage) == heard and requests(stage) == order
    for number, request in enumerate(stage.engine.requests):
        asked, *others = request.turns[-1 - number :]
        assert asked.name == "Tobias Reed" and asked_turn(request.turns) is asked
        assert [(turn.name, turn.text) for turn in others] == heard[:number]
        assert not any(turn.by_persona for turn in others)
        ended_by = {name for name in NAMES.values() if name != request.persona.name}
        assert ended_by < {*request.sampling.speakers}, "also by those who have not spoken yet"
    assert len(stage.sandbox.messages(QUAY)) == before + 1 + len(order), "one round, and no more"
    assert [turn.text for turn in stage.engine.requests[0].turns] == [text]


async def test_the_one_replied_to_answers_first_and_no_line_of_a_persona_wakes_another(tmp_path):
    def naming(request):
        return [f"{request.persona.name}: ", "what do Oda, Thrip and Ballast say?"]

    async with on_stage(tmp_path, engine=FakeEngine(naming)) as stage:
        assign(stage)
        mark = stage.mark
        await stage.member.say(QUAY, "Oda?")
        reply = await stage.finished(QUAY, mark)
        await stage.member.say(QUAY, "and you, Thrip?", reply_to=reply)
        await ended(stage, 3)
        assert requests(stage) == ["oda", "oda", "thrip"]
        assert await why(stage) == (
            "-# Answered by Oda Marrow, then answered by Sir Aurelio Thrip: it replies to a message "
            "of the persona."
        )
        await stage.member.say(QUAY, "good night")
        await ended(stage, 4)
        assert requests(stage)[3:] == ["ballast"], "the default answers what calls nobody"


async def test_replies_at_once_have_each_their_own_face(stage):
    """Also the further messages of a long one, which come while another persona speaks."""
    stage.engine.script = lambda request: [f"{request.persona.name} ", *["word " * 60] * 15]
    names = ("Oda", "Thrip", "Ballast")
    for name in names * 2:
        await stage.member.say(QUAY, f"{name}?")
    await ended(stage, 6)
    faces = {name: set() for name in NAMES.values()}
    for message in stage.sandbox.messages(QUAY):
        if message.get("webhook_id"):
            faces[message["author"]["username"]].add(message["author"]["avatar"])
    assert [len(shown) for shown in faces.values()] == [1, 1, 1], faces
    assert len(set.union(*faces.values())) == 3


async def test_forms_ask_several_too(stage):
    mark = stage.mark
    await stage.member.say(QUAY, "Oda?")
    reply = await stage.finished(QUAY, mark)
    form = await stage.member.click(reply, "Reply")
    stage.engine.requests.clear()
    await stage.member.submit(form, text="and Thrip, who rows?")
    await ended(stage, 3)
    assert requests(stage) == ["oda", "thrip"]
    assert stage.engine.requests[1].turns[-1].name == "Oda Marrow"


def test_names_inside_longer_names_of_others_and_shared_ones_call_one():
    cat = (("oda",), ("oda's cat", "mother"), ("mother", "thrip"))
    assert order_named("Oda's Cat sleeps", cat) == [1]
    assert order_named("Oda's cat and Oda", cat) == [1, 0]
    assert order_named("Mother! And thrip.", cat) == [1, 2]
    assert order_named("nobody <@12> https://oda.example", cat) == []


# ------------------------------------------------------------ several lines, silence, limits, safety


async def test_several_lines_get_one_round(stage):
    here = place(stage)
    set_answering(stage.client.services, here.guild_id, here.channel_id, {"wait_s": 0.5})
    await stage.member.say(QUAY, "Oda and Thrip!")
    await until(lambda: stage.client.services.reply_service.line_waits._waits)
    await stage.member.say(QUAY, "is there soup?")
    await ended(stage, 2)
    assert requests(stage) == ["oda", "thrip"]
    for request in stage.engine.requests:
        assert asked_turn(request.turns).text == "is there soup?"
        assert "Oda and Thrip!" in [turn.text for turn in request.turns]


async def test_a_silenced_one_is_left_out_and_why_says_so(stage):
    await stage.moderator.slash(QUAY, "persona mute", persona="thrip")
    await stage.member.say(QUAY, "Thrip, Oda and Ballast?")
    await ended(stage, 2)
    assert requests(stage) == ["oda", "ballast"]
    assert await why(stage) == (
        "-# Answered by Oda Marrow, then answered by Ballast: it names the persona. A moderator has "
        "silenced Sir Aurelio Thrip here."
    )


async def test_one_that_is_silenced_while_it_waits_says_nothing(stage):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "Oda and Thrip?")
    await until(lambda: stage.engine.requests)
    await stage.moderator.slash(QUAY, "persona mute", persona="thrip")
    stage.engine.free.set()
    await ended(stage, 2)
    assert requests(stage) == ["oda"] and [name for name, _ in replies(stage)] == ["Oda Marrow"]


async def test_one_that_leaves_while_it_waits_says_nothing_and_one_that_has_begun_ends(stage):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "Oda, Thrip and Ballast?")
    await until(lambda: stage.engine.requests)
    await stage.moderator.slash(QUAY, "persona set", persona="thrip")
    stage.engine.free.set()
    await ended(stage, 3)
    assert requests(stage) == ["oda", "thrip"]
    assert [name for name, _ in replies(stage)] == ["Oda Marrow", "Sir Aurelio Thrip"]
    assert await why(stage) == (
        "-# Answered by Oda Marrow, then answered by Sir Aurelio Thrip: it names the persona. Ballast "
        "does not live here any more."
    )


async def test_one_that_leaves_while_the_queue_is_full_says_nothing(stage):
    submit = stage.engine.submit

    def submit_none_of_thrip(request):
        if request.persona.id == "thrip":
            raise EngineBusyError("The queue is full.", "Wait.", 0.05)
        return submit(request)

    stage.engine.submit = submit_none_of_thrip
    await stage.member.say(QUAY, "Oda and Thrip?")
    await until(lambda: replies(stage))
    await stage.moderator.slash(QUAY, "persona set", persona="oda")
    await ended(stage, 2)
    states = [reply.state for reply in stage.store.replies.of_round(round_of(stage))]
    assert states == ["done", "stopped"]


async def test_each_reply_counts_for_the_limit_of_the_member(stage):
    await stage.moderator.slash(QUAY, "moderation limits", per_day=2)
    await stage.member.say(QUAY, "Oda, Thrip and Ballast?")
    await ended(stage, 2)
    assert requests(stage) == ["oda", "thrip"]
    notice = await stage.sees("A member gets 2 replies here each day, so Ballast will not answer.")
    assert "Personas answer you again <t:" in notice["content"]
    assert "Ballast would be one reply more than" in await why(stage)
    await stage.member.say(QUAY, "Oda?")
    await until(lambda: remarks_on_limits(stage) == 2)
    await stage.moderator.say(QUAY, "Oda and Ballast?")
    await ended(stage, 4)
    texts = [message["content"] for message in stage.sandbox.messages(QUAY)]
    assert sum("Personas answer you again" in text for text in texts) == 1, "it is told once"


def remarks_on_limits(stage):
    """How many messages were remarked to be one reply too many."""
    noted = stage.client.services.decisions._channels[place(stage).channel_id].values()
    return sum("repl" in "".join(decision.remarks) for decision in noted)


async def test_a_command_tells_its_member_whom_the_limit_leaves_out(stage):
    await stage.moderator.slash(QUAY, "moderation limits", per_day=1)
    mark = stage.mark
    answer = await stage.member.slash(QUAY, "chat", message="Oda, Thrip and Ballast, who rows?")
    await ended(stage, 1)
    assert requests(stage) == ["oda"] and "who rows?" in answer.message["content"]
    told = await stage.sees("A member gets 1 reply here each day", "message", mark)
    assert "so Sir Aurelio Thrip and Ballast will not answer." in told["content"]
    assert told["flags"] & 64, "they alone see it"


async def test_a_line_to_another_persona_counts_while_a_reply_waits_for_lines(stage):
    here = place(stage)
    set_answering(stage.client.services, here.guild_id, here.channel_id, {"wait_s": 0.5})
    await stage.moderator.slash(QUAY, "moderation limits", per_day=1)
    await stage.member.say(QUAY, "Oda!")
    await until(lambda: stage.client.services.reply_service.line_waits._waits)
    await stage.member.say(QUAY, "is there soup?")
    mark = stage.mark
    await stage.member.say(QUAY, "Thrip?")
    await stage.sees("You have had the 1 reply", "message", mark)
    await ended(stage, 1)
    assert requests(stage) == ["oda"]


async def test_an_edit_to_words_of_self_harm_ends_the_round_and_gets_the_text(stage):
    stage.engine.free.clear()
    said = await stage.member.say(QUAY, "Oda and Thrip?")
    await until(lambda: stage.engine.requests)
    mark = stage.mark
    await stage.member.edit(said, "Oda and Thrip, I want to kill myself")
    helped = await stage.sees("**988**", "message", mark)
    assert helped["message_reference"]["message_id"] == said["id"]
    assert not stage.store.messages.is_of_member(int(said["id"]))
    stage.engine.free.set()
    await until(lambda: not stage.client.services.reply_service.unfinished._counts)
    assert requests(stage) == ["oda"] and not stage.store.replies.unfinished()


async def test_help_comes_before_the_failure_of_another_one_which_is_logged(stage, caplog):
    reply_service = stage.client.services.reply_service
    channel = stage.client.get_channel(place(stage).channel_id)
    personas = stage.client.services.personas_in(place(stage))[:2]
    message = IncomingMessage(1 << 60, int(stage.member.id), "Tobias Reed", "soup?")
    replies = reply_service.accept(message, personas, channel)
    first, second = replies.replies

    async def fail(retract):
        raise RuntimeError("the first one fails")

    async def refuse(submit):
        raise SelfHarmError("the fixed text")

    first.answer = fail
    second.answer_submitted = refuse
    with pytest.raises(SelfHarmError):
        await replies.answer()
    assert "the first one fails" in caplog.text and "the fixed text" not in caplog.text


# ----------------------------------------------------------- edits, deletions, stop, regenerate, busy


async def test_the_next_one_answers_the_message_as_it_is_edited_meanwhile(stage):
    stage.engine.free.clear()
    said = await stage.member.say(QUAY, "Oda and Thrip, soup?")
    await until(lambda: stage.engine.requests)
    await stage.member.edit(said, "Oda and Thrip, bread?")
    await until(lambda: stage.store.messages.text_of(int(said["id"])) == "Oda and Thrip, bread?")
    stage.engine.free.set()
    await ended(stage, 2)
    assert [asked_turn(request.turns).text for request in stage.engine.requests] == [
        "Oda and Thrip, soup?",
        "Oda and Thrip, bread?",
    ]


async def test_a_deleted_message_gets_no_further_reply(stage):
    stage.engine.free.clear()
    said = await stage.member.say(QUAY, "Oda and Thrip, soup?")
    await until(lambda: stage.engine.requests)
    await stage.member.delete(said)
    await until(lambda: stage.store.messages.is_deleted(int(said["id"])))
    stage.engine.free.set()
    await until(lambda: not stage.client.services.reply_service.unfinished._counts)
    assert requests(stage) == ["oda"] and not stage.store.replies.unfinished()


async def test_stop_ends_one_reply_and_the_next_goes_on(stage):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "Oda and Thrip, soup?")
    shown = await stage.sees("…", by="Oda Marrow")
    await stage.member.click(shown, "Stop")
    await until(lambda: len(stage.engine.requests) == 2)
    assert stage.engine.requests[1].turns[-1].text == "Oda Marrow "
    stage.engine.free.set()
    await ended(stage, 2)
    states = [reply.state for reply in stage.store.replies.of_round(round_of(stage))]
    assert states == ["stopped", "done"]
    await stage.member.context(QUAY, "Delete this reply", shown)
    await until(lambda: not stage.store.replies.get(round_of(stage)).parts)
    both = "-# Answered by Oda Marrow, then answered by Sir Aurelio Thrip: it names the persona."
    assert await why(stage) == both, "what was deleted afterwards was an answer, too"


def round_of(stage):
    """The event of the latest message of a member."""
    rows = stage.store.messages._db.read(
        "select max(discord_message_id) as id from messages where persona_id is null"
    )
    return rows[0]["id"]


async def test_each_can_be_made_again_in_its_place_and_deleted(stage):
    await stage.member.say(QUAY, "Oda and Thrip, soup?")
    await ended(stage, 2)
    oda, thrip = [one for one in stage.sandbox.messages(QUAY) if one.get("webhook_id")][-2:]
    await stage.member.click(thrip, "Regenerate")
    await until(lambda: len(stage.engine.requests) == 3)
    await ended(stage, 2)
    assert stage.engine.requests[2].turns == stage.engine.requests[1].turns
    await stage.member.click(oda, "Regenerate")
    await until(lambda: len(stage.engine.requests) == 4)
    await ended(stage, 2)
    assert stage.engine.requests[3].turns == stage.engine.requests[0].turns
    first, second = stage.store.replies.of_round(round_of(stage))
    await stage.member.click(oda, f"vote+1:{first.event_id}")
    votes = [stage.store.replies.votes(each.event_id).up for each in (first, second)]
    assert votes == [1, 0]
    await stage.member.context(QUAY, "Delete this reply", oda)
    await until(lambda: not stage.store.replies.get(first.event_id).parts)
    await stage.member.click(thrip, "Regenerate")
    await until(lambda: len(stage.engine.requests) == 5)
    await ended(stage, 2)
    assert asked_turn(stage.engine.requests[4].turns) is stage.engine.requests[4].turns[-1]


async def test_a_full_queue_refuses_the_round_at_once_and_a_next_one_waits_for_it(stage):
    stage.engine.full = True
    mark = stage.mark
    await stage.member.say(QUAY, "Oda and Thrip?")
    await stage.sees("replies are waiting already", "message", mark)
    await ended(stage, 2)
    assert {reply.state for reply in stage.store.replies.of_round(round_of(stage))} == {"failed"}
    stage.client.services.decisions._channels.clear()
    assert (await why(stage)).endswith(
        "without a reply: the reply of Oda Marrow failed; the reply of Sir Aurelio Thrip failed."
    )
    stage.engine.full = False
    stage.engine.busy_s = 0.05
    stage.engine.free.clear()
    await stage.member.say(QUAY, "Oda and Thrip, again?")
    await until(lambda: stage.engine.requests)
    stage.engine.full = True
    refused = stage.engine.refusals
    stage.engine.free.set()
    await until(lambda: stage.engine.refusals > refused + 1)
    stage.engine.full = False
    await ended(stage, 4)
    assert requests(stage) == ["oda", "thrip"]


async def test_a_member_has_only_so_many_replies_to_come(stage):
    stage.engine.free.clear()
    for number in range(2):
        await stage.member.say(QUAY, f"Oda, Thrip and Ballast, {number}?")
    await until(lambda: len(stage.engine.requests) == 2)
    with pytest.raises(EngineBusyError):
        stage.client.services.reply_service.unfinished.require_place(
            int(stage.member.id), place(stage).channel_id, 3
        )
    stage.engine.free.set()
    await ended(stage, 6)


# --------------------------------------------------------------------------------- kills and restarts


async def test_a_bot_that_ends_in_a_round_goes_on_with_it(tmp_path):
    def script(request):
        return [f"{request.persona.name} ", "says", " it"]

    async with on_stage(tmp_path, engine=FakeEngine(script)) as stage:
        assign(stage)
        stage.engine.free.clear()
        await stage.member.say(QUAY, "Thrip, Oda and Ballast?")
        await until(lambda: stage.engine.requests)
        stage.engine.free.set()  # the first one ends
        await until(lambda: len(stage.engine.requests) == 2)
        stage.engine.free.clear()
        event_id = round_of(stage)
        assert [one.persona_id for one in stage.store.replies.of_round(event_id)] == [
            "thrip",
            "oda",
            "ballast",
        ]
    async with on_stage(tmp_path, engine=FakeEngine(script)) as stage:
        await ended(stage, 3)
        names = [NAMES[persona] for persona in ("thrip", "oda", "ballast")]
        assert [name for name, _ in replies(stage)] == names
        last = stage.engine.requests[-1]
        assert last.persona.id == "ballast"
        assert [turn.name for turn in last.turns[-2:]] == names[:2]
        again = dict(stage.sandbox.messages(QUAY)[-4])
        stage.client._connection.parse_message_create(
            {**again, "guild_id": str(stage.sandbox.guild_id)}
        )
        await asyncio.sleep(0.1)
        await ended(stage, 3)
        assert len(replies(stage)) == 3


async def test_a_new_connection_leaves_a_round_alone(stage):
    stage.engine.free.clear()
    await stage.member.say(QUAY, "Thrip, Oda and Ballast?")
    await until(lambda: stage.engine.requests)
    async with asyncio.timeout(5):
        await asyncio.gather(stage.client.on_resumed(), stage.client.on_ready())
    assert len(stage.engine.requests) == 1
    stage.engine.free.set()
    await ended(stage, 3)
    assert requests(stage) == ["thrip", "oda", "ballast"]


async def test_a_new_connection_leaves_what_was_only_accepted_alone(stage):
    """While a notice is sent before the reply, or the events are held that came with it."""
    reply_service = stage.client.services.reply_service
    channel = stage.client.get_channel(place(stage).channel_id)
    personas = stage.client.services.personas_in(place(stage))[:2]
    message = IncomingMessage(1 << 60, int(stage.member.id), "Tobias Reed", "soup?")
    replies = reply_service.accept(message, personas, channel)
    await reply_service.recovery.resume_interrupted(stage.client)
    assert not stage.engine.requests
    await replies.answer()
    await ended(stage, 2)
    assert requests(stage) == [persona.id for persona in personas]


async def test_an_erased_member_leaves_nothing_of_a_round(stage):
    await stage.member.say(QUAY, "Thrip and Oda?")
    await ended(stage, 2)
    user_id = int(stage.member.id)
    assert len(stage.store.erasure.rows_of(user_id)["replies_to_you"]) == 2
    stage.engine.free.clear()
    await stage.member.say(QUAY, "Thrip and Oda, again?")
    await until(lambda: len(stage.engine.requests) == 3)
    stage.store.erasure.erase(user_id, MAX_TIMESTAMP_S, str)
    stage.engine.free.set()
    await until(lambda: not stage.client.services.reply_service.unfinished._counts)
    assert requests(stage) == ["thrip", "oda", "thrip"], "the next one says nothing"
    assert not stage.store.messages._db.read("select * from replies where first_event is not null")
    assert not stage.store.messages._db.read(f"select * from replies where asked_by = {user_id}")


async def test_a_proxys_copy_takes_the_place_of_a_round(stage):
    proxy = stage.sandbox.proxy_bot()
    line = await stage.member.say(QUAY, "W: Oda and Thrip, how deep is it?")
    await ended(stage, 2)
    proxy.copy(line, "Wren", "Oda and Thrip, how deep is it?")
    proxy.delete(line)
    await until(lambda: len(stage.engine.requests) == 4)
    await ended(stage, 2)
    heard = replies(stage)
    assert [name for name, _ in heard] == ["Oda Marrow", "Sir Aurelio Thrip"]
    assert all("W:" not in text for _, text in heard)


# ------------------------------------------------------------------------------------------- lists


async def test_settings_of_answers_stay_with_the_channel_and_are_told(stage):
    channel = place(stage, INN)
    set_answering(
        stage.client.services, channel.guild_id, channel.channel_id, {"quiet_hours": "22:00-07:00"}
    )
    answer = await stage.moderator.slash(INN, "persona clear")
    await until(lambda: "Quiet hours: 22:00-07:00" in (answer.message or {}).get("content", ""))
    answer = await stage.moderator.slash(INN, "persona set", persona="oda")
    await until(lambda: "Quiet hours: 22:00-07:00" in (answer.message or {}).get("content", ""))
