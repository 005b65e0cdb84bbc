"""The body of `POST /v1/chat/completions`: validation, and conversion into turns and sampling
parameters.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.openai_api.web.errors import OpenAIError
from bot.platform.web_kit.validation import describe_allowed, validate_strictly
from personas.card.card_summary import CountTokens
from personas.prompt.renderer import EXAMPLE_USER
from personas.schemas.chat import SamplingParams, Turn

MAX_TOP_LOGPROBS = 20
# How much of a conversation is read, by the tokens that prompt and reply have
TOKENS_PER_TURN = 64
CHARS_PER_TOKEN = 8
DROPPED_TURNS_STEP = 4
"""The oldest turns are dropped in blocks, to keep the prefix stable."""
MAX_STOP_SEQUENCES = 16
MAX_STOP_CHARS = 256
MAX_MESSAGES = 10_000
MAX_NAME_CHARS = 64
IGNORED_TOOL_CHOICES = (None, "auto", "none")
"""Choices that a model without tools satisfies; some clients offer tools to every model."""
NO_SEED = -1
"""With llama.cpp and its clients, another seed each time."""
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
OTHER_PARTS = {
    "image_url": "picture", "input_image": "picture", "image": "picture", "input_audio": "recording",
    "audio": "recording", "video_url": "video", "file": "file", "input_file": "file",
}  # fmt: skip
"""Words that stand for parts of earlier messages that are no text."""
LEFT_OUT_NOTE = (
    "Pictures and other parts that are no text were left out of earlier messages: a persona reads "
    "text."
)
FIELD_PATTERN = re.compile(r"\d+|[a-z_]+")

MessageText = Annotated[str, Field(max_length=1_000_000)]
StopSequence = Annotated[str, Field(max_length=MAX_STOP_CHARS)]


class _RequestModel(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ChatPart(_RequestModel):
    """A part of a message's content; only text can be read here."""

    type: str = "text"
    text: MessageText | None = None

    @property
    def is_text(self) -> bool:
        return self.type in TEXT_PARTS

    @property
    def shown(self) -> str:
        """Its text, or a word in brackets for a part that cannot be read."""
        if self.is_text:
            return self.text or ""
        return f"[{OTHER_PARTS.get(self.type, 'attachment')}]"


