-- The personas of a channel in their order. The one at position 0 answers what names none of them.
-- They are set together: `answers`, `set_by` and `set_at` are the same for all of a channel.
create table channel_personas (
    guild_id integer not null,
    channel_id integer not null,
    persona_id text not null,
    position integer not null check (position >= 0),
    answers text not null check (answers in ('mentions', 'everything')),
    set_by integer not null,
    set_at real not null,
    primary key (guild_id, channel_id, persona_id)
) strict;
create index channel_personas_of_persona on channel_personas (persona_id);

-- What is known of a channel or thread. The row goes when the channel was deleted and nothing that
-- was said there is stored any more (`is_gone` until then), or with its guild. `parent_id` is the
-- channel that a thread with messages or memories lies in: Discord deletes it with that, and tells
-- of none that is archived. The webhook outlives the personas that use it, and Discord allows 15 a
-- channel. `conversation` is the number of the present conversation (0 is the first), which began at
-- `conversation_event`: the prompt omits messages of earlier ones. `has_age_notice`: the channel was
-- told that an age-restricted persona does not speak there.
create table places (
    channel_id integer primary key,
    guild_id integer not null,
    parent_id integer,
    webhook_id integer,
    webhook_token text,
    conversation integer not null default 0,
    conversation_event integer not null default 0,
    has_age_notice integer not null default 0 check (has_age_notice in (0, 1)),
    is_gone integer not null default 0 check (is_gone in (0, 1)),
    check ((webhook_id is null) = (webhook_token is null))
) strict;
create index places_of_parent on places (parent_id) where parent_id is not null;
create index places_gone on places (channel_id) where is_gone;

-- `ordinal` counts the messages of a channel and leaves gaps where some were deleted, so that the
-- blocks in which history is trimmed stay where they are. `replies_to` is the message that a
-- message replies to. `conversation` is the one of its channel that a message belongs to, a reply
-- to that of its question, however late it is stored; 0 is the first.
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
    replies_to integer,
    conversation integer not null default 0,
    unique (channel_id, ordinal)
) strict;
create index messages_by_age on messages (at);
create index messages_of_guild on messages (guild_id, author_id, author_name);
create trigger message_edited after update of text on messages begin
    delete from message_vectors where seq = new.seq;
end;
create index messages_replying on messages (replies_to) where replies_to is not null;
create trigger message_deleted after delete on messages begin
    delete from quoted_messages where discord_message_id in (old.replies_to, old.channel_id)
        and not exists (
            select 1 from messages where replies_to = quoted_messages.discord_message_id
        )
        and not exists (
            select 1 from messages where channel_id = quoted_messages.discord_message_id
        );
end;
create index messages_by_author on messages (author_id, author_name);

-- `attempt` is increased when a reply is regenerated; `asked_by` may stop and regenerate it.
-- `interrupted_at` is when its author first stopped or regenerated it. `end_note` is the note under
-- a reply that has ended, until Discord has confirmed the message's last edit. `is_unseen`: Discord
-- has not shown the reply's end, as in a thread that was archived meanwhile; no prompt has its text.
-- A line that answers nobody has no trigger, and a `prompt` of what it is to say. The replies of
-- further personas to a message that calls several follow that to `first_event` by
-- `round_position`, from 1.
create table replies (
    event_id integer primary key,
    channel_id integer not null,
    persona_id text not null,
    trigger_seq integer references messages (seq) on delete set null,
    state text not null check (state in ('waiting', 'streaming', 'done', 'stopped', 'failed')),
    adapter_version text,
    seed integer,
    created_at real not null,
    guild_id integer not null default 0,
    asked_by integer not null default 0,
    attempt integer not null default 1,
    interrupted_at real,
    end_note text,
    is_unseen integer not null default 0 check (is_unseen in (0, 1)),
    prompt text,
    first_event integer,
    round_position integer check (round_position > 0),
    unique (first_event, round_position)
) strict;
create index replies_trigger on replies (trigger_seq);
create index replies_by_age on replies (created_at);
create index replies_by_version on replies (persona_id, adapter_version, created_at);
create index replies_unfinished on replies (created_at)
    where state in ('waiting', 'streaming') or end_note is not null;
create index replies_of_guild on replies (guild_id, persona_id, asked_by, trigger_seq);
create index replies_of_channel on replies (channel_id);
create index replies_by_asker on replies (asked_by);
create index replies_of_guild_by_age on replies (guild_id, created_at);

-- The highest version number assigned, by name (as in `jobs`): numbers are never reused.
create table version_numbers (
    name text primary key,
    last integer not null
) strict;

