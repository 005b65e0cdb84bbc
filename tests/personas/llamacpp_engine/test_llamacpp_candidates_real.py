"""Candidates on a real llama.cpp server with the bundled model and two adapters, beside peft."""

import asyncio
from statistics import fmean

import pytest
import torch
from peft import PeftModel

from personas.engine.beginning_score import beginning_score
from personas.engine.remote.llamacpp_candidates import CardScorer
from personas.engine.remote.llamacpp_engine import LlamaCppEngine
from personas.engine.remote.replica import ReplicaLimits
from personas.models.base_model import EMBEDDED, locate
from personas.models.gguf_base_file import find_base_gguf
from personas.models.loading import load_model
from tests.personas.llamacpp_engine.random_versions import random_version
from tests.personas.vllm_engine.conftest import ADA, ask
from tests.real_llama import llama_program

pytestmark = pytest.mark.slow
SAMPLED = {"temperature": 1.0, "seed": 5, "candidates": 4, "max_new_tokens": 24}
MAX_LOGPROB_ERROR = 0.15
"""Nats per token between float32 and llama.cpp's products of 8-bit activations, on tokens that were
sampled.
"""


class Reference:
    """transformers and peft in float32, with all adapters."""

    def __init__(self, base, adapters):
        self.model = load_model(base, "float32")
        for adapter in adapters:
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(adapter.folder, adapter.name)
            else:
                self.model = PeftModel.from_pretrained(self.model, adapter.folder, adapter.name)

    @torch.inference_mode()
    def logprobs(self, adapter, text, tokens):
        """Log-probabilities of tokens after a text."""
        if adapter is None:
            with self.model.disable_adapter():
                return self._logprobs(text, tokens)
        self.model.set_adapter(adapter.name)
        return self._logprobs(text, tokens)

    def _logprobs(self, text, tokens):
        logits = self.model(torch.tensor([[*text, *tokens]])).logits[0, len(text) - 1 : -1]
        told = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])
        return told[:, 0].tolist()


@pytest.fixture
def comparisons(monkeypatch):
    """Records each comparison: the scorer, its candidates, what the server tells of each after the
    card's prompt, and the chosen one.
    """
    best, logprobs = CardScorer.best, CardScorer._logprobs
    told = {}
    recorded = []

    async def record(self, candidates, timeout_s):
        told.clear()
        chosen = await best(self, candidates, timeout_s)
        recorded.append((self, candidates, dict(told), chosen))
        return chosen

    async def tell(self, body, tokens):
        told[tuple(tokens)] = await logprobs(self, body, tokens)
        return told[tuple(tokens)]

    monkeypatch.setattr(CardScorer, "best", record)
    monkeypatch.setattr(CardScorer, "_logprobs", tell)
    return recorded


@pytest.fixture
async def engine(tmp_path):
    base = locate(EMBEDDED)
    made = LlamaCppEngine(
        base,
        "bfloat16",
        (),
        tmp_path,
        model_file=find_base_gguf(base),
        program=llama_program(),
        candidates=4,
        limits=ReplicaLimits(rows=2, adapters=4, health_timeout_s=10.0),
    )
    await made.start()
    yield made
    await made.close()


def mean_error(theirs, ours):
    """The mean difference of the log-probabilities that the server told, most of them."""
    pairs = zip(theirs, ours, strict=True)
    errors = [abs(one - other) for one, other in pairs if one is not None]
    assert len(errors) > 0.6 * len(ours)
    return sum(errors) / len(errors)


async def test_candidates_are_compared_as_peft_compares_them(engine, tmp_path, comparisons):
    versions = [random_version(tmp_path, engine.base, f"v{seed}", seed=seed) for seed in (1, 2)]
    reference = await asyncio.to_thread(Reference, engine.base, versions)
    errors, swapped = [], []
    for adapter in (*versions, None):
        if adapter:
            await engine.load(adapter)
        for question in ("Who are you?", "What did you mend today?"):
            request = ask(question, adapter, **SAMPLED)
            stream = engine.submit(request)
            text = "".join([piece async for piece in stream])
            scorer, candidates, told, chosen = comparisons.pop()
            assert stream.reply.candidates == len(candidates) > 1
            assert text.startswith(chosen.detokenizer.text)
            prompt = engine._renderer.prompt(ADA, request.turns).ids
            scores = []
            for candidate in candidates:
                tokens = candidate.tokens
                talk = await asyncio.to_thread(reference.logprobs, adapter, prompt, tokens)
                card = await asyncio.to_thread(
                    reference.logprobs, adapter, scorer.card_prompt, tokens
                )
                errors.append(mean_error(candidate.logprobs, talk))
                errors.append(mean_error(told[tuple(tokens)], card))
                swapped.append(mean_error(candidate.logprobs, card))
                swapped.append(mean_error(told[tuple(tokens)], talk))
                scores.append(beginning_score(sum(talk), sum(card), len(tokens)))
            print([round(score, 3) for score in scores], candidates.index(chosen))
            assert scores[candidates.index(chosen)] > max(scores) - MAX_LOGPROB_ERROR
    print(f"errors {fmean(errors):.3f}, at most {max(errors):.3f}; swapped {fmean(swapped):.3f}")
    assert fmean(errors) < MAX_LOGPROB_ERROR < fmean(swapped)
