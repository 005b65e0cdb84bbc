"""Later steps of the schema (`bot.store.schema`)."""

from __future__ import annotations

ROLLOUTS = """
-- Where a version went live or ceased to be, and by what: `why` is for people.
alter table promotions add column guild_id integer not null default 0;
alter table promotions add column kind text not null default 'promotion' check (kind in
    ('promotion', 'automatic promotion', 'rollback', 'automatic rollback', 'withdrawal'));
update promotions set kind = iif(why = 'rollback', 'rollback', 'withdrawal') where why <> '' and promoted_by = 0
    or why = 'rollback';

-- A version that answers a part of the replies of one guild before it is promoted; or one that was promoted, and is
-- compared with the one before it until `watched_until`. A null `before` is the base model, a null `only_channel`
-- stands for everywhere. `channel_id` is where it was begun, and where its end is told.
create table rollouts (
    seq integer primary key autoincrement,
    persona_id text not null,
    version text not null,
    before text,
    guild_id integer not null,
    channel_id integer not null,
    only_channel integer,
    share integer not null check (share between 1 and 100),
    started_by integer not null,
    started_at real not null,
    watched_until real,
    ended_at real,
    ended_by integer not null default 0,
    ending text check (ending in ('promoted', 'stopped', 'worse', 'superseded', 'withdrawn')),
    why text not null default '',
    told integer not null default 1 check (told in (0, 1)),
    foreign key (persona_id, version) references versions (persona_id, version)
) strict;
create index rollouts_open on rollouts (persona_id) where ended_at is null;

-- In which rollout a reply was counted, and when whoever asked for it first stopped it or had it made anew.
alter table replies add column rollout integer references rollouts (seq) on delete set null;
alter table replies add column interrupted_at real;
create index replies_of_rollout on replies (rollout) where rollout is not null;
create index replies_by_version on replies (persona_id, adapter_version, created_at);
"""

TAUGHT = """
-- Replies that somebody taught a persona through a form. `right` is under which they may be trained on.
create table taught (
    seq integer primary key autoincrement,
    guild_id integer not null,
    persona_id text not null,
    user_id integer not null,
    as_moderator integer not null check (as_moderator in (0, 1)),
    prompt text not null,
    reply text not null,
    instead_of text not null,
    right text not null,
    at real not null
) strict;
create index taught_by_persona on taught (persona_id, guild_id);
"""

COMPARISONS = """
-- Two replies to one prompt that one member was shown, A first, and what they chose; null until they have voted. A null
-- version is the base model.
create table comparisons (
    seq integer primary key autoincrement,
    guild_id integer not null,
    persona_id text not null,
    user_id integer not null,
    prompt_id text not null,
    prompt text not null,
    version_a text,
    version_b text,
    text_a text not null,
    text_b text not null,
    seed_a integer not null,
    seed_b integer not null,
    shown_at real not null,
    choice text check (choice in ('a', 'b', 'tie', 'bad')),
    voted_at real
) strict;
create index comparisons_voted on comparisons (persona_id, voted_at) where choice is not null;
create index comparisons_by_member on comparisons (user_id, shown_at);
"""

PROMOTING = """
-- Servers in which a version that the gate would promote goes live by itself; in all others somebody is asked.
create table promoting (
    guild_id integer primary key
) strict;
"""

ANSWERED = """
-- Requests over HTTP that came with a key, for a day: key and request as hashes, and what was answered (no status: the
-- bot ended while it did it).
create table answered (
    key blob primary key,
    request blob not null,
    status integer,
    body text not null,
    at real not null
) strict;
create index answered_by_age on answered (at);
"""