-- `name` is the persona's id or `dialogue/<job name>`; versions are numbered by it. A failed job
-- that `can_resume` is resumed once its cause is fixed. `decision` says whether its version was
-- promoted automatically or left to a moderator, null while nothing is decided; `announced` whether
-- its result was posted. The columns `card_…` are of the rest of the score card, which is measured
-- after the version is ready, null where a run measures all of it: the latest event of the trainer,
-- the number of attempts, and why it failed.
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
    result text,
    can_resume integer not null default 0 check (can_resume in (0, 1)),
    decision text check (decision in ('promoted', 'manual')),
    announced integer not null default 0 check (announced in (0, 1)),
    card_state text check (card_state in ('waiting', 'running', 'complete', 'failed', 'cancelled')),
    card_progress text,
    card_attempt integer not null default 0,
    card_error text
) strict;
create index jobs_by_guild on jobs (guild_id, started_at);
create index jobs_unfinished on jobs (state) where state in ('queued', 'running');
create index jobs_with_open_cards on jobs (card_state) where card_state in ('waiting', 'running');

-- `card` is the card of the version's prompts: all of it, or a name and one line, for a version
-- that was trained under it.
create table versions (
    persona_id text not null,
    version text not null,
    job_id text not null references jobs (job_id),
    installed_at real not null,
    scorecard text not null,
    card text not null default 'full' check (card in ('full', 'short')),
    primary key (persona_id, version)
) strict;
create index versions_by_age on versions (persona_id, installed_at);
create index versions_of_job on versions (job_id);

-- The newest row of a persona says which version is live; a null version is the base model.
-- `previous` is the row that a rollback from this one returns to; null stands for the base model,
-- before any promotion. `guild_id` and `kind` say where and how the live version was changed; `why`
-- is text for people. `for_guild` is the guild in which it went live; 0 stands for all guilds
-- without one of their own. There, a null version is the base model; in a guild, it is the live
-- version of all again.
create table promotions (
    seq integer primary key autoincrement,
    persona_id text not null,
    version text,
    promoted_by integer not null,
    at real not null,
    why text not null,
    previous integer references promotions (seq),
    guild_id integer not null default 0,
    kind text not null default 'promotion'
        check (kind in ('promotion', 'automatic promotion', 'rollback', 'withdrawal')),
    for_guild integer not null default 0,
    foreign key (persona_id, version) references versions (persona_id, version)
) strict;
create index promotions_by_persona on promotions (persona_id, seq);
create index promotions_by_guild on promotions (persona_id, for_guild, seq);

-- A long reply is split into several messages; `position` 0 is the first.
create table reply_parts (
    message_id integer primary key,
    event_id integer not null references replies (event_id) on delete cascade,
    position integer not null,
    unique (event_id, position)
) strict;

create table votes (
    event_id integer not null references replies (event_id) on delete cascade,
    attempt integer not null,
    user_id integer not null,
    vote integer not null check (vote in (-1, 1)),
    at real not null,
    primary key (event_id, attempt, user_id)
) strict;
create index votes_by_member on votes (user_id);

-- Channel 0 stands for the whole server, an empty persona for all of them.
create table mutes (
    guild_id integer not null,
    channel_id integer not null,
    persona_id text not null,
    muted_by integer not null,
    at real not null,
    primary key (guild_id, channel_id, persona_id)
) strict;

-- A member's decision about training on their messages; without a row there is no consent.
create table consents (
    user_id integer primary key,
    opted_in integer not null check (opted_in in (0, 1)),
    at real not null,
    language text not null
) strict;

-- What is gone, so that a restored backup does not bring it back: a `message` that was deleted on
-- Discord; a `memory` that was forgotten, by number; a `person` who was erased, by key
-- (`personas.home.pseudonyms.keyed_person`). A `persona` that was removed may come back, with a
-- backup, too: what it remembers of members goes later. `at` is when it went, but for messages and
-- memories their own time. It is in the key because numbers of memories are given again after a
-- restore.
create table gone (
    kind text not null check (kind in ('message', 'memory', 'person', 'persona')),
    id text not null,
    at real not null,
    primary key (kind, id, at)
) strict, without rowid;
create index gone_by_age on gone (kind, at);

-- An erasure request and its next step. `traces` identifies the person and is emptied by a step;
-- `receipt` stays.
create table forgettings (
    seq integer primary key autoincrement,
    person text not null,
    asked_at real not null,
    step text not null,
    traces text not null,
    receipt text not null
) strict;

-- Versions that may not be served any more, because a person in their data was erased.
create table withdrawn (
    persona_id text not null,
    version text not null,
    at real not null,
    primary key (persona_id, version)
) strict;

-- The account of the bot that was last in a guild: a guild of another account has not removed this
-- one. `left_at` is when the bot left it, null while it is there. `deleted_at` is when its data were
-- deleted last: an older backup does not restore them.
create table guilds (
    guild_id integer primary key,
    application_id integer,
    left_at real,
    deleted_at real
) strict;

