"""Replies of servers with OpenAI's API, which may arrive as text."""

from dataclasses import replace
from typing import Any

from personas.engine.remote.openai_client import (
    OpenAIServerClient,
    ServedByOpenAI,
    break_turn_markers,
)
from personas.engine.remote.picture_parts import with_pictures
from personas.engine.remote.replica import Replica
from personas.engine.remote.reply_attempts import ReplyAttempts
from personas.engine.remote.server_errors import ReplicaError, VllmError
from personas.engine.remote.vllm_client import ServedModels, TokenChunk
from personas.engine.remote.vllm_sequence import VllmSequence
from personas.errors import PrefillError
from personas.gettext_marker import gettext_noop

CUT_OFF_ADVICE = "Regenerate it."
PREFILL_ADVICE = (
    "End with a message of a user's; ENGINE=local, and vLLM or llama.cpp with BASE_MODEL, continue "
    "one."
)


class ReplyCutOffError(VllmError):
    """A reply that has begun cannot go on: a server that takes messages would begin it anew."""

    member_text = gettext_noop("The reply broke off, because the engine failed. Regenerate it.")


class OpenAISequence(VllmSequence):
    """One request whose reply may arrive as text."""

    has_ended = False

    @property
    def is_finished(self) -> bool:
        return self.has_ended or super().is_finished

    def text_body(self, served: ServedByOpenAI) -> dict[str, Any]:
        """Build the request for the rest of the reply, from a server that answers with text."""
        self._detokenizer.forget_open_thought()
        self._detokenizer.starts_in_thought = served.opens_thought
        self.seeded = served.takes_seed and (self.seeded or not self.received)
        messages = served.arrange(break_turn_markers(self.messages))
        if self.has_pictures(served):
            served = replace(served, takes_ids=False)
            messages[-1] = with_pictures(messages[-1], self.request.pictures)
        prompt = (*self.prompt, *self.received)
        return served.body(prompt, messages, self.sampling_left, self.attempt_seed())

    def receive(self, chunk: TokenChunk) -> None:
        if chunk.text is None:
            super().receive(chunk)
            return
        if self.is_finished:
            return
        self.append_text(chunk.text)
        self.received = tuple(self._detokenizer.ids)
        if chunk.finish and chunk.finish != "length":
            self._detokenizer.end_given()
            self._detokenizer.stop()
        self.has_ended = chunk.finish is not None


class OpenAIReplyAttempts(ReplyAttempts):
    """Generates replies on servers of which some take messages, and begin a reply anew."""

    def _body(self, seq: VllmSequence, served: ServedModels) -> dict[str, Any]:
        assert isinstance(served, ServedByOpenAI) and isinstance(seq, OpenAISequence)
        takes_ids = served.takes_ids and not seq.has_pictures(served)
        if served.returns_ids and takes_ids:
            return super()._body(seq, served)
        if seq.request.prefill and not takes_ids:
            what = (
                "The server of this engine takes messages: it would begin a new reply instead of "
                "continuing one."
            )
            raise PrefillError(what, PREFILL_ADVICE)
        if seq.received and not takes_ids:
            raise ReplyCutOffError(
                "The reply broke off, and no server can continue it.", CUT_OFF_ADVICE
            )
        return seq.text_body(served)

    async def _stream(self, seq: VllmSequence, replica: Replica) -> None:
        await super()._stream(seq, replica)
        served = replica.served
        if isinstance(served, ServedByOpenAI) and not served.takes_ids and seq.has_lone_closing:
            assert isinstance(replica.client, OpenAIServerClient)
            replica.client.opens_thought = True
            replica.served = replace(served, opens_thought=True)

    def _resume(self, seq: VllmSequence, error: ReplicaError, *, has_progress: bool) -> None:
        """Queue a reply again; one that has begun goes on only where a server takes token ids."""
        if not seq.received or seq.is_finished or self._can_continue_replies():
            super()._resume(seq, error, has_progress=has_progress)
        else:
            message = f"The reply broke off: {error.message}"
            self._scheduler.fail(seq, ReplyCutOffError(message, CUT_OFF_ADVICE))

    def _can_continue_replies(self) -> bool:
        """Tell whether a server takes token ids: others would begin a reply anew."""
        for replica in self._replicas.all:
            if isinstance(replica.served, ServedByOpenAI) and replica.served.takes_ids:
                return True
        return False
