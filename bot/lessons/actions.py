"""Teaches a persona replies and takes them back, for those who may."""

import time
from dataclasses import dataclass

from bot.chat.message_text import ANONYMOUS_NAMES, readable_text
from bot.platform.errors import RefusedError
from bot.platform.localisation import gettext_lazy
from bot.store import Lesson, Store
from bot.training.stored_datasets import FORM_SOURCE
from personas.errors import RequestError
from personas.home.rights import OPT_IN_COMMAND

MAX_LESSONS = 500
"""Of one member. Nobody's count beyond a share of all preferences, so more would not be heard."""


@dataclass(frozen=True)
class Teacher:
    """A member of a guild. `is_moderator`: the member manages it."""

    guild_id: int
    user_id: int
    is_moderator: bool

    def may_change(self, lesson: Lesson) -> bool:
        """Report whether the member may see and take back a lesson."""
        is_here = lesson.guild_id == self.guild_id
        return is_here and (self.is_moderator or lesson.user_id == self.user_id)


def require_may_teach(store: Store, teacher: Teacher) -> None:
    """Raise `RefusedError` for a member who has not consented to training. A moderator need not."""
    if teacher.is_moderator:
        return
    decision = store.people.decision(teacher.user_id)
    if decision is None or not decision.opted_in:
        raise RefusedError(
            gettext_lazy(
                "Members may teach once they have agreed that personas learn from what they write."
            ),
            gettext_lazy(
                "`{command}` does that; it is explained before you press the button.",
                command=OPT_IN_COMMAND,
            ),
        )


def teach(
    store: Store, teacher: Teacher, persona_id: str, *, prompt: str, reply: str, instead_of: str
) -> int:
    """Store a lesson and return its number. `instead_of` may be empty.

    Raises `RefusedError` where the member may not teach (more), and `RequestError` for an
    incomplete lesson.
    """
    require_may_teach(store, teacher)
    if store.lessons.count(teacher.user_id) >= MAX_LESSONS:
        raise RefusedError(
            gettext_lazy("You have taught {count} replies already.", count=MAX_LESSONS),
            gettext_lazy("Take some back: `/persona taught`."),
        )
    lesson = Lesson(
        guild_id=teacher.guild_id,
        persona_id=persona_id,
        user_id=teacher.user_id,
        as_moderator=teacher.is_moderator,
        prompt=_readable(prompt),
        reply=_readable(reply),
        instead_of=_readable(instead_of),
        right=FORM_SOURCE,
        at=time.time(),
    )
    if not (lesson.prompt and lesson.reply):
        raise RequestError(
            gettext_lazy("A prompt and a reply are needed."), gettext_lazy("Fill in both fields.")
        )
    if lesson.reply == lesson.instead_of:
        raise RequestError(
            gettext_lazy("The reply it should give is the one it should not give."),
            gettext_lazy("Change one of them."),
        )
    return store.lessons.add(lesson)


def lessons_for(store: Store, teacher: Teacher, persona_id: str) -> list[Lesson]:
    """List the lessons of a persona that a member may take back, oldest first."""
    lessons = store.lessons.of_persona(persona_id, teacher.guild_id)
    return [lesson for lesson in lessons if teacher.may_change(lesson)]


def take_back(store: Store, teacher: Teacher, seq: int) -> Lesson:
    """Delete a lesson, and return it. Raises `RefusedError` for other members' lessons, and for
    unknown ones.
    """
    lesson = store.lessons.get(seq)
    if lesson is None or not teacher.may_change(lesson):
        raise RefusedError(
            gettext_lazy("There is no taught reply {number} of yours here.", number=seq),
            gettext_lazy("`/persona taught` lists them."),
        )
    store.lessons.delete(seq)
    return lesson


def _readable(text: str) -> str:
    """The text of a field as a message is read, without the names that it mentions."""
    return readable_text(text, ANONYMOUS_NAMES, keep_code=False).strip()
