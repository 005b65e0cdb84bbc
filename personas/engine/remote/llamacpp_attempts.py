"""Replies on llama.cpp servers: each request names its slot and the complete list of adapters."""

from typing import Any

from personas.engine.remote.llamacpp_client import LlamaCppClient, ServedByLlamaCpp
from personas.engine.remote.llamacpp_replicas import LlamaCppReplicas
from personas.engine.remote.llamacpp_slots import SlotUse
from personas.engine.remote.replica import Replica
from personas.engine.remote.reply_attempts import ReplyAttempts
from personas.engine.remote.server_errors import AdapterNotServedError
from personas.engine.remote.vllm_client import ServedModels, TokenChunk
from personas.engine.remote.vllm_sequence import VllmSequence
from personas.schemas.chat import SamplingParams

SAMPLERS = ("penalties", "temperature", "top_k", "top_p", "min_p")
"""The samplers in the order of the local engine's."""


class LlamaCppSequence(VllmSequence):
    """One request, and the slot that it has."""

    slot = SlotUse(-1, reads_cache=False)

    def llama_body(self, lora: list[dict[str, float]], *, reads_cache: bool) -> dict[str, Any]:
        """Build the request for the rest of the reply."""
        sampling = self.request.sampling
        prompt = [*self.prompt, *self.received]
        body = sampling_body(sampling) | {
            "prompt": prompt,
            "n_predict": sampling.max_new_tokens - len(self.received),
            # The local engine's penalty covers the whole prompt, too.
            "repeat_last_n": len(prompt) + sampling.max_new_tokens,
            "seed": self.attempt_seed(),
            "id_slot": self.slot.number,
            "cache_prompt": reads_cache,
        }
        if sampling.logprobs or sampling.alternatives is not None:
            body["n_probs"] = max(1, sampling.alternatives or 0)
        return body | ({"lora": lora} if lora else {})

    def receive(self, chunk: TokenChunk) -> None:
        """Append a chunk's tokens; text whose ids the server left out is split here."""
        if chunk.text is None:
            super().receive(chunk)
            return
        super().receive(TokenChunk(self._detokenizer.encode(chunk.text)))


def sampling_body(sampling: SamplingParams) -> dict[str, Any]:
    """Return the fields that the sampling needs."""
    return {
        "samplers": list(SAMPLERS),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
    }


class LlamaCppReplyAttempts(ReplyAttempts):
    """Generates replies on the slots of llama.cpp servers."""

    async def _stream(self, seq: VllmSequence, replica: Replica) -> None:
        assert isinstance(seq, LlamaCppSequence) and isinstance(replica.client, LlamaCppClient)
        with replica.client.slots.use(seq.adapter_name, seq.prompt) as slot:
            seq.slot = slot
            await super()._stream(seq, replica)

    def _body(self, seq: VllmSequence, served: ServedModels) -> dict[str, Any]:
        assert isinstance(seq, LlamaCppSequence) and isinstance(served, ServedByLlamaCpp)
        assert isinstance(self._replicas, LlamaCppReplicas)
        file = self._replicas.files.get(seq.adapter_name, "") if seq.adapter else ""
        if seq.adapter and file not in served.ids:
            raise AdapterNotServedError(f"{seq.adapter_name} is not on the server any more.")
        reads_cache = seq.slot.reads_cache and served.keeps_apart
        return seq.llama_body(served.lora(file), reads_cache=reads_cache)
