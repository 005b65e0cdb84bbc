"""The bot speaks the member's language in what they alone see, and the server's in its channels."""

import asyncio
import re
from functools import partial

import discord
import pytest

from bot.chat.message_text import _without_notes
from bot.chat.reply import CUT_OFF_NOTE
from bot.guild_settings.definitions import HAS_MINORS
from bot.moderation.limits import ReplyLimits
from bot.platform.discord_kit.ui import MAX_BUTTON_CHARS, fitting_text
from bot.platform.errors import RefusedError, error_text
from bot.platform.localisation import LANGUAGES, gettext_lazy, language_of, override
from bot.safety.actions import DISCLOSURE, MINORS_BREAK, PLAIN_DISCLOSURE
from bot.training.backend_protocol import TrainingFailed
from personas.engine.context_window import ContextWindow
from personas.engine.remote.server_errors import OnlyThoughtError
from personas.errors import EngineBusyError
from personas.schemas.training_events import Epoch
from sandbox import message_text
from sandbox.message_components import all_components
from tests.bot.conftest import INN, OFFICE, QUAY, on_stage
from tests.bot.languages import localised
from tests.bot.set_settings import set_limits
from tests.bot.test_blind_test import takes
from tests.bot.test_direct_messages import chosen
from tests.bot.test_finetune import STEP
from tests.bot.version_rows import install
from tests.fake_engine import FakeEngine
from tests.fakes import until

LOCALES = {
    "de": "de",
    "es-ES": "es",
    "es-419": "es",
    "vi": "vi",
    "zh-CN": "zh_Hans",
    "zh-TW": "en",
    "fr": "en",
    "en-GB": "en",
}
BY_AI = {
    "en": "-# AI-written",
    "vi": "-# Do AI viết",
    "de": "-# Von KI geschrieben",
    "es": "-# Escrito por IA",
    "zh_Hans": "-# AI 撰写",
}


async def prefer(stage, locale):
    """Set the server's preferred locale, as its administrators do."""
    stage.sandbox.set_preferred_locale(locale)
    guild = stage.client.get_guild(stage.sandbox.guild_id)
    await until(lambda: str(guild.preferred_locale) == locale)


async def written(stage, channel, since, by=BY_AI["en"]):
    """The next finished reply in a channel, whose footer begins so."""
    channel_id = (
        channel["id"] if isinstance(channel, dict) else stage.sandbox.channel(channel)["id"]
    )
    return await stage.sandbox.wait_for(
        "edit",
        lambda one: one["channel_id"] == channel_id and f"\n{by}" in one["content"],
        timeout_s=8.0,
        since=since,
    )


async def ask(stage, channel, words, by, member=None):
    mark = stage.mark
    await (member or stage.member).say(channel, words)
    return await written(stage, channel, mark, by)


def labels(message):
    return [part["label"] for part in all_components(message["components"]) if part.get("label")]


async def test_a_reply_that_failed_at_a_start_says_so_in_the_language_of_its_server(stage):
    await prefer(stage, "de")
    reply = await ask(stage, QUAY, "how heavy?", BY_AI["de"])
    replies = stage.store.replies
    await until(lambda: not stage.client.services.reply_service.tasks)
    event_id = replies.of_message(int(reply["id"])).event_id
    # So it is stored where the reason of the failure leaves no channel whose language is known.
    assert replies.begin_regeneration(event_id, by=1, at=1.0)
    replies.finish(event_id, "failed", end_note=CUT_OFF_NOTE)
    mark = stage.mark
    await stage.client.services.reply_service.recovery.resume(replies.get(event_id), stage.client)
    ended = await stage.sees("-# Diese Antwort wurde unterbrochen. Frag noch einmal.", since=mark)
    assert ended["id"] == reply["id"] and "cut off" not in ended["content"]


def button_id(message, prefix):
    (found,) = [
        part["custom_id"]
        for part in all_components(message["components"])
        if part.get("custom_id", "").startswith(prefix)
    ]
    return found