-- Replies taught to a persona through a form. `right` is the right under which they may be trained
-- on.
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

-- Two replies to one prompt, shown to one member with A first, and the member's choice; null until
-- they vote. A null version is the base model.
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

-- HTTP requests with an idempotency key, for a day: hashes of key and request, and the response (no
-- status: the bot stopped while handling it).
create table answered (
    key blob primary key,
    request blob not null,
    status integer,
    body text not null,
    at real not null
) strict;
create index answered_by_age on answered (at);

-- A member's contribution through a form or a file: `what` is the name of a lore file, or `card`. A
-- file that was being replaced when the bot ended may be the old member's or the new one's: it has
-- both.
create table gifts (
    guild_id integer not null,
    persona_id text not null,
    what text not null,
    user_id integer not null,
    at real not null,
    primary key (guild_id, persona_id, what, user_id)
) strict;

-- A text that a member asked a persona to keep. `by_persona`: it is the persona's own reply to
-- them. `message_id` is the Discord message that it is a copy of, with which it is edited and
-- deleted. Null: typed, or changed since. `channel_id` is the channel of that message, with which
-- the memory is deleted, too, however long the row of the message is kept.
create table memories (
    seq integer primary key autoincrement,
    guild_id integer not null,
    persona_id text not null,
    user_id integer not null,
    text text not null,
    by_persona integer not null check (by_persona in (0, 1)),
    message_id integer,
    at real not null,
    channel_id integer
) strict;
create index memories_of_member on memories (user_id, guild_id, persona_id);
create index memories_of_message on memories (message_id) where message_id is not null;
create trigger memory_edited after update of text on memories begin
    delete from memory_vectors where seq = new.seq;
end;
create index memories_of_channel on memories (channel_id) where message_id is not null;

-- The sentence embedding (float16) of a message to a persona, by which it is found again, and the
-- encoder that made it.
create table message_vectors (
    seq integer primary key references messages (seq) on delete cascade,
    encoder text not null,
    vector blob not null
) strict;

-- The sentence embeddings (float32) of a memory as a whole and of its sentences, and the encoder
-- that made them.
create table memory_vectors (
    seq integer primary key references memories (seq) on delete cascade,
    encoder text not null,
    vectors blob not null
) strict;

-- Messages that members see beside others, because one replies to them or a thread was started from
-- them (it has their id), and that are not in `messages`. A null text cannot be read.
create table quoted_messages (
    discord_message_id integer primary key,
    guild_id integer not null,
    channel_id integer not null,
    author_id integer not null,
    author_name text not null,
    text text,
    at real not null
) strict;
create index quoted_messages_by_author on quoted_messages (author_id);
create index quoted_messages_of_channel on quoted_messages (channel_id);

-- The messages of a member that one reply answers, where they are several. The reply's trigger is
-- the last of them.
create table reply_lines (
    seq integer primary key references messages (seq) on delete cascade,
    event_id integer not null references replies (event_id) on delete cascade
) strict;
create index reply_lines_of_reply on reply_lines (event_id);
create trigger line_deleted after delete on reply_lines begin
    update replies set
        trigger_seq = (select max(seq) from reply_lines where event_id = old.event_id)
        where event_id = old.event_id and (trigger_seq is null or trigger_seq = old.seq);
end;
create trigger line_of_further_deleted after delete on reply_lines begin
    update replies set
        trigger_seq = (select max(seq) from reply_lines where event_id = old.event_id)
        where first_event = old.event_id and (trigger_seq is null or trigger_seq = old.seq);
end;

-- Trainings of a persona in a guild at a weekly time (bit 0 of `weekdays` is Monday, `minute` that
-- of the day), or after so many new samples. `options` is the JSON of the request, `outcome` why
-- the latest training was refused. What came up to `handled_at` (seconds since 1970) has been
-- handled. `job_id` is the job that the schedule queued last.
create table training_schedules (
    seq integer primary key autoincrement,
    guild_id integer not null,
    channel_id integer not null,
    persona_id text not null,
    weekdays integer check (weekdays between 1 and 127),
    minute integer check (minute between 0 and 1439),
    new_samples integer check (new_samples > 0),
    options text not null,
    set_by integer not null,
    set_at real not null,
    handled_at real not null,
    outcome text not null,
    job_id text not null default '',
    unique (guild_id, persona_id)
) strict;

-- When a member last got a reply of a persona in a channel, and was last told that personas are AI:
-- when, and below the reply to which event.
create table talks (
    guild_id integer not null,
    channel_id integer not null,
    user_id integer not null,
    spoke_at real not null,
    told_at real not null,
    told_event integer not null,
    primary key (channel_id, user_id)
) strict;
create index talks_by_age on talks (spoke_at);

