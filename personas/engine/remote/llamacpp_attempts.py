"""Replies on llama.cpp servers: each request names its slot and the complete list of adapters."""

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from personas.engine.beginning_score import (
    CANDIDATE_TOKENS,
    DRY_ALLOWED_TOKENS,
    DRY_BASE,
    DRY_MULTIPLIER,
    all_passed_over,
    comparable,
)
from personas.engine.remote.llamacpp_candidates import Candidate, CardScorer
from personas.engine.remote.llamacpp_client import LlamaCppClient, ServedByLlamaCpp
from personas.engine.remote.llamacpp_replicas import LlamaCppReplicas
from personas.engine.remote.llamacpp_slots import SlotUse
from personas.engine.remote.replica import Replica
from personas.engine.remote.replica_health import cancel_tasks
from personas.engine.remote.reply_attempts import ReplyAttempts
from personas.engine.remote.sampling_names import named_sampling
from personas.engine.remote.server_errors import AdapterNotServedError, VllmError
from personas.engine.remote.vllm_client import ServedModels, TokenChunk
from personas.engine.remote.vllm_sequence import VllmSequence
from personas.home.prompt_version import renderer_of
from personas.prompt.renderer import PICTURE_MARK, RenderedPrompt, Renderer

log = logging.getLogger(__name__)
MAX_SCORE_S = 20.0
"""A comparison that takes longer, as where the cards' prompts are not in the slots yet, is given
up."""
POLL_INTERVAL_S = 0.1
SAMPLERS = ("penalties", "temperature", "top_k", "top_p", "min_p")
"""The samplers in the order of the local engine's."""
NO_CHANGES: Mapping[str, Any] = {}


