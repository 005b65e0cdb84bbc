"""Recognises a reply that claims a name which is not its persona's. Imports no model library."""

import re

from personas.schemas.chat import ChatRequest, Persona, asked_turn, fold_name

NAME = r"((?:[Tt]he )?\w[\w'’-]*)"
NAMED_PATTERN = re.compile(
    r"\b(?:[Mm]y (?:\w+ )?name(?:['’]s| is)|[Nn]ame['’]s|(?:I['’]?m|I am|i['’]?m|i am) (?:called|named)"
    r"|(?:[Pp]eople|[Tt]hey|[Yy]ou may|[Yy]ou can) call me|[Mm]ein Name ist|[Ii]ch hei(?:ß|ss)e"
    rf"|[Mm]i nombre es|[Mm]e llamo|[Tt]ên (?:tôi|tớ|mình|em) là) {NAME}"
)
"""What follows is a name, if it is written as one."""
BEING_PATTERN = re.compile(
    rf"\b(?:I['’]?m|I am|i['’]?m|i am|[Ii]ch bin|[Yy]o soy|[Ss]oy|[Tt]ôi là) {NAME}"
    r"|(?:我是|我叫|我的名字是)(\w+)"
)
"""What follows may be a name, or anything that somebody is."""
ASKED_PATTERN = re.compile(r"\b(?:are|aren['’]?t|r) (?:you|u)\b([^?.!\n]*)", re.IGNORECASE)
YES_PATTERN = re.compile(
    r"\W*(?:yes|yeah|yep|aye|indeed|correct|right you are|of course|certainly|that(?:['’]s| is) me"
    r"|ja\b|sí|vâng|是)\b|I am[.!,]",
    re.IGNORECASE,
)
STAGE_PATTERN = re.compile(r"\*[^*]*\*?|\([^)]*\)?")
"""What a persona does, and not says."""


def claims_other_name(text: str, request: ChatRequest) -> bool:
    """Report whether a reply, or the beginning of one, claims the name of somebody else in the talk, or
    any name that its persona does not have: "I'm Mina", or "yes" to "are you Mina?".
    """
    persona = request.persona
    if persona is None or not persona.id:
        return False
    spoken = STAGE_PATTERN.sub(" ", text)
    own = own_words(persona)
    others = other_names(request) - own
    for pattern in (NAMED_PATTERN, BEING_PATTERN):
        for match in pattern.finditer(spoken):
            name = next(filter(None, match.groups()))
            word = fold_name(name)
            is_name = pattern is NAMED_PATTERN and name[0].isupper()
            if word in others or (is_name and word not in own):
                return True
    return bool(_asked_names(request) & others and YES_PATTERN.match(spoken))


def own_words(persona: Persona) -> set[str]:
    """Return the words by which a persona may call itself: those of its names and its tagline."""
    called = f"{persona.name} {persona.nickname} {persona.tagline}"
    return set(re.findall(r"\w[\w'’-]*", called.casefold()))


def other_names(request: ChatRequest) -> set[str]:
    """Return the words of the names of all others in a talk."""
    names = [turn.name for turn in request.turns if not turn.by_persona]
    return {
        fold_name(word) for name in (*names, *request.sampling.speakers) for word in name.split()
    }


def _asked_names(request: ChatRequest) -> set[str]:
    """Return the words of what the last message asks whether the persona is that."""
    asked = ASKED_PATTERN.search(asked_turn(request.turns).text)
    return set(re.findall(r"\w[\w'’-]*", asked[1].casefold())) if asked else set()
