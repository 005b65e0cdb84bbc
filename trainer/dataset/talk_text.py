"""The texts of a conversation as samples have them: names in place of macros, and thoughts apart
from replies.
"""

import re
from dataclasses import replace

from personas.engine.thoughts import TAG_PATTERN, remove_thoughts
from personas.prompt.renderer import DATASET_USER
from personas.schemas.chat import Persona
from trainer.sources.conversation import Conversation, SourceMessage, is_chat_log

NAME_MACRO_PATTERN = re.compile(r"\{\{(user|char)\}\}", re.IGNORECASE)


def fill_names(conversation: Conversation, persona: Persona | None = None) -> Conversation:
    """Replace `{{user}}` and `{{char}}` in a data set's row by the speakers' names, as a card's are
    when it is served.

    `persona` speaks in it, if one does. What people wrote in a chat stays as it is.
    """
    texts = [*(message.text for message in conversation.messages), conversation.rejected]
    if is_chat_log(conversation) or not any(map(NAME_MACRO_PATTERN.search, texts)):
        return conversation
    messages = conversation.messages
    speakers = {message.speaker.is_persona: message.speaker.name for message in reversed(messages)}
    char = speakers.get(True, "")
    if persona:
        char = persona.nickname or persona.name
    user = speakers.get(False, DATASET_USER)
    filled = []
    for message in messages:
        # With several users, the persona speaks to the last one.
        if not message.speaker.is_persona:
            user = message.speaker.name
        filled.append(replace(message, text=_fill(message.text, user, char)))
    rejected = _fill(conversation.rejected, user, char)
    return replace(conversation, messages=tuple(filled), rejected=rejected)


def _fill(text: str, user: str, char: str) -> str:
    names = {"user": user, "char": char}
    return NAME_MACRO_PATTERN.sub(lambda macro: names[macro[1].lower()], text)


def split_thought(text: str) -> tuple[str, str]:
    """Split a reply into its thoughts and what it says; the thoughts are empty if it has none."""
    spoken = remove_thoughts(text)
    if not spoken.has_thought:
        return "", text
    tags = list(TAG_PATTERN.finditer(text))
    opening = next((tag.end() for tag in tags if tag["opening"]), 0)
    closing = next((tag.start() for tag in tags if tag["closing"] and tag.start() >= opening), None)
    if tags and tags[0]["closing"]:
        # The opening tag was part of the prompt.
        return text[: tags[0].start()].strip(), spoken.text
    return text[opening:closing].strip(), spoken.text


def without_thought(message: SourceMessage) -> SourceMessage:
    """Return a persona's message without thoughts; others as they are."""
    if not message.speaker.is_persona:
        return message
    thought, spoken = split_thought(message.text)
    if not thought and spoken == message.text:
        return message
    return replace(message, text=spoken)
