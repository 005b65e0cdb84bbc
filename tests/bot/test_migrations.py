"""A database of every schema version that ever landed opens, with its data."""

import sqlite3
from pathlib import Path

import pytest

from bot.platform.db.schema import MIGRATIONS
from bot.store import Store
from personas.errors import RequestError
from tests.samples import SCORECARD

REQUEST = '{"job_name": "rope", "base_model": "embedded", "persona": "ballast"}'
ROWS = {
    1: f"""insert into channels values (1, 10, 'ballast', 'everything', 5, 100.0);
        insert into webhooks values (10, 1, 70, 'secret');
        insert into messages values (1, 1, 10, 1, 1001, 5, 'Ada', null, 'How deep is it?', null, 101.0);
        insert into messages values (2, 1, 10, 2, 1002, 0, 'Ballast', 'ballast', 'Six fathoms.', 'v1', 102.0);
        insert into replies (event_id, channel_id, persona_id, trigger_seq, state, adapter_version, seed, created_at)
            values (1001, 10, 'ballast', 1, 'done', 'v1', 7, 102.0), (1003, 10, 'ballast', null, 'streaming', null,
            null, 103.0);
        insert into version_numbers values ('ballast', 1);
        insert into jobs (job_id, guild_id, channel_id, requested_by, name, request, persona, version, state, queued_at)
            values ('aa', 1, 10, 5, 'ballast', '{REQUEST}', 'ballast', 'v1', 'done', 90.0),
            ('bb', 1, 10, 5, 'ballast', '{REQUEST}', 'ballast', 'v2', 'queued', 91.0);
        insert into versions values ('ballast', 'v1', 'aa', 95.0, '{SCORECARD.model_dump_json()}');
        insert into promotions (persona_id, version, promoted_by, at, why) values ('ballast', 'v1', 5, 96.0, '')""",
    2: """insert into reply_parts values (1002, 1001, 0);
        insert into votes values (1001, 1, 5, 1, 104.0);
        insert into mutes values (1, 0, 'oda', 5, 105.0)""",
    3: "insert into fresh_starts values (10, 1)",
    4: """insert into consents values (5, 1, 106.0, 'en');
        insert into gifts values (1, 'ballast', 'tides.md', 5, 107.0);
        insert into tombstones values ('key', 108.0);
        insert into forgettings (person, asked_at, step, traces, receipt) values ('key', 108.0, 'done', '', '{}');
        insert into withdrawn values ('oda', 'v9', 109.0);
        insert into departed_guilds values (2, 110.0)""",
    5: "insert into guilds values (1, 99, null); insert into deleted_messages values (1000, 99.0)",
    7: """insert into rollouts (persona_id, version, guild_id, channel_id, share, started_by, started_at)
        values ('ballast', 'v1', 1, 10, 50, 5, 111.0)""",
    8: """insert into taught (guild_id, persona_id, user_id, as_moderator, prompt, reply, instead_of, right, at)
        values (1, 'ballast', 5, 0, 'How deep?', 'Six.', 'Two.', 'own-writing', 112.0)""",
    9: """insert into comparisons (guild_id, persona_id, user_id, prompt_id, prompt, text_a, text_b, seed_a, seed_b,
        shown_at) values (1, 'ballast', 5, 'p1', 'How deep?', 'Six.', 'Two.', 1, 2, 113.0)""",
    10: "insert into promoting values (1)",
    11: "insert into answered values (x'01', x'02', 200, '{}', 114.0)",
    13: "insert into guild_feedback values (1, 'ballast', 'v1', 'v0', '{}')",
    17: """insert into promotions (persona_id, version, promoted_by, at, why, guild_id, for_guild)
        values ('ballast', null, 5, 115.0, 'rollback', 1, 1)""",
    18: """insert into memories (guild_id, persona_id, user_id, text, by_persona, message_id, at)
        values (1, 'ballast', 5, 'Ada sails.', 0, 1001, 116.0);
        insert into forgotten_memories values (9, 99.0)""",
    19: "insert into reply_candidates values (1, 3)",
    20: "insert into message_vectors values (1, 'an encoder', x'0102')",
    21: "insert into removed_personas values ('mira', 117.0)",
    23: "insert into threads values (11, 1, 10)",
    24: "insert into memory_vectors values (1, 'an encoder', x'0102')",
    26: "insert into generation_settings values (1, 10, '', 300, 0.5, null, 4096, 118.0)",
    28: "insert into time_zones values (1, 'Europe/Berlin'); insert into told_topics values (10, 1)",
    30: """insert into answering_settings values (1, 10, 2.0, 50, '22:00-07:00', 1, 119.0);
        insert into reply_lines values (1, 1001)""",
    32: """insert into talks values (1, 10, 5, 118.0, 118.0, 1001);
        insert into safety_answers values ('2026-11-28', 'en', 1); insert into minor_guilds values (1)""",
    31: """insert into training_schedules (guild_id, channel_id, persona_id, weekdays, minute, options, set_by, set_at,
        handled_at, outcome) values (1, 10, 'ballast', 1, 510, '{}', 5, 119.0, 119.0, '')""",
    33: """insert into channel_personas values (1, 10, 'oda', 0, 119.0);
        insert into persona_aliases values (1, 'oda', 'Mother Marrow')""",
    35: """insert into scheduled_lines (guild_id, channel_id, weekdays, minute, prompt, set_by, set_at, handled_at)
        values (1, 10, 127, 510, 'say good morning', 5, 120.0, 120.0); insert into line_prompts values (1001, 'x')""",
    34: "insert into blocks values (1, 6, '', 5, 121.0); insert into reply_limits values (1, 20, null, 1)",
    37: "insert into age_restrictions values (1, 'oda', 1); insert into age_notices values (10, 1)",
    39: "insert into audit_channels values (1, 10)",
    41: """insert into reports (guild_id, channel_id, message_id, event_id, persona_id, reason, user_id, at)
        values (1, 10, 1002, 1001, 'ballast', 'other', 6, 122.0)""",
    42: "insert into action_roles values (1, 'talk', 9)",
    43: "insert into greeted_members values (1, 6, 1001, 122.0, 1)",
    47: "insert into reply_attempts values (1, 1, 6, 1001, 122.0)",
    48: "insert into gone_channels values (10, 1)",
    38: "insert into further_replies values (1003, 1001, 1)",
}
"""Rows that a version's tables may have; the versions missing here added columns alone."""