-- How many messages were answered with help lines (kind `helplines`) or the text for emergencies
-- (`emergency`), and how many replies were withheld (`withheld`), by day (UTC) and language: neither
-- whose, nor where, nor what.
create table safety_counts (
    kind text not null,
    day text not null,
    language text not null,
    total integer not null,
    primary key (kind, day, language)
) strict;

-- Members whom a persona of a guild, or all of them (an empty id), do not answer.
create table blocks (
    guild_id integer not null,
    user_id integer not null,
    persona_id text not null,
    blocked_by integer not null,
    at real not null,
    primary key (guild_id, user_id, persona_id)
) strict;

-- Lines that the persona of a channel says at a weekly time (bit 0 of `weekdays` is Monday,
-- `minute` that of the day). What came up to `handled_at` (seconds since 1970) has been handled.
-- `outcome` is why a line was left out last, which is empty for one that was said.
create table scheduled_lines (
    seq integer primary key autoincrement,
    guild_id integer not null,
    channel_id integer not null,
    weekdays integer not null check (weekdays between 1 and 127),
    minute integer not null check (minute between 0 and 1439),
    prompt text not null,
    set_by integer not null,
    set_at real not null,
    handled_at real not null,
    outcome text not null default ''
) strict;

-- How new members of a guild are greeted: with a text, or as a prompt describes to the persona of
-- the channel.
create table member_greetings (
    guild_id integer primary key,
    channel_id integer not null,
    is_prompt integer not null check (is_prompt in (0, 1)),
    text text not null,
    set_by integer not null,
    set_at real not null
) strict;

-- Replies that members have reported to the moderators of a guild: the reply to an event, its
-- message there, and one of some reasons. What the reply says is not kept with it. `note` is what
-- the member has written beside the reason.
create table reports (
    seq integer primary key autoincrement,
    guild_id integer not null,
    channel_id integer not null,
    message_id integer not null,
    event_id integer not null,
    persona_id text not null,
    version text,
    reason text not null,
    user_id integer not null,
    at real not null,
    note text not null default '',
    unique (event_id, user_id)
) strict;
create index reports_of_guild on reports (guild_id, user_id, at);

-- Roles of a guild whose holders may talk, teach, train or promote.
create table action_roles (
    guild_id integer not null,
    action text not null,
    role_id integer not null,
    primary key (guild_id, action, role_id)
) strict;

-- Who was greeted as a new member of a guild, and by the reply to which event, which mentions the
-- first ones.
create table greeted_members (
    guild_id integer not null,
    user_id integer not null,
    event_id integer not null,
    at real not null,
    is_mentioned integer not null check (is_mentioned in (0, 1)),
    primary key (guild_id, user_id)
) strict;
create index greeted_members_of_event on greeted_members (event_id);
create index greeted_members_by_member on greeted_members (user_id);

-- By which Discord takes the messages of a reply where the bot is not, for 15 minutes after the
-- interaction at `at`.
create table interaction_tokens (
    event_id integer primary key references replies (event_id) on delete cascade,
    token text not null,
    is_private integer not null check (is_private in (0, 1)),
    at real not null
) strict;

-- The persona whose name and picture the bot itself has in a guild; null while it is taken off.
-- `shown` stands for the name and picture that Discord has confirmed, and is empty before that.
create table bot_faces (
    guild_id integer primary key,
    persona_id text,
    shown text not null
) strict;

-- Replies to members, each time that one is made, while its limits may count them. `event_id` is
-- that of the stored reply, if there is one. Once a member is erased, it is null, and `user_id`,
-- here and in `blocks`, is keyed and below 0 (`bot.platform.db.erased_ids`).
create table reply_attempts (
    seq integer primary key,
    guild_id integer not null,
    user_id integer not null,
    event_id integer,
    at real not null
) strict;
create index reply_attempts_of_member on reply_attempts (guild_id, user_id, at);
create index reply_attempts_of_event on reply_attempts (event_id);
create index reply_attempts_by_age on reply_attempts (at);

-- What is set on Discord: for a channel, whoever speaks there (`persona_id` is empty), for a persona
-- in a guild (`channel_id` is 0), or for the guild. Guild 0 stands for all guilds, or for direct
-- messages. `key` is that of `bot.guild_settings.definitions`, `value` JSON.
create table settings (
    guild_id integer not null,
    channel_id integer not null,
    persona_id text not null,
    key text not null,
    value text not null check (json_valid(value)),
    primary key (guild_id, channel_id, persona_id, key)
) strict;
create index settings_of_channel on settings (channel_id);
create index settings_of_persona on settings (persona_id);
