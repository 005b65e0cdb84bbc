"""`/persona create`: a persona from a form, its channel, its one greeting, and the next steps."""

import asyncio
import time

import discord
import pytest

from bot.chat.reply_service import ReplyService
from bot.personas import discord_create, registry
from bot.personas.creation import MAX_PICTURE_BYTES, CardFile, PersonaForm
from bot.personas.web.new_persona import describe_check
from bot.platform.discord_kit import refused_forms
from bot.platform.errors import RefusedError
from bot.platform.request_origin import RequestOrigin
from bot.training.backend_protocol import TrainingFailed
from bot.training.discord_start import TrainFromCardButton
from bot.training.request_materials import NoChatLogError
from bot.training.teacher_text import BUNDLED_MODEL_TEXT
from personas.card.card_picture import with_picture
from personas.card.card_reader import parse_card
from personas.card.card_writer import write_card
from personas.home.trash import KEPT_S
from personas.home.written_replies import REVIEW_ADVICE
from personas.schemas.training_events import Phase
from sandbox.message_components import all_components
from sandbox.object_store import StoredFile
from sandbox.validation import FILE_UPLOAD
from tests.bot.conftest import OFFICE
from tests.bot.test_card_commands import removed
from tests.bot.version_rows import install
from tests.fakes import until
from tests.personas.cards import PIXEL, V1, V2, as_json, brought_in
from tests.personas.test_other_cards import PLAIN_TEXTS, PYGMALION, YAML, picture

MARLOW = {
    "name": "Marlow Finch",
    "description": "A retired lighthouse keeper who repairs clocks and misses the fog.",
    "speech": "Slowly, and never without a word about the weather.",
    "mes_example": "You: How was your day?\nMarlow: Long. The tide was late.\n\n"
    "You: Can you come on Monday?\nNever on Mondays.",
    "first_mes": "Mind the step, {{user}}. It was a ladder once.",
}
LONG_TEXT = "雾号" * 1400


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mira.yml", YAML),
        ("mira.json", as_json(PYGMALION)),
        ("mira.json", as_json(V1)),
        ("mira.png", picture(*PLAIN_TEXTS)),
    ],
)
def test_a_card_with_any_field_names_fills_the_form(name, content):
    form = PersonaForm().filled_from(CardFile(name, content).card())
    assert (form.name, form.first_mes) == ("Mira", "You found the stairs.")
    assert form.mes_example == "You: evening\nMira: Mind the step."


async def opened(stage, member=None, **options):
    answer = await (member or stage.moderator).slash(OFFICE, "persona create", **options)
    await until(lambda: answer.modal is not None or answer.message)
    return answer


async def said(answer, words):
    try:
        await until(lambda: words in answer.text)
    except TimeoutError:
        raise AssertionError((words, answer.message)) from None
    assert answer.ephemeral
    return answer.message


async def created(stage, fields=MARLOW, words="is a persona of this server", **options):
    answer = await stage.moderator.submit(await opened(stage, **options), **fields)
    return await said(answer, words)


def labels(message):
    return [part["label"] for part in all_components(message["components"]) if "label" in part]


def styles(message):
    parts = all_components(message["components"])
    return {part["label"]: part["style"] for part in parts if "label" in part}


def typed_in(answer):
    fields = [row["component"] for row in answer.modal["components"]]
    return {field["custom_id"]: field.get("value", "") for field in fields}


def guild_id(stage):
    return int(stage.sandbox.guild_id)


def find(stage, name):
    return stage.client.services.personas.find(name, guild_id(stage))


async def greetings(stage, by):
    room = stage.sandbox.channel(OFFICE)["id"]
    messages = [event for kind, event in stage.sandbox.events if kind == "message"]
    own = [message for message in messages if message["author"]["username"] == by]
    return [message["content"] for message in own if message["channel_id"] == room]


