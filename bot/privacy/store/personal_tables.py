"""What each table has of a person: the erasure, the export and the clock's correction go by it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PersonalTable:
    """A table with something of a person.

    `people` are its columns with the id of a member, `time` is the one that says when a row was
    stored, which decides whether an erasure reaches it, and `texts` are those of free text, in which
    names and texts are replaced.

    `exported` are the columns, or expressions, of a member's export, where the table is called
    `exported_as`, and its rows are those of `whose`, in the order of `order`. Left out: the table's
    name, and the rows with the member in the first of `people`.
    """

    name: str
    people: tuple[str, ...] = ()
    time: str = ""
    texts: tuple[str, ...] = ()
    exported: str = ""
    exported_as: str = ""
    whose: str = ""
    order: str = ""

    @property
    def rows_sql(self) -> str:
        """The rows of the member `:user`, whose key is `:erased`, for a query."""
        return f"from {self.name} where {self.whose or f'{self.people[0]} = :user'}"

    @property
    def export_sql(self) -> str:
        """The query of what is exported of these rows."""
        order = f" order by {self.order}" if self.order else ""
        return f"select {self.exported} {self.rows_sql}{order}"


PERSONAL_TABLES = (
    PersonalTable(
        name="messages",
        people=("author_id",),
        time="at",
        texts=("text", "author_name"),
        exported="guild_id, channel_id, discord_message_id, author_name, text, at",
        order="seq",
    ),
    PersonalTable(
        name="quoted_messages",
        people=("author_id",),
        time="at",
        texts=("text", "author_name"),
        exported="guild_id, channel_id, discord_message_id, author_name, text, at",
        order="at",
    ),
    PersonalTable(
        name="replies",
        people=("asked_by",),
        time="created_at",
        texts=("end_note", "prompt"),
        exported="event_id, guild_id, channel_id, persona_id, state, created_at",
        exported_as="replies_to_you",
    ),
    PersonalTable(
        name="votes",
        people=("user_id",),
        time="at",
        exported="event_id, attempt, vote, at",
    ),
    PersonalTable(
        name="consents",
        people=("user_id",),
        time="at",
        exported="opted_in, at, language",
        exported_as="consent",
    ),
    PersonalTable(
        name="gifts",
        people=("user_id",),
        time="at",
        texts=("what",),
        exported="guild_id, persona_id, what, at",
    ),
    PersonalTable(
        name="taught",
        people=("user_id",),
        time="at",
        texts=("prompt", "reply", "instead_of"),
        exported="guild_id, persona_id, prompt, reply, instead_of, right, at",
        order="seq",
    ),
    PersonalTable(
        name="comparisons",
        people=("user_id",),
        time="shown_at",
        texts=("prompt", "text_a", "text_b"),
        exported=(
            "guild_id, persona_id, prompt, version_a, text_a, version_b, text_b, shown_at, choice, "
            "voted_at"
        ),
        order="seq",
    ),
    PersonalTable(
        name="memories",
        people=("user_id",),
        time="at",
        texts=("text",),
        exported="seq as number, guild_id, persona_id, text, by_persona, at",
        order="seq",
    ),
    PersonalTable(
        name="jobs",
        people=("requested_by",),
        texts=(
            "name",
            "request",
            "error",
            "advice",
            "progress",
            "result",
            "card_progress",
            "card_error",
        ),
        exported="job_id, guild_id, channel_id, name, version, state, queued_at, request",
    ),
    PersonalTable(
        name="scheduled_lines",
        people=("set_by",),
        texts=("prompt",),
        exported="guild_id, channel_id, prompt, set_at",
    ),
    PersonalTable(
        name="member_greetings",
        people=("set_by",),
        texts=("text",),
        exported="guild_id, channel_id, text, set_at",
    ),
    PersonalTable(
        name="training_schedules",
        people=("set_by",),
        exported="guild_id, channel_id, persona_id, options, set_at",
    ),
    PersonalTable(
        name="promotions",
        people=("promoted_by",),
        texts=("why",),
        exported="persona_id, version, at, why",
    ),
    PersonalTable(
        name="channel_personas",
        people=("set_by",),
        exported="guild_id, channel_id, persona_id, answers, set_at",
        exported_as="channels",
        whose="set_by = :user and position = 0",
    ),
    PersonalTable(
        name="mutes",
        people=("muted_by",),
        exported="guild_id, channel_id, persona_id, at",
    ),
    PersonalTable(
        name="blocks",
        people=("user_id", "blocked_by"),
        time="at",
        exported="guild_id, persona_id, at, user_id in (:user, :erased) as of_you",
        whose="user_id in (:user, :erased) or blocked_by = :user",
    ),
    PersonalTable(
        name="reports",
        people=("user_id",),
        time="at",
        texts=("note",),
        exported="guild_id, channel_id, message_id, persona_id, reason, note, at",
        order="seq",
    ),
    PersonalTable(
        name="talks",
        people=("user_id",),
        time="spoke_at",
        exported="guild_id, channel_id, spoke_at, told_at, told_event",
    ),
    PersonalTable(
        name="greeted_members",
        people=("user_id",),
        time="at",
        exported="guild_id, at",
    ),
    PersonalTable(
        name="reply_attempts",
        people=("user_id",),
        time="at",
        exported="guild_id, at",
        whose="user_id in (:user, :erased)",
        order="seq",
    ),
    PersonalTable(name="version_numbers", texts=("name",)),
    PersonalTable(name="answered", texts=("body",)),
)
