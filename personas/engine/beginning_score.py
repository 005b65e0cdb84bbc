"""The criterion by which a reply's beginning is chosen among candidates, and which of them are
passed over. Imports no model library.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from personas.engine.false_names import claims_other_name
from personas.schemas.chat import ChatRequest, Turn, asked_turn

T = TypeVar("T")

CANDIDATE_TOKENS = 12
"""Length of the beginning that is chosen; whole sentences cost more and choose little better."""
CARD_WEIGHT = 0.7
"""λ of the score."""
MIN_ECHO_WORDS = 6
"""Fewer words of a message may begin an answer to it: "Nobody came to your birthday, …"."""
DRY_MULTIPLIER = 0.8
DRY_BASE = 1.75
DRY_ALLOWED_TOKENS = 2
"""The penalty of further candidates on repeating what was said: DRY, "don't repeat yourself"
(oobabooga/textgen#5677), with its author's values. A token that continues a run of n ≥ 2 tokens that
was said before loses 0.8 · 1.75ⁿ⁻² of its logit.
"""
MIN_REPEATED_LETTERS = 12
"""A persona may say again what has fewer letters and digits: "Yes, of course."."""
SHORT_HEADING_WORDS = 2
UNENDED_PATTERN = re.compile(r"[\w,;:(–—-]\s*$")


def beginning_score(talk_logprob: float, card_logprob: float, tokens: int) -> float:
    """Return log p(text | talk) − λ log p(text | card alone) per token of the text.

    A text that would fit any talk loses against a text that fits this one (arXiv 1510.03055,
    anti-language model).
    """
    return (talk_logprob - CARD_WEIGHT * card_logprob) / tokens


def comparable(
    candidates: Sequence[T],
    text_of: Callable[[T], str],
    request: ChatRequest,
    has_stopped: Callable[[T], bool] = lambda candidate: False,
) -> Sequence[T]:
    """Return the candidates that can be compared: those without a fault, if there are any; else those
    whose fault is the lesser one, to repeat something or to end in mid-sentence.
    """
    worded = [each for each in candidates if can_be_compared(text_of(each))]
    own = [each for each in worded if is_its_own(text_of(each), request)]
    whole = []
    for each in unrepeated(own, text_of, request):
        if not (has_stopped(each) and breaks_off(text_of(each), request)):
            whole.append(each)
    return whole or own or worded


def all_passed_over(
    candidates: Sequence[T], text_of: Callable[[T], str], request: ChatRequest
) -> bool:
    """Return whether further candidates should be drawn: all have a fault, and one of them says again
    what the persona has said, or is not the persona's own.
    """
    said = said_before(request)
    own = []
    is_grave = False
    for each in candidates:
        is_own = is_its_own(text_of(each), request)
        is_grave = is_grave or not is_own or says_again(text_of(each), said)
        if is_own:
            own.append(each)
    return is_grave and not unrepeated(own, text_of, request)


def is_its_own(text: str, request: ChatRequest) -> bool:
    """Return whether a beginning neither claims a name that its persona does not have nor recites a
    heading of the prompt's lore.
    """
    return not (claims_other_name(text, request) or recites_heading(text, request))


def recites_heading(text: str, request: ChatRequest) -> bool:
    """Return whether a beginning is one of the headings of the prompt's lore, or has one before a colon
    or a break. A short one alone may be an answer: "Admiral Butterworth.".
    """
    for passage in request.lore:
        words = re.findall(r"\w+", passage.heading)
        ends = r"\s*(?:[:\]\n–—]|- )"
        if len(words) > SHORT_HEADING_WORDS:
            ends += r"|\W*$"
        pattern = r"\W*" + r"\W+".join(words) + f"(?:{ends})"
        if len(words) > 1 and re.match(pattern, text, re.IGNORECASE):
            return True
    return False


def breaks_off(text: str, request: ChatRequest) -> bool:
    """Return whether a whole reply ends in mid-sentence: with a letter or a comma, where the persona
    ends its greeting with more.
    """
    greeting = request.persona.first_mes if request.persona else ""
    return bool(UNENDED_PATTERN.search(text) and greeting and not UNENDED_PATTERN.search(greeting))


def unrepeated(
    candidates: Sequence[T], text_of: Callable[[T], str], request: ChatRequest
) -> Sequence[T]:
    """Return the candidates that repeat neither the message nor what the persona has said."""
    message = Turn("", "")  # the prompts of evaluations are token ids alone
    if request.turns:
        message = asked_turn(request.turns)
    said = said_before(request)
    new = []
    for candidate in candidates:
        text = text_of(candidate)
        is_old = repeats(text, message) or says_again(text, said)
        if can_be_compared(text) and not is_old:
            new.append(candidate)
    return new


def said_before(request: ChatRequest) -> list[str]:
    """Return what the persona has said in the messages of a prompt, and the reply that is replaced."""
    said = [turn.text for turn in request.turns if turn.by_persona]
    if request.replaces:
        said.append(request.replaces)
    return said


def says_again(text: str, said: Sequence[str]) -> bool:
    """Return whether a reply, or the beginning of one, is how something began that was said,
    whatever the case, spaces and punctuation.
    """
    letters = _letters(text)
    if len(letters) < MIN_REPEATED_LETTERS:
        return False
    return any(_letters(each).startswith(letters) for each in said)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def repeats(text: str, message: Turn) -> bool:
    """Return whether a beginning speaks as the message's author, or repeats what they say: nothing
    fits a message better than the message itself, so the score would prefer it.
    """
    if message.name and text.lstrip().startswith(f"{message.name}:"):
        return True
    words = re.findall(r"\w+", text.casefold())
    said = re.findall(r"\w+", message.text.casefold())
    count = len(words) - 1  # the last word may be cut
    if count < MIN_ECHO_WORDS:
        return False
    starts = range(len(said) - count + 1)
    return any(said[at : at + count] == words[:count] for at in starts)


def can_be_compared(text: str) -> bool:
    """Return whether a beginning has a letter or digit.

    One that ends at once is one token, whose likelihood may be anything.
    """
    return any(map(str.isalnum, text))