async def test_a_form_makes_a_persona_that_greets_once_and_says_what_next(stage, tmp_path):
    form = await opened(stage)
    rows = form.modal["components"]
    assert [row["label"] for row in rows][:2] == ["Name", "Who are they?"] and len(rows) == 5
    message = await said(
        await stage.moderator.submit(form, **MARLOW), "**Marlow Finch** (`marlow-finch`) is"
    )
    assert labels(message) == [f"Use it in #{OFFICE}", "Edit", "Picture or card"]
    assert "They have 2 examples of how they talk." in message["content"]
    assert "“Never on Mondays.” names nobody, and counts as an answer" in message["content"]
    assert f"Press **Use it in #{OFFICE}**: they say their first line" in message["content"]
    assert "token" not in message["content"]
    persona = find(stage, "marlow-finch")
    assert persona.system_prompt == "You are {{char}}."
    assert "{{user}}: How was your day?\n{{char}}: Long." in persona.mes_example
    assert persona.mes_example.count("<START>") == 2 and "Never on Mondays." in persona.mes_example
    mark = stage.mark
    await asyncio.gather(*(stage.moderator.click(message, f"Use it in #{OFFICE}") for _ in "ab"))
    await stage.sees("Mind the step, Mina Vale.", by="Marlow Finch", since=mark)
    steps = await stage.sees("**What next?**", since=mark)
    assert "3. **Train them** on replies that a model writes from their card" in steps["content"]
    assert labels(steps) == [
        "Talk to them", "Add lore", "Edit, add examples", "Train them", "Picture or card"
    ]  # fmt: skip
    talk = await stage.moderator.click(steps, "Talk to them")
    mark = stage.mark
    await stage.moderator.submit(talk, text="Good evening")
    assert (await stage.finished(OFFICE, mark))["author"]["username"] == "Marlow Finch"
    assert len([text for text in await greetings(stage, "Marlow Finch") if "step" in text]) == 1
    early = await stage.moderator.click(steps, "Train them")
    too_early = await said(early, "`/finetune start persona:marlow-finch from:card`")
    assert "lore_pairs" not in too_early["content"] and labels(too_early) == [
        "Train from the card",
        "Let me read the replies first",
        "Add lore",
    ]
    lore = await stage.moderator.click(too_early, "Add lore")
    answer = await stage.moderator.submit(lore, title="Tallow", text="Marlow feeds Tallow at six.")
    await said(answer, "Marlow Finch knows `tallow.md` now")
    train = await stage.moderator.click(steps, "Train them")
    await said(
        train,
        "its lore alone (it has 1 file; two texts at least): `/finetune start "
        "persona:marlow-finch lore_pairs:1`",
    )
    await removed(stage, "marlow-finch")
    assert find(stage, "marlow-finch") is None and not list(tmp_path.glob("lore/*/*/*.md"))
    assert (
        stage.store.channels.get(guild_id(stage), int(stage.sandbox.channel(OFFICE)["id"])) is None
    )
    assert stage.store.people.contributions(), "it can be brought back"
    await stage.client.services.removal.empty_trash(time.time() + KEPT_S + 60)
    assert not stage.store.people.contributions()


async def test_a_removed_persona_takes_its_trainings_along(stage):
    await stage.moderator.slash(OFFICE, "finetune start", persona="thrip")
    await until(lambda: stage.backend.busy)
    await created(stage, MARLOW)
    await stage.moderator.slash(OFFICE, "finetune start", persona="marlow-finch")
    await until(lambda: stage.store.jobs.in_state("queued"))
    refused = await stage.moderator.slash(OFFICE, "persona remove", persona="thrip")
    await said(refused, "came with the bot")
    mark = stage.mark
    gone = await removed(stage, "marlow-finch")
    assert gone["content"].endswith("Its training is cancelled.")
    await stage.sees("Cancelled: **marlow-finch v1**", since=mark)
    assert not stage.store.jobs.in_state("queued")
    assert [job.persona for job in stage.store.jobs.in_state("running")] == ["thrip"]


