"""Macros of the present moment: a phrase in the card, the value at the end, in time zones with
summer time; samples without a date; prompts that begin alike on every day.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from personas.card.card_reader import parse_card
from personas.card.toml_card import to_persona
from personas.engine.kv_cache import BLOCK_TOKENS, PrefixCache
from personas.engine.llm_engine import LLMEngine
from personas.prompt.renderer import system_text
from personas.prompt.time_macros import (
    Moment,
    duration_text,
    fill_time_macros,
    find_time_macro,
    time_phrase,
)
from personas.schemas.chat import SITUATION_SOURCE, ChatRequest, LoreHit, SamplingParams, Turn
from tests.personas.cards import V2, as_json

FRIDAY = datetime(2026, 11, 27, 21, 5, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
TALK = [
    Turn("Bo", "Good evening."),
    Turn("Mira", "Evening, Bo. The lamp is lit.", by_persona=True),
    Turn("Bo", "Is it late?"),
]


def persona_of(**fields):
    card = parse_card(as_json({**V2, "data": {**V2["data"], **fields}}), "it")
    return to_persona(card, "it")


def told(now):
    """The passage of a reply's moment, as the bot gives it."""
    return LoreHit(SITUATION_SOURCE, time_phrase("time"), Moment(now).value("time"), 1000.0)


@pytest.mark.parametrize(
    ("name", "rest", "macro"),
    [
        ("TIME", "", "time"),
        ("idleDuration", "", "idle_duration"),
        ("time_utc+02", "", "time_utc+2"),
        ("time", "::UTC-3", "time_utc-3"),
        ("time", ":: utc +5 ", "time_utc+5"),
        ("datetimeformat", " DD.MM.", None),
        ("timeout", "", None),
        ("char", "", None),
    ],
)
def test_macros_of_the_moment_are_known_by_their_spellings(name, rest, macro):
    assert find_time_macro(name, rest) == macro


@pytest.mark.parametrize(
    ("at", "zone", "time", "date"),
    [
        (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), "Europe/Berlin", "01:59 CET", "29 March 2026"),
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), "Europe/Berlin", "03:00 CEST", "29 March 2026"),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "Europe/Berlin", "02:30 CEST", "25 October 2026"),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "Europe/Berlin", "02:30 CET", "25 October 2026"),
        (FRIDAY, "Asia/Ho_Chi_Minh", "04:05 UTC+07", "28 November 2026"),
        (FRIDAY, "America/St_Johns", "17:35 NST", "27 November 2026"),
        (FRIDAY, "UTC", "21:05 UTC", "27 November 2026"),
    ],
)  # fmt: skip
def test_the_zone_decides_with_its_summer_time(at, zone, time, date):
    moment = Moment(at.astimezone(ZoneInfo(zone)))
    assert (moment.value("time"), moment.value("date")) == (time, date)
    assert moment.value("time_utc+1") == f"{at + timedelta(hours=1):%H:%M}", "in any zone"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (7200, "2 hours"),
        (86400, "1 day"),
        (40 * 86400, "1 month"),
        (800 * 86400, "2 years"),
    ],
)
def test_the_time_since_the_last_message_is_in_words(seconds, words):
    assert duration_text(seconds) == words
    assert Moment(FRIDAY, idle_s=seconds).value("idle_duration") == words
    assert Moment(FRIDAY).value("idle_duration") == "just now"


def test_a_card_has_a_phrase_and_says_what_it_asks_for():
    persona = persona_of(
        description="It is {{TIME}} on {{weekday}}, {{Date}}; {{isotime}} in short.",
        post_history_instructions="Mind {{idle_duration}}.",
        creator_notes="Made at {{isodate}}.",
        first_mes="It is {{time}}.",
    )
    assert set(persona.times) == {"time", "weekday", "date", "isotime", "idle_duration"}
    text = system_text(persona, "Bo")
    assert "It is the present time on the present weekday, today's date; the present time" in text
    assert persona.post_history_instructions == "Mind the time since the last message."
    assert persona.first_mes == "It is {{time}}.", "a greeting waits"
    assert persona_of(description="Keeps the lamps.").times == ()


