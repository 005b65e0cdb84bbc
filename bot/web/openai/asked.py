"""What OpenAI's clients ask for, and what of it means what here.

Fields that nothing here knows are ignored, as OpenAI's servers do; those that would change the reply and that cannot be
done are refused by name, so that nobody believes in a setting that is not used.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.web.allowed import allowed_at
from bot.web.bodies import validated
from bot.web.openai.errors import Refusal
from personas.card.show import CountTokens
from personas.contracts import Sampling, Turn
from personas.prompt import CONTEXT_TOKENS, EXAMPLE_USER

MOST_NEW_TOKENS = 1024
"""A reply is never longer: half of what prompt and reply may be together."""
MOST_ALTERNATIVES = 20
MOST_TURNS, MOST_CHARACTERS, BLOCK = 32, 16_000, 4
"""What of a talk is looked at: more would never fit. The oldest go in blocks, so that the beginning stays the same."""
MOST_STOPS, LONGEST_STOP, MOST_MESSAGES = 16, 256, 10_000
LONGEST_NAME = 64
MAY_BE_LEFT = (None, "auto", "none")
"""Choices of tools that a model meets by calling none; some clients offer tools to every model."""
FIELD = re.compile(r"\d+|[a-z_]+")

Text = Annotated[str, Field(max_length=1_000_000)]
Stop = Annotated[str, Field(max_length=LONGEST_STOP)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ChatPart(_Asked):
    """A part of a message's content; only text can be read here."""

    type: str = "text"
    text: Text = ""


class ChatMessage(_Asked):
    """One message of the talk. What tools answered, in a talk begun with another model, is no part of it here."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | list[ChatPart] | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """All its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Asked):
    """How a stream is sent."""

    include_usage: bool | None = False


class ChatBody(_Asked):
    """The body of `POST /v1/chat/completions`.

    `top_k`, `min_p` and `repetition_penalty` are not OpenAI's; other servers of open models know them too.
    """

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=100_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    n: Annotated[int, Field(ge=1, description="1 alone can be done")] | None = None
    presence_penalty: Annotated[float, Field(description="0 alone can be done")] | None = None
    frequency_penalty: Annotated[float, Field(description="0 alone can be done")] | None = None
    logit_bias: dict[str, float] | None = None
    tools: Annotated[list[Any], Field(description="may be offered; none is called")] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: Annotated[list[Any], Field(description="may be offered; none is called")] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None


@dataclass(frozen=True)
class Talk:
    """The messages as the engine takes them: what was said, and the client's instructions."""

    turns: tuple[Turn, ...]
    instructions: str