async def test_a_persona_of_a_card_alone_is_trained_by_a_button_as_by_the_command(stage):
    """Its first answer says what is to be expected."""
    form = await opened(stage, use_here=True)
    mark = stage.mark
    await stage.moderator.submit(form, **MARLOW)
    steps = await stage.sees("**What next?**", since=mark)
    way = await said(
        await stage.moderator.click(steps, "Train them"), "press **Train from the card"
    )
    assert BUNDLED_MODEL_TEXT in way["content"] and "`TEACHER`" in way["content"]
    assert TrainFromCardButton.moderators_only, "as the command"
    answer = await stage.moderator.click(way, "Train from the card")
    message = await said(answer, "with the recipe `card`")
    await until(lambda: stage.backend.busy)
    request = stage.backend.runs[0].request
    assert (request.persona, request.from_card) == (find(stage, "marlow-finch").id, 1)
    assert labels(message) == ["Cancel"] and BUNDLED_MODEL_TEXT in answer.text
    again = await stage.moderator.click(way, "Train from the card")
    await until(lambda: again.message and not again.message["flags"] & 128)
    assert "Queued" not in again.text and len(stage.backend.runs) == 1


async def test_a_training_without_anything_to_learn_from_offers_the_ways_as_buttons(stage):
    await created(stage, {**MARLOW, "name": "Marlow _Finch_"})
    stage.backend.refusal = NoChatLogError("There is no log.")
    for command in ("finetune preview", "finetune start"):
        answer = await stage.moderator.slash(OFFICE, command, persona="marlow-finch")
        way = await said(answer, r"Marlow \_Finch\_ has no chat log to learn from yet.")
        assert "press **Train from the card**" in way["content"] and not stage.backend.runs
        assert labels(way) == ["Train from the card", "Let me read the replies first", "Add lore"]
    stage.backend.refusal = None
    await stage.moderator.click(way, "Train from the card")
    await until(lambda: stage.backend.busy)
    assert stage.backend.runs[0].request.from_card == 1


async def test_a_channel_of_another_persona_is_not_the_first_thing_to_take(stage):
    """A press on the button that stands out evicts nobody; another channel is named as a way."""
    first = await created(stage)
    assert styles(first) == {f"Use it in #{OFFICE}": 1, "Edit": 2, "Picture or card": 2}
    assert "another channel" not in first["content"]
    await stage.moderator.click(first, f"Use it in #{OFFICE}")
    await stage.sees("**What next?**")
    second = await created(stage, {**MARLOW, "name": "Bold **md** _x_", "mes_example": ""})
    assert styles(second) == {
        f"Use it in #{OFFICE}, in place of Marlow Finch": 2, "Edit": 2, "Picture or card": 2
    }  # fmt: skip
    assert "another channel: type `/persona set persona:bold-md-x` there." in second["content"]
    assert r"**Bold \*\*md\*\* \_x\_** (`bold-md-x`) is a persona" in second["content"]
    assert find(stage, "bold-md-x").name == "Bold **md** _x_"


