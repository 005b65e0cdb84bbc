"""The chat engine over servers with OpenAI's API, which have no adapters (`ENGINE=openai`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from personas.engine.remote.openai_attempts import OpenAIReplyAttempts, OpenAISequence
from personas.engine.remote.openai_client import (
    OpenAIChecker,
    OpenAIServerClient,
)
from personas.engine.remote.replica import Replica
from personas.engine.remote.reply_attempts import ReplyAttempts
from personas.engine.remote.server_checks import ExpectedModel, ServerCheck
from personas.engine.remote.vllm_client import ServedModels, VllmClient
from personas.engine.remote.vllm_engine import VllmEngine
from personas.engine.remote.vllm_sequence import VllmReplyStream, VllmSequence
from personas.errors import AdapterError
from personas.prompt.renderer import RenderedPrompt
from personas.schemas.chat import AdapterRef, ChatRequest, Persona, Turn


# Some chat servers continue a last message of the assistant, but nothing tells them apart from
# those that begin a new reply.
@dataclass
class OpenAIEngine(VllmEngine):
    """Generates replies on servers with OpenAI's API: llama.cpp, Ollama, a gateway, vLLM without
    LoRA.

    `model` is the model's name at the servers; empty where each lists a single one. Requests get no
    adapter, so the reply's version is None. `base` gives the tokenizer and its chat template: token
    ids are sent to servers that share it, messages to others, for which its count of tokens is an
    estimate.
    """

    model: str = ""
    server_name: ClassVar[str] = "servers"
    attempts_type: ClassVar[type[ReplyAttempts]] = OpenAIReplyAttempts

    def submit(self, request: ChatRequest) -> VllmReplyStream:
        return super().submit(replace(request, adapter=None))

    async def load(self, adapter: AdapterRef) -> None:
        what = f"{adapter.version} cannot be served: servers of ENGINE=openai have no adapters."
        raise AdapterError(what, "It is kept. Serve it with ENGINE=local or ENGINE=vllm.")

    def prepare(
        self,
        persona: Persona,
        adapter: AdapterRef | None,
        talk: Sequence[Turn] = (),
        max_new_tokens: int = 0,
        context_tokens: int = 0,
    ) -> None:
        """Compute nothing: servers with few slots would evict a running conversation's prefix for
        it.
        """

    async def drop(self, adapter: AdapterRef) -> None:
        """Do nothing: no server has an adapter."""

    async def _inspect(self, client: VllmClient) -> list[ServerCheck]:
        return await self._checker.inspect(client)

    async def _check_replica(self, replica: Replica) -> ServedModels:
        return await self._checker.check(replica.client)

    def _create_client(self, url: str) -> VllmClient:
        return OpenAIServerClient(url, self._session)

    def _create_checker(self, expected: ExpectedModel) -> OpenAIChecker:
        return OpenAIChecker(expected, self.model, self.vision)

    def _create_sequence(
        self,
        request: ChatRequest,
        prompt: RenderedPrompt,
        stream: VllmReplyStream,
        on_end: Callable[[], None],
    ) -> VllmSequence:
        return OpenAISequence.create(request, prompt, self._renderer, sink=stream, on_end=on_end)