def chat_body(body: dict[str, Any]) -> ChatBody:
    """The body, checked. Raises `Refusal`, which names the field at fault."""
    try:
        asked = validated(ChatBody, body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Those with letters that no field has are pydantic's names of alternatives.
        steps = [step for step in map(str, first["loc"]) if FIELD.fullmatch(step)]
        place, allowed = ".".join(steps)[:200], allowed_at(ChatBody, steps)
        said = f" must be {allowed}" if allowed and first["type"] != "missing" else f": {first['msg']}"
        raise Refusal(f"{place}{said}.", code="invalid_value", param=place) from None
    _require_possible(asked)
    return asked


def talk_of(asked: ChatBody, persona: str) -> Talk:
    """The talk of a request to a persona of this name. Raises `Refusal` where nobody says anything to answer.

    System messages are instructions, joined, wherever they stand. Where the persona itself spoke last (a client has it
    go on), those that follow are what it answers.
    """
    turns: list[Turn] = []
    instructions: list[str] = []
    since: list[str] = []
    for message in asked.messages:
        if message.role in ("system", "developer"):
            instructions.append(message.text)
            since.append(message.text)
        elif message.role in ("user", "assistant") and message.text.strip():
            turns.append(_turn(message, persona))
            since = []
    if turns and turns[-1].by_persona and any(since):
        instructions = instructions[: -len(since)]
        turns.append(Turn(EXAMPLE_USER, "\n".join(since)))
    if not turns or turns[-1].by_persona:
        raise Refusal(
            "There is nothing to answer: no message of a user's with words in it stands last.",
            "End with a message of the role user that says something.",
            code="invalid_value",
            param="messages",
        )
    joined = "\n".join(text for text in instructions if text)
    if len(joined) > MOST_CHARACTERS:
        raise Refusal("The system messages are too long.", "Shorten them.", code="context_length_exceeded",
                      param="messages")  # fmt: skip
    return Talk(tuple(_latest(turns)), joined)


def require_room(talk: Talk, max_new_tokens: int, count: CountTokens) -> None:
    """Raise `Refusal` where the message to answer alone leaves no room for a reply: its middle would be left out."""
    room, length = CONTEXT_TOKENS - max_new_tokens, count(talk.turns[-1].text)
    if length > room:
        raise Refusal(
            f"The last message has {length} tokens, and {room} is the most beside a reply of {max_new_tokens}.",
            "Shorten it, or ask for fewer tokens (max_tokens).",
            code="context_length_exceeded",
            param="messages",
        )


def sampling_of(asked: ChatBody, usual: Sampling) -> Sampling:
    """How to draw, with the bot's own settings for what the client leaves open."""
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    longest = asked.max_completion_tokens or asked.max_tokens or usual.max_new_tokens
    given = {
        "temperature": asked.temperature,
        "top_p": None if asked.top_p is None else max(asked.top_p, 1e-6),  # the likeliest token is always left
        "top_k": None if asked.top_k is None else max(asked.top_k, 0),  # elsewhere -1 leaves nothing out
        "min_p": asked.min_p,
        "repetition_penalty": asked.repetition_penalty,
        "seed": asked.seed,
        "alternatives": (asked.top_logprobs or 0) if asked.logprobs else None,
    }
    known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    stop = tuple(text for text in stops if text)
    return replace(usual, **known, max_new_tokens=min(longest, MOST_NEW_TOKENS), stop=stop)


def _turn(message: ChatMessage, persona: str) -> Turn:
    if message.role == "assistant":
        return Turn(persona, message.text, by_persona=True)
    name = " ".join((message.name or "").split())[:LONGEST_NAME]
    return Turn(name or EXAMPLE_USER, message.text)


def _latest(turns: list[Turn]) -> list[Turn]:
    over = max(0, len(turns) - MOST_TURNS)
    kept = turns[math.ceil(over / BLOCK) * BLOCK :]
    while len(kept) > 1 and sum(len(turn.text) for turn in kept) > MOST_CHARACTERS:
        kept = kept[min(BLOCK, len(kept) - 1) :]
    return kept


def _require_possible(asked: ChatBody) -> None:
    """Raise `Refusal` for what would change the reply, and cannot be done."""
    content = [part for message in asked.messages if isinstance(message.content, list) for part in message.content]
    wrong = {
        "n": asked.n not in (None, 1),
        "presence_penalty": bool(asked.presence_penalty),
        "frequency_penalty": bool(asked.frequency_penalty),
        "logit_bias": bool(asked.logit_bias),
        "tool_choice": asked.tool_choice not in MAY_BE_LEFT,
        "function_call": asked.function_call not in MAY_BE_LEFT,
        "response_format": (asked.response_format or {}).get("type", "text") != "text",
        "modalities": bool(asked.modalities) and asked.modalities != ["text"],
        "messages": any(part.type not in ("text", "input_text", "output_text") for part in content),
        "top_logprobs": asked.top_logprobs is not None and not asked.logprobs,
    }
    for param, is_wrong in wrong.items():
        if is_wrong:
            raise Refusal(WHY[param], "Leave it out.", code="unsupported_value", param=param)


WHY = {
    "n": "n: only one reply is made for a request.",
    "presence_penalty": "presence_penalty cannot be other than 0 here; repetition_penalty can be set.",
    "frequency_penalty": "frequency_penalty cannot be other than 0 here; repetition_penalty can be set.",
    "logit_bias": "logit_bias cannot be used here.",
    "tool_choice": "tool_choice: a persona calls no tools, so none can be required.",
    "function_call": "function_call: a persona calls no functions, so none can be required.",
    "response_format": "response_format: a persona answers in plain text alone.",
    "modalities": "modalities: a persona answers in text alone.",
    "messages": "messages: only parts of the type text can be read.",
    "top_logprobs": "top_logprobs needs logprobs to be true.",
}