async def test_replies_are_read_before_the_training_and_a_cancelled_one_starts_again(stage):
    form = await opened(stage, use_here=True)
    mark = stage.mark
    await stage.moderator.submit(form, **MARLOW)
    steps = await stage.sees("**What next?**", since=mark)
    way = await said(await stage.moderator.click(steps, "Train them"), "stops in between")
    mark = stage.mark
    await stage.moderator.click(way, "Let me read the replies first")
    await until(lambda: stage.backend.busy)
    request = stage.backend.runs[0].request
    assert (request.from_card, request.review) == (1, True)
    stage.backend.on_event(Phase(name="base model", left_s=700))
    read = await stage.sees("loading the base model · ready in about 12 min", since=mark)
    assert "your reading" not in read["content"]
    stage.backend.on_event(Phase(name="writing replies", count=57, of=150, left_s=600))
    await stage.sees("Training: **Marlow Finch v1**", since=mark)
    progress = await stage.sees("writing replies, 57 of 150 · ready in about 10 min", since=mark)
    assert "-# The time does not include the reading: the training stops" in progress["content"]
    stage.backend.finish(TrainingFailed("150 are written.", REVIEW_ADVICE, can_resume=True))
    stopped = await stage.sees("The replies are written: **Marlow Finch v1**", since=mark)
    assert "under **Written replies**" in stopped["content"] and "Failed" not in stopped["content"]
    assert labels(stopped) == ["Resume"]
    [choice] = await stage.moderator.autocomplete(OFFICE, "finetune resume", "job", job="")
    assert choice["name"].startswith("Marlow Finch v1 · waits to be read · ")
    mark = stage.mark
    await stage.moderator.click(stopped, "Resume")
    await until(lambda: len(stage.backend.runs) == 2)
    (job,) = stage.store.jobs.in_state("running")
    stage.client.services.trainings.cancel(job.job_id)
    cancelled = await stage.sees("Cancelled: **Marlow Finch v1**", since=mark)
    assert "replies written so far are kept" in cancelled["content"]
    assert labels(cancelled) == ["Start it again", "Repeat with changes"]
    await stage.moderator.click(cancelled, "Start it again")
    await until(lambda: len(stage.backend.runs) == 3)
    again = stage.backend.runs[2].request
    assert again.review and again.model_copy(update={"job_name": request.job_name}) == request
    mark = stage.mark
    stage.backend.finish(TrainingFailed("big wrote too few usable replies.", "Name a larger one."))
    failed = await stage.sees("Failed: **Marlow Finch v", since=mark)
    assert labels(failed) == ["Start it again", "Repeat with changes"], (
        "with another teacher, which is no resumption"
    )
    mark = stage.mark
    await stage.moderator.click(failed, "Start it again")
    await until(lambda: len(stage.backend.runs) == 4)
    stage.backend.finish(TrainingFailed("The server is away.", "Wait for it.", can_resume=True))
    away = await stage.sees("Failed: **Marlow Finch v", since=mark)
    assert labels(away) == ["Resume", "Start it again", "Repeat with changes"]


async def test_a_refused_form_opens_again_with_what_was_typed(stage, monkeypatch):
    fields = {**MARLOW, "name": "oda marrow", "mes_example": "You: Why?"}
    refused = await created(
        stage,
        fields,
        "**Name:** There is a persona Oda Marrow already.",
        picture=StoredFile.named("face.png", PIXEL),
    )
    assert "**Examples:** “Why?” has no answer." in refused["content"]
    assert labels(refused) == ["Try again"]
    stage.client.services.form_files.clear()  # as after a restart
    with monkeypatch.context() as slow:
        slow.setattr(refused_forms, "READ_TIMEOUT_S", 0)
        late = await stage.moderator.click(refused, "Try again")
    assert late.modal is None, "an empty form would lose what was typed"
    await said(late, "Discord does not deliver what you typed.")
    again = await stage.moderator.click(refused, "Try again")
    assert typed_in(again) == fields
    mark = stage.mark
    await stage.moderator.submit(again, **{**fields, "name": "Marlow", "mes_example": ""})
    message = await stage.sees("**Marlow** (`marlow`) is a persona", since=mark)
    assert message["id"] == refused["id"] and not message["attachments"]
    assert find(stage, "marlow").avatar.read_bytes() == PIXEL