def test_only_macros_of_the_moment_are_filled_in_and_only_once():
    moment = Moment(FRIDAY)
    text = "{{user}} at {{time}}, {{roll:d6}} {{{{time}}}} {{"
    filled = fill_time_macros(text, moment.value)
    assert filled == "{{user}} at 21:05 UTC, {{roll:d6}} {{21:05 UTC}} {{"


def test_prompts_begin_alike_over_minutes_and_days_and_end_with_the_moment(renderer):
    asking = persona_of(description="A keeper of lamps. It is {{time}}.")
    moments = [FRIDAY, FRIDAY + timedelta(minutes=2), FRIDAY + timedelta(days=90)]
    prompts = [renderer.prompt(asking, TALK, [told(now)]) for now in moments]
    plain = renderer.prompt(asking, TALK)
    opening = renderer.prompt(asking, [*TALK[:-1], Turn("Bo", "")]).text
    shared = opening[: opening.rindex("Bo:")]
    for prompt, now in zip(prompts, moments, strict=True):
        assert prompt.text.startswith(shared), "card, examples and history"
        rest = prompt.text[len(shared) :]
        assert rest.startswith(f"[the present time] {now:%H:%M} UTC\n\nBo: Is it late?")
        assert prompt.text.replace(f"[the present time] {now:%H:%M} UTC\n\n", "") == plain.text
    assert len({prompt.ids[: len(renderer.template.encode(shared))] for prompt in prompts}) == 1


def test_samples_have_no_date_and_begin_as_served_prompts_do(renderer):
    asking = persona_of(description="A keeper of lamps. It is {{time}}, {{date}}.")
    lore = [LoreHit("mira/bell.md", "Bell", "At {{time}} the bell rings.", 1.0)]
    sample = renderer.sample(asking, TALK, "Not yet.", lore)
    text = renderer.tokenizer.decode(sample.ids)
    assert "At the present time the bell rings." in text
    assert "2026" not in text and "{{" not in text
    prompt = renderer.prompt(asking, TALK, lore)
    assert sample.ids[: len(prompt.ids)] == prompt.ids


def test_whoever_writes_such_a_macro_sees_it_unchanged(renderer):
    asking = persona_of(description="A keeper of lamps. It is {{time}}.")
    said = renderer.prompt(asking, [Turn("Bo", "What is {{time}}?")], [told(FRIDAY)])
    assert "What is {{time}}?" in said.text


async def test_the_prompts_of_two_days_share_what_is_kept_of_the_first(
    tiny_base, renderer, monkeypatch, one_thread
):
    loaded = []
    load = PrefixCache.load_prefix

    def recorded(*parts):
        loaded.append(load(*parts))
        return loaded[-1]

    monkeypatch.setattr(PrefixCache, "load_prefix", recorded)
    asking = persona_of(description="A keeper of lamps. It is {{time}}. " + "She waits. " * 60)
    engine = LLMEngine(tiny_base, "float32", rows=1)
    await engine.start()
    try:
        for day in range(2):
            request = ChatRequest(
                asking,
                tuple(TALK),
                (told(FRIDAY + timedelta(days=day, minutes=7)),),
                sampling=SamplingParams(max_new_tokens=2, temperature=0.0, seed=1),
            )
            async for _ in engine.submit(request):
                pass
    finally:
        await engine.close()
    opening = renderer.prompt(asking, [*TALK[:-1], Turn("Bo", "")]).text
    shared = len(renderer.template.encode(opening[: opening.rindex("Bo:")]))
    assert loaded[-1] >= shared // BLOCK_TOKENS * BLOCK_TOKENS > BLOCK_TOKENS