class LlamaCppSequence(VllmSequence):
    """One request, and the slot that it has. `renderer` is that of its base model."""

    renderer: Renderer
    slot = SlotUse(-1, reads_cache=False)
    card_prompt: tuple[int, ...] = ()
    candidates: tuple[Candidate, ...] = ()

    def use_prompt(self, prompt: RenderedPrompt) -> None:
        super().use_prompt(prompt)
        self.card_prompt = prompt.card

    def llama_body(
        self, served: ServedByLlamaCpp, lora: list[dict[str, float]], *, reads_cache: bool
    ) -> dict[str, Any]:
        """Build the request for the rest of the reply."""
        sampling = self.request.sampling
        prompt: Any = [*self.prompt, *self.received]
        most_tokens = len(prompt) + sampling.max_new_tokens
        if self.has_pictures(served):
            prompt = self._prompt_with_pictures(served)
        body = named_sampling(self.sampling_left, served.sampling_names) | {
            "samplers": list(SAMPLERS),
            "prompt": prompt,
            # The local engine's penalty covers the whole prompt, too.
            "repeat_last_n": most_tokens,
            "seed": self.attempt_seed(),
            "id_slot": self.slot.number,
            "cache_prompt": reads_cache,
        }
        if sampling.logprobs or sampling.alternatives is not None:
            body["n_probs"] = max(1, sampling.alternatives or 0)
        return body | ({"lora": lora} if lora else {})

    def _prompt_with_pictures(self, served: ServedByLlamaCpp) -> dict[str, Any]:
        """Build a prompt of text, in which the server puts each picture in its place."""
        pictures = self.request.pictures
        renderer = renderer_of(self.renderer, self.request.adapter)
        names = [picture.name for picture in pictures]
        text = renderer.picture_text(self.request.persona, self.messages, names)
        text = text.replace(PICTURE_MARK, served.media_marker)
        if served.adds_bos:
            text = text.removeprefix(renderer.tokenizer.bos_token or "")
        return {
            "prompt_string": text + self.begun(),
            "multimodal_data": [base64.b64encode(picture.data).decode() for picture in pictures],
        }

    def receive(self, chunk: TokenChunk) -> None:
        """Append a chunk's tokens; text whose ids the server left out is split here."""
        if chunk.text is None:
            super().receive(chunk)
            return
        super().receive(TokenChunk(self._detokenizer.encode(chunk.text)))

    def begin_choice(self, count: int) -> None:
        """Begin with candidates; the reply has no text before the choice."""
        self.candidates = tuple(Candidate(self._detokenizer.fork()) for _ in range(count))

    def end_choice(self, best: Candidate, compared: int = 1) -> None:
        """Go on with a candidate's beginning."""
        self.candidates = ()
        self.candidate_count = compared
        for chunk in best.chunks:
            self.receive(chunk)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end a reply."""
        return self._detokenizer.stop_ids

    def finish(self) -> None:
        """Deliver the reply; one that ends before the choice is its first candidate."""
        if self.candidates:
            self.end_choice(self.candidates[0])
        super().finish()


def dry_body(seed: int) -> dict[str, Any]:
    """Return the fields of candidates that are drawn again, which should not repeat what was said.
    The server's penalty covers the whole prompt.
    """
    return {
        "samplers": [SAMPLERS[0], "dry", *SAMPLERS[1:]],
        "dry_multiplier": DRY_MULTIPLIER,
        "dry_base": DRY_BASE,
        "dry_allowed_length": DRY_ALLOWED_TOKENS,
        "dry_penalty_last_n": -1,
        "seed": seed,
    }


def text_of(candidate: Candidate) -> str:
    return candidate.detokenizer.text


def has_stopped(candidate: Candidate) -> bool:
    return candidate.detokenizer.stopped


class LlamaCppReplyAttempts(ReplyAttempts):
    """Generates replies on the slots of llama.cpp servers. `is_whole` tells tokens that are whole
    characters.
    """

    is_whole: Callable[[int], bool]

    async def _stream(self, seq: VllmSequence, replica: Replica) -> None:
        assert isinstance(seq, LlamaCppSequence) and isinstance(replica.client, LlamaCppClient)
        slots = replica.client.slots
        with slots.conversations.use(seq.adapter_name, seq.prompt) as slot:
            seq.slot = slot
            count = self._candidates(seq, replica)
            if count > 1:
                slots.is_choosing = True
                try:
                    await self._choose_beginning(seq, replica, count)
                finally:
                    slots.is_choosing = False
                seq.slot = SlotUse(slot.number, reads_cache=True)
            if not seq.is_finished:
                await super()._stream(seq, replica)

    def _candidates(self, seq: LlamaCppSequence, replica: Replica) -> int:
        """Return among how many candidates a reply begins: as many as leave room for others."""
        sampling = seq.request.sampling
        served = replica.served
        assert isinstance(served, ServedByLlamaCpp) and isinstance(replica.client, LlamaCppClient)
        # Greedy candidates would be equal, and a server copies a prompt into free slots only.
        can_choose = seq.card_prompt and sampling.temperature > 0 and not seq.received
        if not can_choose or seq.slot.number < 0 or replica.client.slots.is_choosing:
            return 1
        if self._scheduler.queue:
            return 1
        free = self._scheduler.limits.candidate_rows - len(self._scheduler.running)
        return min(sampling.candidates, served.candidates, 1 + max(0, free))

    async def _choose_beginning(self, seq: LlamaCppSequence, replica: Replica, count: int) -> None:
        """Sample candidates, and go on with the best; with the first one as soon as others wait.
        Raises what a reply without candidates would.
        """
        seq.begin_choice(count)
        first = seq.candidates[0]
        task = asyncio.create_task(self._compare(seq, replica))
        try:
            while not task.done() and not self._is_crowded(count):
                await asyncio.wait((task,), timeout=POLL_INTERVAL_S)
        finally:
            await cancel_tasks((task,))
        if task.cancelled() or task.exception():
            seq.end_choice(first)
        if not task.cancelled():
            seq.end_choice(*task.result())

    def _is_crowded(self, count: int) -> bool:
        rows = len(self._scheduler.running) + count - 1
        return bool(self._scheduler.queue) or rows > self._scheduler.limits.candidate_rows

    async def _compare(self, seq: LlamaCppSequence, replica: Replica) -> tuple[Candidate, int]:
        """Return the best candidate, and how many were compared."""
        await self._sample(seq, replica)
        if all_passed_over(seq.candidates, text_of, seq.request):
            count = len(seq.candidates)
            seq.begin_choice(count)
            seq.slot = SlotUse(seq.slot.number, reads_cache=True)
            await self._sample(seq, replica, dry_body((seq.seed + count) % 2**32))
        candidates = seq.candidates
        compared = comparable(candidates, text_of, seq.request, has_stopped=has_stopped)
        if len(compared) < 2:
            return (compared or candidates)[0], 1
        assert isinstance(replica.client, LlamaCppClient)
        scorer = CardScorer(
            replica.client,
            seq.adapter_name,
            seq.card_prompt,
            lora=self._lora(seq, replica.served),
            is_whole=self.is_whole,
            end_ids=seq.end_ids,
        )
        try:
            return await scorer.best(compared, MAX_SCORE_S), len(compared)
        except (TimeoutError, VllmError) as error:
            log.info("the candidates of a reply cannot be compared: %s", error or "too slow")
            return candidates[0], 1

    async def _sample(
        self, seq: LlamaCppSequence, replica: Replica, changes: Mapping[str, Any] = NO_CHANGES
    ) -> None:
        assert isinstance(replica.client, LlamaCppClient) and replica.served
        lease = seq.lease
        assert lease.deadline  # it is set while a reply is generated
        loop = asyncio.get_running_loop()
        sampling = seq.request.sampling
        body = self._body(seq, replica.served) | {
            "n_cmpl": len(seq.candidates),
            "n_predict": min(CANDIDATE_TOKENS, sampling.max_new_tokens),
            "n_probs": max(1, sampling.alternatives or 0),
            **changes,
        }
        candidates = seq.candidates
        async with aclosing(replica.client.generate_several(body)) as chunks:
            async for number, chunk in chunks:
                lease.heard_at = self._scheduler.clock()
                lease.deadline.reschedule(loop.time() + self._stall_s)
                candidates[number].receive(chunk)
                for _ in range(chunk.token_count):
                    self._scheduler.queue.count_token(seq)

    def _body(self, seq: VllmSequence, served: ServedModels) -> dict[str, Any]:
        assert isinstance(seq, LlamaCppSequence) and isinstance(served, ServedByLlamaCpp)
        reads_cache = seq.slot.reads_cache and served.keeps_apart
        return seq.llama_body(served, self._lora(seq, served), reads_cache=reads_cache)

    def _lora(self, seq: VllmSequence, served: ServedModels | None) -> list[dict[str, float]]:
        """Return the complete list of adapters. Raises `AdapterNotServedError`."""
        assert isinstance(served, ServedByLlamaCpp) and isinstance(self._replicas, LlamaCppReplicas)
        file = self._replicas.files.get(seq.adapter_name, "") if seq.adapter else ""
        if seq.adapter and file not in served.ids:
            raise AdapterNotServedError(f"{seq.adapter_name} is not on the server any more.")
        return served.lora(file)