class ChatMessage(_RequestModel):
    """One message of the conversation. Results of tools, in a conversation that another model
    began, are ignored.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: MessageText | list[ChatPart] | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """All its text, and a word for each part that is none."""
        if isinstance(self.content, list):
            return "\n".join(part.shown for part in self.content)
        return self.content or ""

    @property
    def other_parts(self) -> int:
        """Number of parts that are no text."""
        if not isinstance(self.content, list):
            return 0
        return sum(not part.is_text for part in self.content)


class StreamOptions(_RequestModel):
    """Options of a streamed completion."""

    include_usage: bool | None = False


class ChatCompletionBody(_RequestModel):
    """The body of `POST /v1/chat/completions`.

    `top_k`, `min_p`, `repetition_penalty`, `continue_final_message` and `add_generation_prompt` are
    not OpenAI's; other servers of open models know them too, and clients send -1 or 0 for "no
    value" as they do there.
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
    max_tokens: Annotated[int, Field(ge=-1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=-1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: (
        StopSequence | Annotated[list[StopSequence], Field(max_length=MAX_STOP_SEQUENCES)] | None
    ) = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    n: Annotated[int, Field(ge=1, description="1 alone can be done")] | None = None
    presence_penalty: Annotated[float, Field(description="0 alone can be done")] | None = None
    frequency_penalty: Annotated[float, Field(description="0 alone can be done")] | None = None
    logit_bias: dict[str, float] | None = None
    tools: Annotated[list[Any], Field(description="may be offered; none is called")] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: Annotated[list[Any], Field(description="may be offered; none is called")] | None = (
        None
    )
    function_call: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None


@dataclass(frozen=True)
class ParsedChat:
    """The conversation, the client's instructions, the beginning of the reply, and notes on what
    was left out.
    """

    turns: tuple[Turn, ...]
    instructions: str
    prefill: str = ""
    notes: tuple[str, ...] = ()


def parse_chat_body(body: dict[str, Any]) -> ChatCompletionBody:
    """Validate the body. Raises `OpenAIError`, which names the field at fault."""
    try:
        parsed = validate_strictly(ChatCompletionBody, body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Those with letters that no field has are pydantic's names of alternatives.
        steps = [step for step in map(str, first["loc"]) if FIELD_PATTERN.fullmatch(step)]
        place = ".".join(steps)[:200]
        allowed = describe_allowed(ChatCompletionBody, steps)
        reason = (
            f" must be {allowed}" if allowed and first["type"] != "missing" else f": {first['msg']}"
        )
        raise OpenAIError(f"{place}{reason}.", code="invalid_value", param=place) from None
    _require_supported(parsed)
    return parsed


def parse_chat(body: ChatCompletionBody, persona: str, context_tokens: int) -> ParsedChat:
    """Parse a request's conversation with this persona, for an engine with so many tokens of prompt
    and reply. Raises `OpenAIError` if no message needs an answer.

    System messages are instructions, joined, wherever they stand. Where the persona itself spoke
    last, the reply goes on from there; but system messages that follow are what it answers, without
    `continue_final_message`.
    """
    turns: list[Turn] = []
    instructions: list[str] = []
    since: list[str] = []
    others: list[int] = []  # by turn: parts that are no text
    for message in body.messages:
        if message.role in ("system", "developer"):
            instructions.append(message.text)
            since.append(message.text)
        elif message.role in ("user", "assistant") and message.text.strip():
            turns.append(_message_turn(message, persona))
            others.append(message.other_parts)
            since = []
    if turns and turns[-1].by_persona and any(since) and not body.continue_final_message:
        instructions = instructions[: -len(since)]
        turns.append(Turn(EXAMPLE_USER, "\n".join(since)))
        others.append(0)
    prefill = _take_prefill(turns, body)
    _require_answerable(turns, others)
    joined = "\n".join(text for text in instructions if text)
    if len(joined) > context_tokens * CHARS_PER_TOKEN:
        raise OpenAIError(
            "The system messages are too long.",
            "Shorten them.",
            code="context_length_exceeded",
            param="messages",
        )
    has_other_parts = any(message.other_parts for message in body.messages)
    return ParsedChat(
        turns=tuple(_latest_turns(turns, context_tokens)),
        instructions=joined,
        prefill=prefill,
        notes=(LEFT_OUT_NOTE,) if has_other_parts else (),
    )


def _take_prefill(turns: list[Turn], body: ChatCompletionBody) -> str:
    """Remove the persona's turns from the end, and return their text, which the reply goes on
    from.
    """
    texts: list[str] = []
    while turns and turns[-1].by_persona:
        texts.insert(0, turns.pop().text)
    if body.continue_final_message and not texts:
        raise OpenAIError(
            "continue_final_message: the last message is not the persona's.",
            "End with a message of the role assistant, or leave it out.",
            code="invalid_value",
            param="continue_final_message",
        )
    if body.add_generation_prompt is False and not texts:
        raise OpenAIError(
            "add_generation_prompt: only a message of the role assistant can be continued, and "
            "none stands last.",
            "Leave it out.",
            code="unsupported_value",
            param="add_generation_prompt",
        )
    return "\n".join(texts)


def _require_answerable(turns: Sequence[Turn], others: Sequence[int]) -> None:
    if not turns:
        raise OpenAIError(
            "There is nothing to answer: there is no message of a user's with words in it.",
            "Send a message of the role user that says something.",
            code="invalid_value",
            param="messages",
        )
    if others[len(turns) - 1]:
        raise OpenAIError(
            "messages: the one to answer has a picture or another part that is no text; a persona "
            "reads text alone.",
            "Leave it out. In earlier messages, such parts do no harm.",
            code="unsupported_value",
            param="messages",
        )


def require_prompt_fits(
    talk: ParsedChat, max_new_tokens: int, context_tokens: int, count: CountTokens
) -> None:
    """Raise `OpenAIError` if the last message leaves no room for a reply."""
    room = context_tokens - max_new_tokens
    length = count(talk.turns[-1].text) + count(talk.prefill)
    if length > room:
        raise OpenAIError(
            f"The last message has {length} tokens, and {room} is the most beside a reply of "
            f"{max_new_tokens}.",
            "Shorten it, or ask for fewer tokens (max_tokens).",
            code="context_length_exceeded",
            param="messages",
        )


def sampling_parameters(
    body: ChatCompletionBody, usual: SamplingParams, context_tokens: int
) -> SamplingParams:
    """Sampling parameters of a request, with the bot's own settings as defaults. A reply takes at
    most half of the context.
    """
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    longest = usual.max_new_tokens
    for limit in (body.max_tokens, body.max_completion_tokens):  # the latter has precedence
        if limit is not None and limit > 0:
            longest = limit
    given: dict[str, Any] = body.model_dump(
        include={"temperature", "min_p", "repetition_penalty"}, exclude_none=True
    )
    if body.top_p is not None:
        given["top_p"] = max(body.top_p, 1e-6)  # the likeliest token is always left
    if body.top_k is not None:
        given["top_k"] = max(body.top_k, 0)  # elsewhere -1 leaves nothing out
    if body.seed is not None and body.seed != NO_SEED:
        given["seed"] = body.seed
    if body.logprobs:
        given["alternatives"] = body.top_logprobs or 0
    return replace(
        usual,
        **given,
        max_new_tokens=min(longest, context_tokens // 2),
        stop=tuple(text for text in stops if text),
    )


def _message_turn(message: ChatMessage, persona: str) -> Turn:
    if message.role == "assistant":
        return Turn(persona, message.text, by_persona=True)
    name = " ".join((message.name or "").split())[:MAX_NAME_CHARS]
    return Turn(name or EXAMPLE_USER, message.text)


def _latest_turns(turns: list[Turn], context_tokens: int) -> list[Turn]:
    over = max(0, len(turns) - context_tokens // TOKENS_PER_TURN)
    latest = turns[math.ceil(over / DROPPED_TURNS_STEP) * DROPPED_TURNS_STEP :]
    max_chars = context_tokens * CHARS_PER_TOKEN
    while len(latest) > 1 and sum(len(turn.text) for turn in latest) > max_chars:
        latest = latest[min(DROPPED_TURNS_STEP, len(latest) - 1) :]
    return latest


def _require_supported(body: ChatCompletionBody) -> None:
    """Raise `OpenAIError` for options that would change the reply and are not supported."""
    wrong = {
        "n": body.n not in (None, 1),
        "presence_penalty": bool(body.presence_penalty),
        "frequency_penalty": bool(body.frequency_penalty),
        "logit_bias": bool(body.logit_bias),
        "tool_choice": body.tool_choice not in IGNORED_TOOL_CHOICES,
        "function_call": body.function_call not in IGNORED_TOOL_CHOICES,
        "response_format": (body.response_format or {}).get("type", "text") != "text",
        "modalities": bool(body.modalities) and body.modalities != ["text"],
        "top_logprobs": bool(body.top_logprobs) and not body.logprobs,
    }
    for param, is_wrong in wrong.items():
        if is_wrong:
            raise OpenAIError(
                UNSUPPORTED_TEXTS[param], "Leave it out.", code="unsupported_value", param=param
            )


UNSUPPORTED_TEXTS = {
    "n": "n: only one reply is made for a request.",
    "presence_penalty": "presence_penalty cannot be other than 0 here; repetition_penalty can be set.",
    "frequency_penalty": "frequency_penalty cannot be other than 0 here; repetition_penalty can be set.",
    "logit_bias": "logit_bias cannot be used here.",
    "tool_choice": "tool_choice: a persona calls no tools, so none can be required.",
    "function_call": "function_call: a persona calls no functions, so none can be required.",
    "response_format": "response_format: a persona answers in plain text alone.",
    "modalities": "modalities: a persona answers in text alone.",
    "top_logprobs": "top_logprobs needs logprobs to be true.",
}
