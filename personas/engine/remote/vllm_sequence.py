"""One request on its way over servers, and the stream of its reply."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from personas.engine.remote.picture_parts import with_pictures
from personas.engine.remote.replica import Lease
from personas.engine.remote.sampling_names import named_sampling
from personas.engine.remote.server_errors import REASONING_ADVICE, OnlyThoughtError
from personas.engine.remote.vllm_client import ServedModels, TokenChunk
from personas.engine.reply_sequence import ReplySequence
from personas.engine.reply_stream import QueuedReplyStream
from personas.prompt.chat_template import FIXED_VARIABLES, Message
from personas.prompt.renderer import RenderedPrompt
from personas.schemas.chat import ChatReply, SamplingParams


class VllmReplyStream(QueuedReplyStream):
    """A reply stream whose cancellation wakes the engine, which then closes the connection."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, version: str | None, on_cancel: Callable[[], None]
    ) -> None:
        super().__init__(loop, version)
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        super().cancel()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_cancel)


class VllmSequence(ReplySequence):
    """One request and the tokens received for it, on one replica after another. `messages` are those
    of its prompt, `avoided` replicas' addresses. `render_for_base` renders the base model's prompt
    where the adapter's has the short card.

    Pictures of the request are put behind the last message by servers whose model sees.
    """

    lease: Lease
    messages: tuple[Message, ...] = ()
    task: asyncio.Task[None] | None = None
    received: tuple[int, ...] = ()
    failed_attempts: int = 0
    avoided: frozenset[str] = frozenset()
    render_for_base: Callable[[], RenderedPrompt] | None = None

    @property
    def adapter_name(self) -> str:
        """The adapter's name, empty for the base model."""
        return self.adapter.name if self.adapter else ""

    @property
    def may_use_base_model(self) -> bool:
        """Report whether the base model may answer in the adapter's place. A reply that the adapter
        has begun cannot become another version's.
        """
        return not self.received and not self.request.needs_adapter

    @property
    def has_lone_closing(self) -> bool:
        """A tag closed a thought that no tag had opened."""
        return self._detokenizer.spoken.lone_closings > 0

    @property
    def routing_key(self) -> str:
        """Requests with the same key prefer the same replica."""
        if self.adapter_name:
            return self.adapter_name
        persona = self.request.persona
        return persona.id if persona else ""

    def use_prompt(self, prompt: RenderedPrompt) -> None:
        super().use_prompt(prompt)
        self.messages = prompt.messages

    @property
    def wants_sight(self) -> bool:
        return bool(self.request.pictures)

    def has_pictures(self, served: ServedModels) -> bool:
        """Report whether a server is given pictures."""
        return self.wants_sight and served.sees_pictures

    def drop_pictures(self) -> None:
        """Ask without the pictures before the last one; then without any."""
        pictures = self.request.pictures
        self.request = replace(self.request, pictures=pictures[-1:] if len(pictures) > 1 else ())

    def begun(self) -> str:
        """Return the beginning of the reply as text, for a prompt. A part of a character at its end
        is dropped: it is generated again.
        """
        if dropped := self.drop_incomplete():
            self.received = self.received[:-dropped]
        return self._detokenizer.begun()

    def body(self, served: ServedModels, salt: str) -> dict[str, Any]:
        """Build the request for the rest of the reply."""
        sampling = self.request.sampling
        # First, because it may drop tokens.
        prompt = {"prompt": [*self.prompt, *self.received]}
        has_pictures = self.has_pictures(served)
        if has_pictures:
            prompt = self._messages_with_pictures()
        body = named_sampling(self.sampling_left, served.sampling_names) | {
            "model": self.adapter_name or served.base,
            "seed": self.attempt_seed(),
            "stop_token_ids": list(self._detokenizer.stop_ids),
            # Only the renderer's stop tokens end a reply, as in the local engine.
            "ignore_eos": True,
            "cache_salt": salt,
        }
        body |= prompt
        if has_pictures:
            return body
        if sampling.logprobs or sampling.alternatives is not None:
            body |= {"logprobs": sampling.alternatives or 0, "return_tokens_as_token_ids": True}
        return body

    def _messages_with_pictures(self) -> dict[str, Any]:
        """Return the fields of a prompt that the server renders by the model's template, with the
        beginning of the reply that there is.
        """
        *earlier, last = self.messages
        messages = [*earlier, with_pictures(last, self.request.pictures)]
        begun = self.begun()
        has_begun = bool(begun.strip())
        if has_begun:
            messages.append({"role": "assistant", "content": begun})
        return {
            "messages": messages,
            "add_generation_prompt": not has_begun,
            "continue_final_message": has_begun,
            "chat_template_kwargs": FIXED_VARIABLES,
        }

    @property
    def sampling_left(self) -> SamplingParams:
        """The sampling of the rest of the reply."""
        sampling = self.request.sampling
        left = max(1, sampling.max_new_tokens - len(self.received))
        return replace(sampling, max_new_tokens=left)

    def attempt_seed(self) -> int:
        """Return the seed; a resumed reply gets another one, or it would draw the numbers of its
        beginning again.
        """
        if not self.received:
            return self.seed
        digest = hashlib.blake2b(
            f"{self.seed}:{len(self.received)}".encode(), digest_size=4
        ).digest()
        return int.from_bytes(digest, "big")

    def receive(self, chunk: TokenChunk) -> None:
        """Append a chunk's tokens up to the end of the reply."""
        count = self.request.sampling.alternatives or 0
        for at, token in enumerate(chunk.tokens):
            if self.is_finished:
                return
            self.received += (token,)
            logprob = chunk.logprobs[at] if chunk.logprobs else None
            alternatives = chunk.alternatives[at][:count] if chunk.alternatives else ()
            self.append_token(token, logprob, alternatives)
        if chunk.finish == "stop":
            self._detokenizer.stop()

    def use_base_model(self) -> None:
        """Have the base model reply, under the full card; the reply then has no version. Raises
        `ValueError` for a card that is too long.
        """
        if self.render_for_base:
            self.use_prompt(self.render_for_base())
        self.request = replace(self.request, adapter=None)
        self.avoided = frozenset()

    def finish(self) -> None:
        super().finish()
        self._cancel_task()

    def fail(self, error: Exception) -> None:
        super().fail(error)
        self._cancel_task()

    def _reply(self) -> ChatReply:
        """Build the reply. Raises `OnlyThoughtError` if the model only thought."""
        reply = super()._reply()
        if reply.text or reply.finish == "cancelled" or not self._detokenizer.spoken.has_thought:
            return reply
        raise OnlyThoughtError("The model sent its reasoning and no reply.", REASONING_ADVICE)

    def _cancel_task(self) -> None:
        """End the attempt, which closes its connection."""
        if self.task and self.task is not asyncio.current_task():
            self.task.cancel()