async def told(answer, words):
    """Wait for a private response with these words."""
    await until(lambda: words in answer.text)
    assert answer.ephemeral
    return answer.message


# --------------------------------------------------------------------------- what a member alone sees


def test_every_locale_of_discord_has_a_language():
    assert {language_of(locale) for locale in discord.Locale} == set(LANGUAGES)
    assert {name: language_of(discord.Locale(name)) for name in LOCALES} == LOCALES


async def test_notices_forms_and_buttons_are_german_for_whom_discord_is(stage):
    stage.member.set_locale("de")
    reply = await ask(stage, QUAY, "how heavy?", BY_AI["en"])
    assert labels(reply) == ["Reply", "Regenerate"], "the channel is everybody's"
    answer = await stage.member.slash(QUAY, "memory show")
    await told(answer, "Ballast merkt sich hier nichts für dich. Mit `/remember` bittest du darum.")
    kept = await stage.member.slash(QUAY, "remember", text="I like tea.")
    message = await told(kept, "**Ballast** merkt sich für dich")
    assert labels(message) == ["Bearbeiten", "Vergessen"]
    form = await stage.member.click(message, "Bearbeiten")
    assert form.modal["title"] == "Erinnerung ändern"
    await stage.member.click(message, "Vergessen")
    await until(lambda: "Vergessen (Nummer 1)." in kept.message["content"])
    form = await stage.member.click(reply, "Reply")
    assert form.modal["title"] == "Antwort an Ballast"


async def test_two_members_at_once_are_answered_each_in_their_own_language(stage):
    stage.member.set_locale("de")
    stage.moderator.set_locale("es-ES")
    german, spanish = await asyncio.gather(
        stage.member.slash(QUAY, "privacy show"), stage.moderator.slash(QUAY, "privacy show")
    )
    await told(german, "**Was ich über dich speichere**")
    await told(spanish, "**Lo que guardo sobre ti**")


async def test_a_refusal_is_in_the_members_language_in_both_of_its_halves(stage):
    other = await ask(stage, QUAY, "how heavy?", BY_AI["en"], stage.moderator)
    stage.member.set_locale("es-419")
    refused = await stage.member.context(QUAY, "Delete this reply", other)
    await told(refused, "Solo quien preguntó o la moderación puede eliminar esta respuesta.")
    refused = await stage.member.slash(OFFICE, "chat", message="hello?")
    await told(
        refused,
        "Aquí todavía no vive ningún personaje. La moderación puede cambiarlo con `/persona set`.",
    )
    refused = await stage.member.slash(QUAY, "memory forget", memory="77")
    await told(
        refused, "Aquí no tienes ningún recuerdo con el número 77. `/memory show` los muestra."
    )


def test_an_error_is_never_half_in_one_language_and_half_in_another():
    advice = gettext_lazy("Ask again.")
    both = error_text(RefusedError(gettext_lazy("Your message has no words."), advice))
    assert localised(both, "de") == "Deine Nachricht enthält keine Wörter. Frag noch einmal."
    half = error_text(RefusedError("Nobody has translated this.", advice))
    assert localised(half, "de") == "Nobody has translated this. Ask again."
    busy = error_text(EngineBusyError("9 replies are waiting already.", "Try later.", 4.2))
    assert busy == "9 replies are waiting already. Try later."
    assert localised(busy, "de").endswith("Versuch es in etwa 5 s noch einmal.")
    failed = error_text(OnlyThoughtError("The operator reads this."))
    assert localised(failed, "zh_Hans") == "模型只进行了思考，没有写出回复。请再试一次。"


