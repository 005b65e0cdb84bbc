"""The order of a prompt's messages, for chat templates that do not take every one."""

from collections.abc import Sequence

from personas.prompt.chat_template import Message

OPENING_MESSAGE = "…"
"""What the other side says before a persona that speaks first, where a chat template has no place
for that.
"""


def with_system(system: str, messages: Sequence[Message], *, has_role: bool) -> list[Message]:
    """Put a system text before messages; into the first one, the user's, unless the template
    `has_role` for it.
    """
    if not system:
        return [*messages]
    if has_role:
        return [{"role": "system", "content": system}, *messages]
    first = {"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}
    return [first, *messages[1:]]


def with_opening(messages: Sequence[Message], *, may_open: bool) -> list[Message]:
    """Insert a message before one of the assistant's that answers none, unless the template lets it
    speak first.
    """
    inserted: list[Message] = []
    for place, message in enumerate(messages):
        is_answer = place and messages[place - 1]["role"] == "user"
        may_stand = is_answer or (place == 0 and may_open)
        if message["role"] == "assistant" and not may_stand:
            inserted.append({"role": "user", "content": OPENING_MESSAGE})
        inserted.append(message)
    return inserted


def alternating(messages: Sequence[Message]) -> list[Message]:
    """Return messages for a template that takes the user's and the assistant's in turn alone: the
    system text goes into the first one.
    """
    system = ""
    talk = [*messages]
    if talk[0]["role"] == "system":
        system = talk.pop(0)["content"]
    return with_system(system, with_opening(talk, may_open=False), has_role=False)
