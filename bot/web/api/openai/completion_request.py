"""The body of `POST /v1/chat/completions`: validation, and conversion into turns and sampling parameters."""

import math
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.web.api.openai.openai_responses import OpenAIError
from bot.web.request_body import describe_allowed, validate_strictly
from personas.card.card_summary import CountTokens
from personas.prompt import CONTEXT_TOKENS, EXAMPLE_USER
from personas.schemas.chat import SamplingParams, Turn

MAX_NEW_TOKENS = 1024
"""Half of the context."""
MAX_TOP_LOGPROBS = 20
MAX_TURNS, MAX_CHAT_CHARS, DROPPED_TURNS_STEP = 32, 16_000, 4
"""How much of a conversation is read. The oldest turns are dropped in blocks, to keep the prefix stable."""
MAX_STOP_SEQUENCES, MAX_STOP_CHARS, MAX_MESSAGES = 16, 256, 10_000
MAX_NAME_CHARS = 64
IGNORED_TOOL_CHOICES = (None, "auto", "none")
"""Choices that a model without tools satisfies; some clients offer tools to every model."""
FIELD_PATTERN = re.compile(r"\d+|[a-z_]+")

MessageText = Annotated[str, Field(max_length=1_000_000)]
StopSequence = Annotated[str, Field(max_length=MAX_STOP_CHARS)]


class _RequestModel(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ChatPart(_RequestModel):
    """A part of a message's content; only text can be read here."""

    type: str = "text"
    text: MessageText = ""


class ChatMessage(_RequestModel):
    """One message of the talk. What tools answered, in a talk begun with another model, is no part of it here."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: MessageText | list[ChatPart] | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """All its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_RequestModel):
    """Options of a streamed completion."""

    include_usage: bool | None = False


class ChatCompletionBody(_RequestModel):
    """The body of `POST /v1/chat/completions`.

    `top_k`, `min_p` and `repetition_penalty` are not OpenAI's; other servers of open models know them too.
    """

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
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
    stop: StopSequence | Annotated[list[StopSequence], Field(max_length=MAX_STOP_SEQUENCES)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
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
class ParsedChat:
    """The conversation and the client's instructions."""

    turns: tuple[Turn, ...]
    instructions: str


def parse_chat_body(body: dict[str, Any]) -> ChatCompletionBody:
    """Validate the body. Raises `OpenAIError`, which names the field at fault."""
    try:
        parsed = validate_strictly(ChatCompletionBody, body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Those with letters that no field has are pydantic's names of alternatives.
        steps = [step for step in map(str, first["loc"]) if FIELD_PATTERN.fullmatch(step)]
        place, allowed = ".".join(steps)[:200], describe_allowed(ChatCompletionBody, steps)
        reason = f" must be {allowed}" if allowed and first["type"] != "missing" else f": {first['msg']}"
        raise OpenAIError(f"{place}{reason}.", code="invalid_value", param=place) from None
    _require_supported(parsed)
    return parsed


def parse_chat(body: ChatCompletionBody, persona: str) -> ParsedChat:
    """Parse a request's conversation with this persona. Raises `OpenAIError` if no message needs an answer.

    System messages are instructions, joined, wherever they stand. Where the persona itself spoke last (a client has it
    go on), those that follow are what it answers.
    """
    turns: list[Turn] = []
    instructions: list[str] = []
    since: list[str] = []
    for message in body.messages:
        if message.role in ("system", "developer"):
            instructions.append(message.text)
            since.append(message.text)
        elif message.role in ("user", "assistant") and message.text.strip():
            turns.append(_message_turn(message, persona))
            since = []
    if turns and turns[-1].by_persona and any(since):
        instructions = instructions[: -len(since)]
        turns.append(Turn(EXAMPLE_USER, "\n".join(since)))
    if not turns or turns[-1].by_persona:
        raise OpenAIError(
            "There is nothing to answer: no message of a user's with words in it stands last.",
            "End with a message of the role user that says something.",
            code="invalid_value",
            param="messages",
        )
    joined = "\n".join(text for text in instructions if text)
    if len(joined) > MAX_CHAT_CHARS:
        raise OpenAIError("The system messages are too long.", "Shorten them.", code="context_length_exceeded",
                      param="messages")  # fmt: skip
    return ParsedChat(tuple(_latest_turns(turns)), joined)


def require_prompt_fits(talk: ParsedChat, max_new_tokens: int, count: CountTokens) -> None:
    """Raise `OpenAIError` if the last message leaves no room for a reply."""
    room, length = CONTEXT_TOKENS - max_new_tokens, count(talk.turns[-1].text)
    if length > room:
        raise OpenAIError(
            f"The last message has {length} tokens, and {room} is the most beside a reply of {max_new_tokens}.",
            "Shorten it, or ask for fewer tokens (max_tokens).",
            code="context_length_exceeded",
            param="messages",
        )


def sampling_parameters(body: ChatCompletionBody, usual: SamplingParams) -> SamplingParams:
    """Sampling parameters of a request, with the bot's own settings as defaults."""
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    longest = body.max_completion_tokens or body.max_tokens or usual.max_new_tokens
    given = {
        "temperature": body.temperature,
        "top_p": None if body.top_p is None else max(body.top_p, 1e-6),  # the likeliest token is always left
        "top_k": None if body.top_k is None else max(body.top_k, 0),  # elsewhere -1 leaves nothing out
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "seed": body.seed,
        "alternatives": (body.top_logprobs or 0) if body.logprobs else None,
    }
    known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    stop = tuple(text for text in stops if text)
    return replace(usual, **known, max_new_tokens=min(longest, MAX_NEW_TOKENS), stop=stop)


def _message_turn(message: ChatMessage, persona: str) -> Turn:
    if message.role == "assistant":
        return Turn(persona, message.text, by_persona=True)
    name = " ".join((message.name or "").split())[:MAX_NAME_CHARS]
    return Turn(name or EXAMPLE_USER, message.text)


def _latest_turns(turns: list[Turn]) -> list[Turn]:
    over = max(0, len(turns) - MAX_TURNS)
    kept = turns[math.ceil(over / DROPPED_TURNS_STEP) * DROPPED_TURNS_STEP :]
    while len(kept) > 1 and sum(len(turn.text) for turn in kept) > MAX_CHAT_CHARS:
        kept = kept[min(DROPPED_TURNS_STEP, len(kept) - 1) :]
    return kept


def _require_supported(body: ChatCompletionBody) -> None:
    """Raise `OpenAIError` for options that would change the reply and are not supported."""
    content = [part for message in body.messages if isinstance(message.content, list) for part in message.content]
    wrong = {
        "n": body.n not in (None, 1),
        "presence_penalty": bool(body.presence_penalty),
        "frequency_penalty": bool(body.frequency_penalty),
        "logit_bias": bool(body.logit_bias),
        "tool_choice": body.tool_choice not in IGNORED_TOOL_CHOICES,
        "function_call": body.function_call not in IGNORED_TOOL_CHOICES,
        "response_format": (body.response_format or {}).get("type", "text") != "text",
        "modalities": bool(body.modalities) and body.modalities != ["text"],
        "messages": any(part.type not in ("text", "input_text", "output_text") for part in content),
        "top_logprobs": body.top_logprobs is not None and not body.logprobs,
    }
    for param, is_wrong in wrong.items():
        if is_wrong:
            raise OpenAIError(UNSUPPORTED_TEXTS[param], "Leave it out.", code="unsupported_value", param=param)


UNSUPPORTED_TEXTS = {
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