async def test_no_persona_is_called_as_the_bot_is_in_its_server(stage):
    """The bot's nickname is a persona's where it wears its face; that persona may be renamed."""

    async def rename_bot(nick):
        container = stage.sandbox._container
        member = container.guild.change_bot(nick=nick)
        container.gateway.dispatch("GUILD_MEMBER_UPDATE", member | {"guild_id": container.guild.id})
        await until(lambda: stage.client.guilds[0].me.nick == nick)

    await rename_bot("Mother")
    form = await opened(stage)
    answer = await stage.moderator.submit(form, **{**MARLOW, "name": "mother"})
    await said(answer, "**Name:** The bot itself is called “mother” here, and nobody could tell")
    await rename_bot(None)
    message = await created(stage, {**MARLOW, "name": "mother"})
    await stage.moderator.slash(OFFICE, "persona face", persona="mother")
    await until(lambda: stage.client.guilds[0].me.nick == "mother")
    edit = await stage.moderator.click(message, "Edit")
    mark = stage.mark
    await stage.moderator.submit(edit, **{**typed_in(edit), "name": "Mother"})
    await stage.sees("speaks by this card from the next reply on", since=mark)
    assert find(stage, "mother").name == "Mother"


async def test_a_refusal_shows_a_name_and_an_example_as_they_were_typed(stage):
    """On Discord and on a page, whose texts are no Markdown."""
    await created(stage, {**MARLOW, "name": "Marlow *Finch*"})
    again = {**MARLOW, "name": "marlow *finch*", "mes_example": "You: *hello*"}
    refused = await stage.moderator.submit(await opened(stage), **again)
    told = await said(refused, r"There is a persona Marlow \*Finch\* already.")
    assert r"“\*hello\*” has no answer." in told["content"]
    form = PersonaForm(**{**again, "speech": ""})
    check = await stage.client.services.creation.check(guild_id(stage), form)
    wrong = describe_check(check, stage.client.services).wrong
    assert "There is a persona Marlow *Finch* already." in wrong["name"]
    assert "“*hello*” has no answer." in wrong["mes_example"]
    translated = check.wrong["mes_example"].in_language("de")
    assert translated.startswith(r"Auf „\*hello\*“")


async def test_a_card_that_is_read_slowly_leaves_the_form_empty_and_holds_nobody_up(
    stage, monkeypatch
):
    read = CardFile.card

    def read_slowly(file):
        time.sleep(1)
        return read(file)

    mira = StoredFile.named("mira.json", as_json(V2))
    assert typed_in(await opened(stage, picture=mira))["name"] == "Mira"
    monkeypatch.setattr(CardFile, "card", read_slowly)
    monkeypatch.setattr(discord_create, "READ_TIMEOUT_S", 0.5)
    assert typed_in(await opened(stage, picture=mira))["name"] == ""


async def test_a_form_whose_card_a_restart_lost_says_that_its_long_texts_are_missing(stage):
    file, _ = long_card()
    form = await opened(stage, picture=file)
    stage.client.services.form_files.clear()  # as after a restart
    short = {"name": "Mira", "description": "She keeps the lighthouse."}
    taken = await stage.moderator.submit(form, **{**typed_in(form), **short})
    message = await said(taken, "**Mira** (`mira`) is a persona of this server")
    assert "what was left empty is missing." in message["content"]
    assert find(stage, "mira").first_mes == ""


async def test_what_a_form_refuses_and_takes(stage):
    for change, words in (
        ({"name": "Clyde the third"}, "Discord allows no names"),
        ({"name": "\u202e\u200b"}, "at least one visible character"),
        ({"name": "World"}, "This name is reserved. Choose another name."),
        ({"name": "@everyone"}, "This name is reserved. Choose another name."),
        ({"name": "Ballast"}, "There is a persona Ballast already."),
        (
            {"name": " YOU "},
            "**Name:** Many messages have “YOU”, whoever they are for. Choose another",
        ),
        ({"name": "bạn"}, "Many messages have “bạn”"),
        ({"name": " UNDERSTUDY "}, "The bot itself is called"),
        ({"name": "Ùnderstudy!"}, "The bot itself is called"),
        ({"name": " ODA MARROW "}, "There is a persona Oda"),
        ({"description": LONG_TEXT}, "tokens of every prompt; at most"),
        (
            {"mes_example": "How are you?\nFine thanks."},
            "**Examples:** “How are you?” has no “You: …” before it. Write what somebody says, "
            "“You: …”, and on the next line the answer, “Marlow Finch: …”.",
        ),
        ({"mes_example": "Marlow: hello"}, "“hello” has no “You: …” before it."),
        ({"mes_example": "You: *hello*"}, r"“\*hello\*” has no answer."),
        (
            {"mes_example": "You: Hi\nMarlow: Ahoy.\n\nAnd more."},
            "“And more.” has no “You: …” before it.",
        ),
    ):
        refused = await created(stage, {**MARLOW, **change}, words)
        assert labels(refused) == ["Try again"]
    names = ["🦀", "المنارة", "李白", "Zoë", "Anna!", "Anna?", "A" * 80]
    for name in names:
        await created(stage, {**MARLOW, "name": name})
    own = stage.client.services.personas.of(guild_id(stage))
    assert {persona.name for persona in own.values()} >= set(names)
    assert len({find(stage, name).id for name in names}) == len(names)


