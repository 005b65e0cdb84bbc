"""Material of a training job is gathered beside the event loop, from a server with a long history
and many names.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sqlite3
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.platform.localisation import TRANSLATED_LANGUAGES
from bot.store import Lesson, Store
from bot.training import stored_datasets
from bot.training.backend_protocol import TrainingFailed
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from bot.training.queue import JobQueue
from bot.training.request_materials import check_request, gather_materials
from bot.training.source_rights import refusal_texts
from bot.training.store import NewTrainingJob
from bot.training.stored_datasets import MASKED_NAME, MIN_NAME_CHARS, NameMask, history_lines
from personas.errors import RequestError
from personas.home.data_subjects import Consent, write_consent
from personas.home.job_material import ShippedData
from personas.home.rights import decide_right
from personas.schemas.training import TrainingRequest
from tests.bot.languages import localised
from tests.fakes import FakeClock
from tests.loop_delay import measured_loop
from tests.rights_sources import GUILD, PERMISSION

HISTORY = TrainingRequest(job_name="j", persona="ada", dataset="history")
ASKERS = 40
SYLLABLES = "ka lo mi re tun sha vel or bex dan io qu zar fen ul my".split()
WORDS = "the tide turns late and who keeps this lamp when rope is dear or the pilot sleeps below a bell".split()


def names(count: int, chance: random.Random) -> list[str]:
    """Names as people choose them: one or two words, capitals, digits, stars, and ordinary
    words.
    """
    found = {"the", "Bell", "a", "★ Mo ★"}
    while len(found) < count:
        name = "".join(chance.choices(SYLLABLES, k=chance.randint(2, 4))).capitalize()
        found.add(
            chance.choice(
                (
                    name,
                    f"{name} {chance.choice(SYLLABLES).title()}",
                    f"{name}_{chance.randint(1, 99)}",
                )
            )
        )
    return sorted(found)


def fill(home, texts: int, people: int) -> list[str]:
    """Store a server's history: half of the texts are answers, and every fourth names somebody.
    Returns the names.
    """
    path = home / "understudy.sqlite"
    chance = random.Random(7)
    known = names(people, chance)
    with Store.open(path):
        pass
    with sqlite3.connect(path) as raw:
        place = (GUILD, 8)
        talk = []
        for number in range(texts):
            words = chance.choices(WORDS, k=18)
            if number % 4 == 0:
                words[9] = chance.choice(known)
            talk.append((" ".join(words), number))
        raw.executemany(
            "insert into consents values (?, 1, 1.0, 'en')", [(n,) for n in range(1, ASKERS + 1)]
        )
        rows = [
            (n + 1, *place, n + 1, n + 100, 0 if n % 2 else 1 + n // 2 % ASKERS, "Ada" if n % 2 else "Asker",
             "ada" if n % 2 else None, text, float(n))
            for text, n in talk
        ]  # fmt: skip
        rows += [
            (texts + n + 1, GUILD, 9, n + 1, None, 1000 + n, name, None, "hello", float(n))
            for n, name in enumerate(known)
        ]
        columns = (
            "seq, guild_id, channel_id, ordinal, discord_message_id, author_id, author_name, "
            "persona_id, text, at"
        )
        raw.executemany(f"insert into messages ({columns}) values ({', '.join('?' * 10)})", rows)
        answers = [
            (n + 100, *place, "ada", 1 + n // 2 % ASKERS, n + 1, float(n))
            for n in range(0, texts, 2)
        ]
        columns = (
            "event_id, guild_id, channel_id, persona_id, asked_by, trigger_seq, created_at, state"
        )
        raw.executemany(
            f"insert into replies ({columns}) values ({', '.join('?' * 7)}, 'done')", answers
        )
        raw.executemany(
            "insert into reply_parts values (?, ?, 0)",
            [(n + 101, n + 100) for n in range(0, texts, 2)],
        )
    raw.close()
    return known


@pytest.fixture
def shipped(tmp_path):
    """A source tree with Ada."""
    shipped = ShippedData.of(tmp_path / "source", cards=tmp_path / "source" / "cards")
    for folder in vars(shipped).values():
        folder.mkdir(parents=True, exist_ok=True)
    (shipped.cards / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    (shipped.recipes / "demo-cpu.toml").touch()
    return shipped


async def gather(home, shipped, store) -> tuple[dict[str, float], float, list[str]]:
    """Check, queue and run a job, whose trainer ends at once. Returns seconds by step, the delay,
    and the log.
    """
    write_consent(home, Consent(permission=PERMISSION))
    catalogue = DatasetCatalog(shipped, "embedded", home, store)
    clock = FakeClock()
    took = {}
    backend = SubprocessBackend(
        home,
        catalogue,
        clock,
        threads=1,
        nice=0,
        serving_precision="float32",
        environ={},
        command=("true",),
    )
    queue = JobQueue(store, backend, clock)
    async with measured_loop() as delay:
        for step in ("check", "enqueue", "gather"):
            began = time.perf_counter()
            if step == "check":
                queue.check(HISTORY, GUILD)
            elif step == "enqueue":
                job = queue.enqueue(HISTORY, guild_id=GUILD, channel_id=8, requested_by=1)
            else:
                materials = await asyncio.to_thread(gather_materials, catalogue, HISTORY, GUILD)
            took[step] = time.perf_counter() - began
            await asyncio.sleep(0)
        began = time.perf_counter()
        assert isinstance(await backend.run(job, lambda event: None), TrainingFailed)
        took["run"] = time.perf_counter() - began
    log = home / "jobs" / job.job_id / "material" / "history.jsonl"
    assert log.read_text(encoding="utf-8") == materials[1].text
    return took, delay.longest_s, log.read_text(encoding="utf-8").splitlines()


async def test_a_long_history_does_not_block_the_event_loop(tmp_path, shipped):
    home = tmp_path / "home"
    known = fill(home, 3000, 1500)
    with Store.open(home / "understudy.sqlite") as store:
        took, delay_s, lines = await gather(home, shipped, store)
    assert len(lines) == 3000 and took["gather"] > 0.05, took
    assert delay_s < max(0.1, took["gather"] / 3), (delay_s, took)
    texts = [json.loads(line)["text"] for line in lines]
    assert sum(MASKED_NAME in text for text in texts) > 700
    for name in known:
        if len(name) > 5:
            assert not any(f" {name} " in text for text in texts), name


def test_of_a_long_history_the_latest_exchanges_are_used(tmp_path, monkeypatch):
    fill(tmp_path, 40, 10)
    monkeypatch.setattr(stored_datasets, "MAX_EXCHANGES", 5)
    with Store.open(tmp_path / "understudy.sqlite") as store:
        lines = history_lines(store, Consent(permission=PERMISSION), GUILD, "ada")
    assert [json.loads(line)["id"] for line in lines] == [str(seq) for seq in range(31, 41)]


def test_of_many_lessons_the_latest_are_used(tmp_path):
    with Store.open(tmp_path / "understudy.sqlite") as store:
        for number in range(6):
            store.lessons.add(
                Lesson(GUILD, "ada", 5, False, f"ask {number}", "reply", "", "form", float(number))
            )
        assert [it.prompt for it in store.lessons.of_persona("ada", GUILD, 2)] == ["ask 4", "ask 5"]
        assert not store.lessons.has_trainable("ada", GUILD), "its member has not opted in"
        store.lessons.add(Lesson(GUILD, "ada", 6, True, "ask", "reply", "", "form", 7.0))
        assert store.lessons.has_trainable("ada", GUILD) and not store.lessons.has_trainable(
            "ada", GUILD + 1
        )
        assert store.lessons.has_trainable("ada", 0)


async def test_a_right_that_is_gone_when_the_job_runs_ends_it(tmp_path, shipped):
    home = tmp_path / "home"
    fill(home, 40, 10)
    write_consent(home, Consent(permission=PERMISSION))
    with Store.open(home / "understudy.sqlite") as store:
        catalogue = DatasetCatalog(shipped, "embedded", home, store)
        backend = SubprocessBackend(
            home,
            catalogue,
            FakeClock(),
            threads=1,
            nice=0,
            serving_precision="float32",
            environ={},
            command=("true",),
        )
        job = store.jobs.add(NewTrainingJob("j1", GUILD, 8, 1, HISTORY), 1.0)
        write_consent(home, Consent())
        ended = await backend.run(job, lambda event: None)
        assert (
            isinstance(ended, TrainingFailed)
            and ended.can_resume
            and "may not be trained on" in ended.error
        )
        with pytest.raises(RequestError, match="may not be trained on"):
            check_request(catalogue, HISTORY, GUILD)
    assert not (home / "jobs" / "j1").exists()


def plain_mask(people, kept, text):
    """The rule, a pattern at a time."""
    folded = {"", *(name.casefold() for name in kept)}
    wanted = sorted(
        {name for _, name in people if name.casefold() not in folded}, key=len, reverse=True
    )
    parts = [rf"<@!?{id}>" for id, _ in people]
    parts += [
        rf"(?<!\w){'@?' if len(name) >= MIN_NAME_CHARS else '@'}{re.escape(name)}(?!\w)"
        for name in wanted
    ]
    return re.sub("|".join(parts), MASKED_NAME, text, flags=re.IGNORECASE) if parts else text


NAME = st.text(alphabet="abAé.★ß ", min_size=1, max_size=6).map(str.strip)
TEXT = st.text(alphabet="abAÉé.★ß @<>!12", max_size=40)


@given(st.lists(st.tuples(st.integers(1, 30), NAME), max_size=8), st.lists(NAME, max_size=2), TEXT)
def test_the_tree_of_names_masks_what_each_name_would(people, kept, text):
    assert NameMask(people, kept).apply(text) == plain_mask(people, kept, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("İlker", "ask ilker!"),
        ("Γιώργος", "ΓΙΏΡΓΟΣ?"),
        ("Straße", "@straße"),
        ("Đỗ Mai", "đỗ mai ơi"),
        ("ſam", "Sam"),
    ],
)
def test_names_are_masked_in_any_case_of_any_script(name, text):
    masked = NameMask([(5, name)], []).apply(f"İ {text} İ")
    assert MASKED_NAME in masked and masked.startswith("İ ") and masked.endswith(" İ")


@pytest.mark.parametrize("permission", ["", "Granted on 1 November 2026."])
@pytest.mark.parametrize("right", ["", "discord-api"])
def test_why_a_source_may_not_be_trained_on_is_in_english_what_the_trainer_says(permission, right):
    consent = Consent(permission=permission, opted_in=frozenset())
    verdict = decide_right("talk.json", stated=right, consent=consent)
    texts = refusal_texts("talk.json", verdict, consent)
    assert texts == (verdict.refused, verdict.advice) and all(texts)
    for language in TRANSLATED_LANGUAGES:
        assert not {localised(text, language) for text in texts} & set(texts)