async def test_an_invitation_is_in_the_servers_language_and_a_comparison_in_the_members(tmp_path):
    async with on_stage(tmp_path, engine=FakeEngine(takes)) as stage:
        install(stage.store)
        await prefer(stage, "es-ES")
        stage.moderator.set_locale("de")
        mark = stage.mark
        answer = await stage.moderator.slash(QUAY, "finetune compare", version="v1")
        invitation = await stage.sees("¿Qué versión de Ballast es mejor?", since=mark)
        assert labels(invitation) == ["Comparar"]
        asked = await told(answer, "-# Beides von KI geschrieben, in zufälliger Reihenfolge.")
        assert labels(asked) == ["A", "B", "Unentschieden", "Beide schlecht"]
        await stage.moderator.click(asked, "Unentschieden")
        await until(lambda: "Deine Stimme: **unentschieden**." in answer.message["content"])
        assert "das Basismodell" in answer.message["content"]
        assert labels(answer.message) == ["Noch ein Vergleich"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_longest_names_are_shortened_until_a_text_has_room(language):
    source = "Use it in #{channel}, in place of {personas}"
    fit = partial(fitting_text, source, max_chars=MAX_BUTTON_CHARS)
    with override(language):
        text = fit(channel="quay", personas="Oda Marrow, " * 30)
        assert len(text) == MAX_BUTTON_CHARS and "#quay" in text and "Oda Marrow" in text
        text = fit(channel="q" * 100, personas="Oda")
        assert len(text) == MAX_BUTTON_CHARS and "qqq…" in text and "Oda" in text
        assert "…" not in fit(channel="q", personas="Oda")


def test_a_limit_of_the_context_that_names_a_value_is_translated_with_it():
    reason = ContextWindow(8192, "the default").within_time(tokens_per_s=60).reason
    assert reason == "what this machine reads in 60 s; CONTEXT_TOKENS can raise it"
    assert localised(reason, "zh_Hans") == "这台机器在 60 秒内能读完的量；可用 CONTEXT_TOKENS 提高"


async def test_forms_with_menus_and_files_fit_in_every_language(stage):
    """The sandbox refuses a form with a label or hint that Discord finds too long."""
    await stage.moderator.slash(QUAY, "finetune start")
    await until(lambda: stage.backend.busy)
    mark = stage.mark
    stage.backend.finish(TrainingFailed("The log is empty.", "Write one."))
    failed = await stage.sees("Failed: **Ballast v1**", since=mark)
    reply = await ask(stage, QUAY, "how heavy?", BY_AI["en"])
    moderator = stage.moderator
    creation = await moderator.slash(QUAY, "persona create")
    made = await moderator.submit(creation, name="Marlow", description="Marlow mends clocks.")
    await until(lambda: "**Marlow**" in made.text)
    for locale in ("vi", "de", "es-ES", "zh-CN"):
        moderator.set_locale(locale)
        for form in (
            await moderator.context(QUAY, "Report this reply", reply),
            await moderator.click(failed, "Repeat with changes"),
            await moderator.click(made.message, "Picture or card"),
            await moderator.slash(QUAY, "persona import"),
        ):
            assert form.modal, form.text
            shown = {row.get("label") for row in form.modal["components"]}
            english = {"What is wrong with this reply?", "Recipe", "Picture or card", "Card"}
            assert not english & shown, locale


async def test_answering_settings_are_in_the_moderators_language(stage):
    stage.moderator.set_locale("zh-CN")
    answer = await stage.moderator.slash(
        QUAY, "persona answering set", chance=25, quiet_hours="22-7"
    )
    await told(answer, "回复概率：25%")
    refused = await stage.moderator.slash(QUAY, "persona answering set", quiet_hours="late")
    await told(refused, "'late' 不是一个时段。请写成 22:00-07:00 的形式")
    answer = await stage.moderator.slash(QUAY, "persona generation show")
    await told(answer, "• 温度：0.")
    stage.moderator.set_locale("de")
    answer = await stage.moderator.slash(QUAY, "persona generation show")
    await told(answer, "• Temperatur: 0,")


async def test_the_audit_channel_is_told_of_in_the_servers_language(stage):
    await prefer(stage, "de")
    stage.moderator.set_locale("vi")
    mark = stage.mark
    channel = stage.sandbox.channel(OFFICE)["id"]
    answer = await stage.moderator.slash(QUAY, "moderation audit", channel=channel)
    await told(answer, f"Từ giờ các thay đổi được liệt kê ở <#{channel}>.")
    await stage.sees("Ab jetzt steht in diesem Kanal, wer was an den Personas", since=mark)


async def test_discord_is_given_descriptions_in_all_languages_and_menus_their_names(stage):
    client = stage.client
    shapes = await client.http.get_global_commands(client.application_id)
    by_name = {shape["name"]: shape for shape in shapes}
    expected = {"vi", "de", "es-ES", "es-419", "zh-CN"}
    for name in ("chat", "privacy", "memory", "remember", "moderation"):
        shape = by_name[name]
        assert set(shape["description_localizations"]) == expected
        assert all(set(one["description_localizations"]) == expected for one in shape["options"])
        assert not shape.get("name_localizations"), "the documents name commands in English"
    for name in ("Report this reply", "Delete this reply", "Remember this"):
        assert set(by_name[name]["name_localizations"]) == expected


# ---------------------------------------------------------------------------- what is in a channel


async def test_a_server_that_prefers_vietnamese_reads_disclosure_footer_and_buttons_in_it(stage):
    await prefer(stage, "vi")
    reply = await ask(stage, QUAY, "how heavy?", BY_AI["vi"])
    disclosure = localised(DISCLOSURE, "vi")
    assert f"\n{BY_AI['vi']} · mô hình gốc · tư liệu: " in reply["content"]
    assert reply["content"].endswith(f"\n{disclosure}")
    assert labels(reply) == ["Trả lời", "Tạo lại"]
    mark = stage.mark
    await stage.member.click(reply, button_id(reply, "vote+1:"))
    voted = await stage.sandbox.wait_for("edit", lambda one: one["id"] == reply["id"], since=mark)
    assert labels(voted) == ["Trả lời", "Tạo lại", "1"]
    again = await ask(stage, QUAY, "and now?", BY_AI["vi"])
    assert disclosure not in again["content"], "it was told at the start of the talk"


async def test_notices_in_a_channel_are_in_the_servers_language(stage):
    await prefer(stage, "vi")
    mark = stage.mark
    await stage.member.say(OFFICE, "@Understudy is anybody here?")
    await stage.sees("Chưa có nhân vật nào ở đây. Người điều hành", since=mark)
    set_limits(stage.store, stage.sandbox.guild_id, ReplyLimits(per_day=1))
    await ask(stage, QUAY, "one", BY_AI["vi"])
    mark = stage.mark
    await stage.member.say(QUAY, "two")
    await stage.sees("Bạn đã nhận đủ 1 câu trả lời", since=mark)


async def test_direct_messages_are_in_the_language_last_seen_of_the_member(stage):
    channel = await chosen(stage)  # by a menu, in English
    assert labels(await ask(stage, channel, "soup?", BY_AI["en"])) == ["Reply", "Regenerate"]
    stage.member.set_locale("es-ES")
    await told(await stage.member.slash(channel, "privacy show"), "Lo que guardo sobre ti")
    reply = await ask(stage, channel, "bread?", BY_AI["es"])
    assert labels(reply) == ["Responder", "Regenerar"]


# ---------------------------------------------------------------------- notes of earlier languages


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_left_of_the_notes_of_any_language(language):
    notes = [localised(note, language) for note in (DISCLOSURE, PLAIN_DISCLOSURE, MINORS_BREAK)]
    said = "\n".join(["Good evening.", f"{BY_AI[language]} · v1", *notes])
    assert _without_notes(said).strip() == "Good evening."


async def test_a_persona_reads_no_disclosure_or_footer_of_an_earlier_language(stage):
    language = "vi"
    await prefer(stage, language)
    HAS_MINORS.write(stage.store, True, int(stage.sandbox.guild_id))
    reply = await ask(stage, QUAY, "how heavy?", BY_AI[language])
    disclosure = localised(PLAIN_DISCLOSURE, language)
    assert reply["content"].endswith(f"\n{disclosure}")
    await prefer(stage, "en-US")
    await stage.member.forward(INN, reply)
    await until(
        lambda: any("how heavy?" in one.turns[-1].text for one in stage.engine.requests[1:])
    )
    read = stage.engine.requests[-1].turns[-1].text
    assert disclosure not in read and localised(MINORS_BREAK, language) not in read
    assert BY_AI[language] not in read and "Ballast hears: how heavy?" in read


# ------------------------------------------------------------------------- from training to promotion

ENGLISH_WORDS = re.compile(
    r"\b(the|is|are|was|of|with|and|from|it|its|to|this|that|by|no|not|here|now|has)\b",
    re.IGNORECASE,
)
BOT = "Understudy"
CODE = re.compile(r"```.*?```|`[^`]*`|<[^>]*>", re.DOTALL)


def english_in(message):
    """The English words of a message and its buttons, but for code and what members wrote."""
    shown = [CODE.sub("", message_text(message)), *labels(message)]
    return ENGLISH_WORDS.findall("\n".join(shown))


async def test_a_training_that_a_vietnamese_starts_is_shown_in_the_servers_language(stage):
    await prefer(stage, "de")
    moderator = stage.moderator
    moderator.set_locale("vi")
    await moderator.slash(QUAY, "moderation audit", channel=stage.sandbox.channel(OFFICE)["id"])
    mark = stage.mark
    queued = await moderator.slash(QUAY, "finetune start")
    await told(queued, "Đã xếp hàng với mã")
    assert labels(queued.message) == ["Hủy"]
    progress = await stage.sees("Training: **Ballast v1**", since=mark)
    assert labels(progress) == ["Abbrechen"]
    await until(lambda: stage.backend.busy)
    stage.backend.finish()
    result = await stage.sees("Trainiert: **Ballast v1**", since=mark)
    await moderator.click(result, "Live schalten")
    await stage.sees("v1 von **Ballast** ist ab der nächsten Antwort live.", since=mark)
    await stage.sees("hat v1 von **Ballast** live geschaltet.", since=mark)


async def test_a_german_moderator_reads_no_english_from_a_training_to_its_promotion(stage):
    await prefer(stage, "de")
    stage.moderator.set_locale("de")
    mark = stage.mark
    queued = await stage.moderator.slash(QUAY, "finetune start", epochs=1.5)
    await told(queued, "Eingereiht als")
    await until(lambda: stage.backend.busy)
    stage.backend.on_event(STEP)
    shown = await stage.sees("Schritt 10 von 40 · Loss 2,345 · 457 Token/s", since=mark)
    assert "trainiert · fertig in etwa 5 min" in shown["content"]
    status = await stage.moderator.slash(QUAY, "finetune status")
    await told(status, "Training: **Ballast v1**")
    stage.backend.on_event(Epoch(epoch=1, train_loss=2.0, eval_loss=2.1, seconds=9.0))
    stage.backend.finish()
    result = await stage.sees("Trainiert: **Ballast v1**", since=mark)
    assert labels(result) == ["Live schalten", "Mit Änderungen wiederholen"]
    await stage.moderator.click(result, "Live schalten")
    await stage.sees("v1 von **Ballast** ist ab der nächsten Antwort live.", since=mark)
    history = await stage.moderator.slash(QUAY, "finetune history")
    await told(history, "**Ballast**: v1 ist live. Seite 1 von 1.")
    again = await stage.moderator.slash(QUAY, "finetune promote", version="v1")
    await told(again, "v1 von **Ballast** ist schon live.")
    refused = await stage.moderator.slash(QUAY, "finetune cancel")
    await told(refused, "Es gibt keinen wartenden oder laufenden Auftrag.")
    back = await stage.moderator.slash(QUAY, "finetune rollback")
    await until(lambda: "Zurückgesetzt: " in (back.message or {}).get("content", ""))
    seen = [answer.message for answer in (queued, status, history, again, refused, back)]
    own = [each for each in stage.sandbox.messages(QUAY) if each["author"]["username"] == BOT]
    assert len(own) >= 3
    assert [message_text(each) for each in [*seen, *own] if english_in(each)] == []