def database_of(version: int, path: Path) -> dict[str, int]:
    """Create a database as the code of a schema version did; returns the number of rows by
    table.
    """
    raw = sqlite3.connect(path)
    for number, script in enumerate(MIGRATIONS[:version], start=1):
        raw.executescript(f"begin; {script}; pragma user_version = {number}; commit;")
        raw.executescript(ROWS.get(number, ""))
    counts = counted(raw)
    raw.close()
    return counts


def counted(raw: sqlite3.Connection) -> dict[str, int]:
    tables = [
        name for (name,) in raw.execute("select name from sqlite_master where type = 'table'")
    ]
    return {name: raw.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_database_of_any_version_opens_with_its_data(tmp_path, version):
    path = tmp_path / "understudy.sqlite"
    counts = database_of(version, path)
    with Store.open(path) as store:
        assert (
            store.messages.text_of(1001) == "How deep is it?"
            and store.messages.text_of(1002) == "Six fathoms."
        )
        present = [message.text for message in store.messages.latest(10, 9)]
        assert present == ["How deep is it?", "Six fathoms."][version >= 3 :], "since a fresh start"
        reply = store.replies.get(1001)
        assert (reply.state, reply.seed, reply.end_note) == ("done", 7, None)
        assert reply.parts == ((1002,) if version >= 2 else ())
        assert [one.event_id for one in store.replies.unfinished()] == [1003]
        assert (
            store.jobs.get("aa").request.job_name == "rope"
            and store.jobs.get("bb").state == "queued"
        )
        assert store.versions.live("ballast", 0) == "v1" and store.channels.webhook(10) == (
            70,
            "secret",
        )
        assert store.channels.get(1, 10, None).persona_id == "ballast"
        if version >= 4:
            assert store.people.decision(5).opted_in and store.people.tombstones() == {"key": 108.0}
        if version >= 8:
            memories = [
                (it.text, it.channel_id) for it in store.memories.of_member(5, 1, "ballast")
            ]
            assert memories == [("Ada sails.", 10)] * (version >= 18)
            assert [lesson.reply for lesson in store.lessons.of_persona("ballast", 1)] == ["Six."]
    raw = sqlite3.connect(path)
    assert counts.items() <= counted(raw).items()
    assert raw.execute("pragma integrity_check").fetchone() == ("ok",)
    assert raw.execute("pragma foreign_key_check").fetchall() == []
    raw.close()


def test_what_was_live_everywhere_stays_live_everywhere(tmp_path):
    """Versions of two guilds, the later one live for both; each guild's next promotion is its
    own.
    """
    path = tmp_path / "understudy.sqlite"
    database_of(16, path)
    raw = sqlite3.connect(path)
    raw.execute("update jobs set state = 'done', guild_id = 2 where job_id = 'bb'")
    raw.execute(
        "insert into versions values ('ballast', 'v2', 'bb', 97.0, ?)",
        (SCORECARD.model_dump_json(),),
    )
    raw.execute("update promotions set guild_id = 1")
    raw.execute(
        """insert into promotions (persona_id, version, promoted_by, at, why, guild_id, previous)
        values ('ballast', 'v2', 6, 98.0, '', 2, 1)"""
    )
    raw.execute(
        """insert into rollouts (persona_id, version, before, guild_id, channel_id, share, started_by, started_at,
        watched_until) values ('ballast', 'v2', 'v1', 2, 10, 100, 6, 98.0, 1e9)"""
    )
    raw.commit()
    raw.close()
    with Store.open(path) as store:
        assert [store.versions.live("ballast", guild) for guild in (0, 1, 2, 3)] == ["v2"] * 4
        assert [(row.guild_id, row.for_guild) for row in store.versions.history("ballast")] == [
            (1, 0),
            (2, 0),
        ]
        assert [it.version for it in store.versions.installed("ballast", 3)] == ["v1", "v2"], (
            "everybody heard them"
        )
        with pytest.raises(RequestError, match="no earlier version"):
            store.versions.rollback("ballast", 5, 120.0, guild_id=1)
        assert store.versions.promote("ballast", "v1", 5, 121.0, guild_id=1)
        assert [store.versions.live("ballast", guild) for guild in (0, 1, 2)] == ["v2", "v1", "v2"]
        (watched,) = (it for it in store.rollouts.running("ballast", 122.0) if it.is_promoted)
        assert store.rollouts.revert(watched, 122.0, "worse"), (
            "what is observed is undone where it went live"
        )
        assert [store.versions.live("ballast", guild) for guild in (0, 1, 2)] == ["v1", "v1", "v1"]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_migration_that_was_killed_goes_on_with_its_step(tmp_path, version):
    """SQLite rolls the step back that was not committed; the next start begins it again."""
    path = tmp_path / "understudy.sqlite"
    counts = database_of(version, path)
    raw = sqlite3.connect(path)
    raw.execute("pragma journal_mode = wal")
    statements = [part for part in MIGRATIONS[version].split(";") if part.strip()]
    raw.execute("begin")
    raw.execute(statements[0])
    raw.close()  # in mid-transaction, as a kill does
    with Store.open(path) as store:
        assert store.messages.text_of(1001) == "How deep is it?"
    raw = sqlite3.connect(path)
    assert counts.items() <= counted(raw).items()
    assert raw.execute("pragma user_version").fetchone() == (len(MIGRATIONS),)
    raw.close()
