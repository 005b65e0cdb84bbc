"""The schema as numbered steps: step n brings a database of version n-1 to version n.

A step that has been released is never changed; a new one is added behind it. Times are seconds since 1970 (UTC),
ids of guilds, channels, messages and members are Discord's snowflakes.
"""

from __future__ import annotations

from bot.store.schema_later import ANSWERED, COMPARISONS, PROMOTING, ROLLOUTS, TAUGHT

FIRST = """
create table channels (
    guild_id integer not null,
    channel_id integer not null,
    persona_id text not null,
    answers text not null check (answers in ('mentions', 'everything')),
    set_by integer not null,
    set_at real not null,
    primary key (guild_id, channel_id)
) strict;

-- Apart from `channels`: a webhook outlives the persona that used it, and Discord allows 15 a channel.
create table webhooks (
    channel_id integer primary key,
    guild_id integer not null,
    webhook_id integer not null,
    token text not null
) strict;

-- `ordinal` counts the messages of a channel and leaves gaps where some were deleted, so that the blocks in which
-- history is trimmed stay where they are.
create table messages (
    seq integer primary key autoincrement,
    guild_id integer not null,
    channel_id integer not null,
    ordinal integer not null,
    discord_message_id integer unique,
    author_id integer not null,
    author_name text not null,
    persona_id text,
    text text not null,
    adapter_version text,
    at real not null,
    unique (channel_id, ordinal)
) strict;

create table replies (
    event_id integer primary key,
    channel_id integer not null,
    persona_id text not null,
    trigger_seq integer references messages (seq) on delete set null,
    webhook_message_id integer,
    state text not null check (state in ('waiting', 'streaming', 'done', 'stopped', 'failed')),
    adapter_version text,
    seed integer,
    created_at real not null
) strict;
create index replies_unfinished on replies (created_at) where state in ('waiting', 'streaming');
create index replies_trigger on replies (trigger_seq);

-- The highest version number given out by name (as in `jobs`): numbers are never used twice.
create table version_numbers (
    name text primary key,
    last integer not null
) strict;

-- `name` is the persona's id or `dialogue/<job name>`: what versions are numbered by.
create table jobs (
    seq integer primary key autoincrement,
    job_id text not null unique,
    guild_id integer not null,
    channel_id integer not null,
    requested_by integer not null,
    name text not null,
    request text not null,
    persona text,
    version text not null,
    state text not null check (state in ('queued', 'running', 'done', 'failed', 'cancelled')),
    attempt integer not null default 0,
    attempt_token text,
    queued_at real not null,
    started_at real,
    finished_at real,
    error text,
    advice text,
    progress text,
    progress_message_id integer,
    result text
) strict;
create index jobs_by_guild on jobs (guild_id, started_at);
create index jobs_unfinished on jobs (state) where state in ('queued', 'running');

create table versions (
    persona_id text not null,
    version text not null,
    job_id text not null references jobs (job_id),
    installed_at real not null,
    scorecard text not null,
    primary key (persona_id, version)
) strict;

-- The newest row of a persona says which version is live; a null version is the base model. `previous` is the row that
-- a rollback from this one returns to; null stands for the base model, before any promotion.
create table promotions (
    seq integer primary key autoincrement,
    persona_id text not null,
    version text,
    promoted_by integer not null,
    at real not null,
    why text not null,
    previous integer references promotions (seq),
    foreign key (persona_id, version) references versions (persona_id, version)
) strict;
create index promotions_by_persona on promotions (persona_id, seq);
"""

SECOND = """
-- A long reply goes on in further messages; `position` 0 is the first.
create table reply_parts (
    message_id integer primary key,
    event_id integer not null references replies (event_id) on delete cascade,
    position integer not null,
    unique (event_id, position)
) strict;
insert into reply_parts select webhook_message_id, event_id, 0 from replies where webhook_message_id is not null;
alter table replies drop column webhook_message_id;

-- `attempt` grows when a reply is made anew; `asked_by` may stop it and have it made anew.
alter table replies add column guild_id integer not null default 0;
alter table replies add column asked_by integer not null default 0;
alter table replies add column attempt integer not null default 1;
update replies set
    guild_id = coalesce((select guild_id from messages where seq = trigger_seq), 0),
    asked_by = coalesce((select author_id from messages where seq = trigger_seq), 0);

create table votes (
    event_id integer not null references replies (event_id) on delete cascade,
    attempt integer not null,
    user_id integer not null,
    vote integer not null check (vote in (-1, 1)),
    at real not null,
    primary key (event_id, attempt, user_id)
) strict;

-- Channel 0 stands for the whole server, an empty persona for all of them.
create table mutes (
    guild_id integer not null,
    channel_id integer not null,
    persona_id text not null,
    muted_by integer not null,
    at real not null,
    primary key (guild_id, channel_id, persona_id)
) strict;
"""

THIRD = """
-- A talk that was started afresh: the persona is shown nothing up to `after_seq`.
create table fresh_starts (
    channel_id integer primary key,
    after_seq integer not null
) strict;
"""

FOURTH = """
-- What a member has decided about training on what they write; without a row they have agreed to nothing.
create table consents (
    user_id integer primary key,
    opted_in integer not null check (opted_in in (0, 1)),
    at real not null,
    language text not null
) strict;

-- What a member has given through a form or a file: `what` is the name of a file of lore, or `card`.
create table gifts (
    guild_id integer not null,
    persona_id text not null,
    what text not null,
    user_id integer not null,
    at real not null,
    primary key (guild_id, persona_id, what)
) strict;

-- Who has been forgotten, under a key (`personas.keys.keyed`): they are forgotten again in a backup that comes back.
create table tombstones (
    person text primary key,
    at real not null
) strict;

-- A forgetting and how far it is. `traces` says whom to look for, and is erased with the last step; `receipt` stays.
create table forgettings (
    seq integer primary key autoincrement,
    person text not null,
    asked_at real not null,
    step text not null,
    traces text not null,
    receipt text not null
) strict;

-- Versions that may not be served any more, because somebody who is in them has been forgotten.
create table withdrawn (
    persona_id text not null,
    version text not null,
    at real not null,
    primary key (persona_id, version)
) strict;

-- Servers that have removed the bot, and when.
create table departed_guilds (
    guild_id integer primary key,
    at real not null
) strict;

create index messages_by_author on messages (author_id);
create index messages_by_age on messages (at);
"""

FIFTH = """
-- The account of the bot that was last in a server: a server that only another account was in is not missed.
-- `deleted_at` says when all that was kept of it was deleted last: an older backup does not bring that back.
create table guilds (
    guild_id integer primary key,
    application_id integer,
    deleted_at real
) strict;

-- What was deleted on Discord, by id alone: a backup that comes back does not bring it back. `at` is when it was said.
create table deleted_messages (
    discord_message_id integer primary key,
    at real not null
) strict;

create index replies_by_age on replies (created_at);
"""

SIXTH = """
-- Whether a job that has failed could go on where it was, once what was missing is there again.
alter table jobs add column can_resume integer not null default 0 check (can_resume in (0, 1));
"""

MIGRATIONS = (FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, ROLLOUTS, TAUGHT, COMPARISONS, PROMOTING, ANSWERED)