async def test_no_form_opens_where_a_persona_would_be_stored_in_vain(stage, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(discord_create, "GuildChannel", discord.VoiceChannel)
        answer = await opened(stage)
        await said(answer, "Personas live in text channels, the chats of voice channels,")
        assert answer.modal is None
    await created(stage)
    monkeypatch.setattr(registry, "MAX_GUILD_PERSONAS", 1)
    answer = await opened(stage)
    await said(answer, "personas of its own. Remove one: `/persona remove`.")
    assert answer.modal is None


async def test_only_the_servers_own_personas_are_offered_for_removal_each_recognisable(stage):
    await created(stage)
    for name in ("Marlow Finch", "Twin"):  # the operator's, which came later
        card = parse_card(as_json({**V2, "data": {**V2["data"], "name": name}}), "it")
        brought_in(stage.client.services.personas, 0, card)

    async def offered(command):
        choices = await stage.moderator.autocomplete(OFFICE, command, "persona", persona="")
        return [choice["name"] for choice in choices]

    assert await offered("persona remove") == ["Marlow Finch"]
    names = await offered("persona set")
    assert "Twin" in names and sum("Marlow Finch (" in name for name in names) == 2
    assert len(set(names)) == len(names)


async def test_a_greeting_that_discord_refuses_costs_no_next_steps(stage, monkeypatch):
    async def refused(*_):
        raise RefusedError("There is no webhook here.")

    monkeypatch.setattr(ReplyService, "greet", refused)
    form = await opened(stage, use_here=True)
    mark = stage.mark
    await stage.moderator.submit(form, **MARLOW)
    steps = await stage.sees("**What next?**", since=mark)
    assert "Talk to them" in labels(steps)
    await stage.sees("There is no webhook here.", since=mark)


async def test_only_moderators_create_and_a_card_fills_in_the_form(stage, tmp_path):
    for answer in (
        await opened(stage, member=stage.member),
        await stage.moderator.slash((await stage.moderator.dm())["id"], "persona create"),
    ):
        assert answer.modal is None and answer.message
    mira = write_card(with_picture(parse_card(as_json(V2), "it"), PIXEL, "it"), "png", "it").content
    form = await opened(stage, picture=StoredFile.named("mira.png", mira), use_here=True)
    typed = typed_in(form)
    assert typed["name"] == "Mira"
    mark = stage.mark
    answer = await stage.moderator.submit(form, **{**typed, "name": "Mira of the Stairs"})
    message = await said(answer, "**Mira of the Stairs** lives here now")
    assert "lore now (1 passage)" in message["content"] and "**What next?**" in message["content"]
    await stage.sees("You found the stairs", by="Mira of the Stairs", since=mark)
    persona = find(stage, "Mira of the Stairs")
    assert persona.avatar.read_bytes() == PIXEL
    edit = await stage.moderator.click(message, "Edit, add examples")
    typed = typed_in(edit)
    mark = stage.mark
    await stage.moderator.submit(edit, **{**typed, "speech": "In riddles."})
    await stage.sees("speaks by this card from the next reply on", since=mark)
    edited = find(stage, "Mira of the Stairs")
    assert edited.speech == "In riddles." and edited.mes_example == persona.mes_example
    assert edited.avatar.read_bytes() == PIXEL and edited.scenario == persona.scenario


async def sent_file(stage, message, *files, button="Picture or card"):
    """The answer to a form of a file, which shows it alone."""
    form = await stage.moderator.click(message, button)
    (row,) = form.modal["components"]
    assert row["component"]["type"] == FILE_UPLOAD
    row["component"] |= {"max_values": 5, "required": False}  # as by a client of its own
    answer = await stage.moderator.submit(form, file=list(files))
    await until(lambda: answer.text)
    assert answer.ephemeral
    return answer


async def test_a_persona_gets_a_picture_by_a_form_that_takes_a_file(stage):
    office = stage.sandbox.channel(OFFICE)["id"]
    await stage.moderator.slash(OFFICE, "moderation audit", channel=office)
    message = await created(stage)
    before = stage.client.services.personas.table(find(stage, "marlow-finch").id)
    assert find(stage, "marlow-finch").avatar is None
    face = StoredFile.named("face.png", PIXEL)
    refused = None
    for files, words in (
        ([StoredFile.named("a.png", b"size = none")], "a.png is not a picture. Choose a PNG, JPEG"),
        ([face, face], "The form has no file, or several. Choose one file."),
        ([], "The form has no file, or several. Choose one file."),
        ([StoredFile.named("b.png", bytes(MAX_PICTURE_BYTES + 1))], "b.png has more than 8 MB."),
    ):
        refused = await sent_file(stage, message, *files)
        assert words in refused.text and labels(refused.message) == ["Try again"]
    assert find(stage, "marlow-finch").avatar is None
    mark = stage.mark
    answer = await sent_file(stage, refused.message, face, button="Try again")
    assert answer.text == "**Marlow Finch** has this picture from the next reply on."
    persona = find(stage, "marlow-finch")
    assert persona.avatar.read_bytes() == PIXEL
    after = stage.client.services.personas.table(persona.id)
    assert after.pop("avatar") and after == before
    assert persona.mes_example.count("<START>") == 2
    await stage.sees("changed the picture of **Marlow Finch**.", since=mark)
    same = await sent_file(stage, message, face)
    assert same.text == "**Marlow Finch** has this picture already."
    assert labels(message) == [f"Use it in #{OFFICE}", "Edit", "Picture or card"]
    ballast = stage.client.services.personas.get("ballast", 0)
    origin = RequestOrigin(guild_id=guild_id(stage), channel_id=1, user_id=5)
    with pytest.raises(RefusedError, match="Ballast does not belong to this server"):
        await stage.client.services.creation.add_file(origin, ballast, CardFile("a", PIXEL))


async def test_a_card_by_a_form_fills_in_what_is_empty_and_changes_nothing_else(stage):
    message = await created(stage, {**MARLOW, "speech": "", "first_mes": ""})
    mira = write_card(with_picture(parse_card(as_json(V2), "it"), PIXEL, "it"), "png", "it").content
    answer = await sent_file(stage, message, StoredFile.named("mi_ra.png", mira))
    assert (
        r"What was empty in the card of **Marlow Finch** comes from mi\_ra.png now." in answer.text
    )
    assert "has this picture from the next reply on." in answer.text
    assert "lore now (1 passage)" in answer.text
    persona = find(stage, "marlow-finch")
    assert persona.name == "Marlow Finch" and persona.avatar.read_bytes() == PIXEL
    assert persona.first_mes == "You found the stairs, {{user}}."
    assert "retired lighthouse keeper" in persona.description and "Monday" in persona.mes_example
    assert persona.scenario == "A stormy night."
    again = await sent_file(stage, message, StoredFile.named("mira.json", as_json(V2)))
    assert again.text == "**Marlow Finch** has all that this card has."
    assert find(stage, "marlow-finch").avatar.read_bytes() == PIXEL


async def test_members_change_no_picture(stage):
    message = await created(stage)
    form = await stage.moderator.click(message, "Picture or card")
    stage.sandbox.set_roles(stage.moderator.id, ())
    for answer in (
        await stage.moderator.click(message, "Picture or card"),
        await stage.moderator.submit(form, file=StoredFile.named("face.png", PIXEL)),
    ):
        await said(answer, "Only moderators")
    assert find(stage, "marlow-finch").avatar is None


def long_card():
    """A card of which one field is longer than those that are typed, and two than a form takes."""
    data = {
        **V2["data"],
        "description": "{{char}} keeps the lighthouse. " + "The tide is late. " * 170,
        "first_mes": "You found the stairs, {{user}}. " + "Mind the step. " * 300,
        "mes_example": "<START>\n{{user}}: Who?\n{{char}}: Me.\n" * 220,
    }
    return StoredFile.named("mira.json", as_json({**V2, "data": data})), data


async def test_a_long_card_is_created_and_edited_unchanged_and_kept_where_a_form_has_no_room(stage):
    file, data = long_card()
    form = await opened(stage, picture=file)
    typed = typed_in(form)
    assert 3000 < len(typed["description"]) < 4000 and not typed["first_mes"]
    rows = {row["component"]["custom_id"]: row["component"] for row in form.modal["components"]}
    assert rows["first_mes"]["placeholder"].startswith("Too long for this form.")
    taken = await stage.moderator.submit(form, **{**typed, "name": "Ballast"})
    refused = await said(taken, "There is a persona Ballast already.")
    assert "is the most" not in refused["content"]
    stage.client.services.form_files.clear()  # as after a restart
    again = await stage.moderator.click(refused, "Try again")
    mark = stage.mark
    await stage.moderator.submit(again, **{**typed_in(again), "name": "Mira"})
    message = await stage.sees("**Mira** (`mira`) is a persona of this server", since=mark)
    created_persona = find(stage, "mira")
    assert created_persona.first_mes == data["first_mes"].strip()
    edit = await stage.moderator.click(message, "Edit")
    typed = typed_in(edit)
    assert not typed["first_mes"] and not typed["mes_example"]
    mark = stage.mark
    await stage.moderator.submit(edit, **typed)
    await stage.sees("speaks by this card from the next reply on", since=mark)
    assert find(stage, "mira") == created_persona


async def test_of_two_who_edit_one_card_the_later_is_told_and_loses_nothing(stage):
    message = await created(stage)
    await stage.moderator.click(message, f"Use it in #{OFFICE}")
    await stage.sees("**What next?**")
    card = await stage.moderator.slash(OFFICE, "persona show")
    await said(card, "**Marlow Finch** (`marlow-finch`)")
    late = await stage.moderator.click(card.message, "Edit")
    early = await stage.moderator.click(card.message, "Edit")
    done = await stage.moderator.submit(early, **{**typed_in(early), "speech": "In riddles."})
    await said(done, "speaks by this card from the next reply on")
    typed = {**typed_in(late), "description": "A keeper of bees."}
    told = await said(await stage.moderator.submit(late, **typed), "Somebody else has changed")
    kept = find(stage, "marlow-finch")
    assert kept.speech == "In riddles." and kept.description != "A keeper of bees."
    again = await stage.moderator.click(told, "Try again")
    assert typed_in(again) == typed
    mark = stage.mark
    await stage.moderator.submit(again, **typed)
    await stage.sees("speaks by this card from the next reply on", since=mark)
    replaced = find(stage, "marlow-finch")
    assert replaced.description == "A keeper of bees." and replaced.speech == typed["speech"]


async def test_a_persona_never_gets_the_versions_of_a_removed_one(stage):
    await created(stage)
    install(stage.store, find(stage, "marlow-finch").id)
    await removed(stage, "marlow-finch")
    assert find(stage, "marlow-finch") is None
    await created(stage, words="(`marlow-finch-2`)")
