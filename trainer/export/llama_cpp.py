"""Compares an export with llama.cpp itself, if `xllamacpp` is installed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from personas.errors import ExportError
from trainer.export.loaded_adapter import LoadedAdapter
from trainer.export.logit_comparison import LogitDiff, compare_logits

PACKAGE = "xllamacpp"
# Nats per token by which llama.cpp may be off: a wrong scale or permutation costs whole nats.
MAX_KL = 0.1
MIN_LOG_PROBABILITY = -60.0  # the log-probability of a token that llama.cpp does not name


@dataclass(frozen=True)
class LlamaCppResult:
    """Mean KL divergence and share of equal choices at the prompts' last positions, and prompts
    tokenised alike.
    """

    kl: float
    same_choice: float
    same_tokens: int
    prompts: int

    def __str__(self) -> str:
        return (
            f"KL {self.kl:.2g}, same choice {self.same_choice:.0%}, the same tokens in "
            f"{self.same_tokens} of {self.prompts} prompts"
        )


def is_installed() -> bool:
    """Report whether llama.cpp is available."""
    return importlib.util.find_spec(PACKAGE) is not None


def compare_with_llama_cpp(
    model: Path,
    adapter: Path | None,
    source: LoadedAdapter,
    reference: Tensor,
    say: Callable[[str], None],
    rounding: LogitDiff | None = None,
) -> LlamaCppResult | None:
    """Compare with llama.cpp; None if it is not installed. Raises `ExportError` if its results
    differ by more than the file's `rounding` does.
    """
    if not is_installed():
        return None
    say("asking llama.cpp")
    longest = max(len(sample.ids) for sample in source.samples)
    server = _start_server(model, adapter, longest + 8)  # with room for the token that is asked for
    plain = source.tokenizer("a", add_special_tokens=False)["input_ids"][-1]
    last = []
    same = 0
    for sample in source.samples:
        last.append(_next_token(server, list(sample.ids), reference.shape[-1], plain))
        text = source.tokenizer.decode(sample.ids)
        ours = source.tokenizer(text, add_special_tokens=False)["input_ids"]
        same += _tokenise(server, text) == ours
    difference = compare_logits(reference[:, -1:], torch.stack(last).unsqueeze(1))
    result = LlamaCppResult(
        kl=difference.kl, same_choice=difference.same_choice, same_tokens=same, prompts=len(last)
    )
    allowed = MAX_KL + (rounding.kl if rounding else 0.0)
    if not result.kl <= allowed:  # so that NaN fails
        raise ExportError(
            f"llama.cpp reads the export otherwise: {result}.",
            "Nothing was kept. Report this fault.",
        )
    return result


def _start_server(model: Path, adapter: Path | None, context: int) -> Any:
    xllamacpp = importlib.import_module(PACKAGE)
    settings = xllamacpp.CommonParams()
    settings.model.path = str(model)
    settings.n_ctx = context
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.warmup = False
    settings.verbosity = -1
    settings.cpuparams.n_threads = os.cpu_count() or 1
    if adapter is not None:
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    try:
        return xllamacpp.Server(settings)
    except (RuntimeError, ValueError) as error:
        raise ExportError(
            f"llama.cpp cannot load the export: {error}.", "Report this fault."
        ) from error


def _next_token(server: Any, ids: list[int], size: int, plain: int) -> Tensor:
    """Return the log-probability of each next token, [vocabulary]. `plain` is any token that is a
    whole character.
    """
    # An end of turn or half a letter has no probabilities in the answer; the others are from before
    # the bias.
    request = {
        "prompt": ids,
        "max_tokens": 1,
        "n_probs": size,
        "temperature": 0.0,
        "logit_bias": [[plain, 1000.0]],
    }
    answer = server.handle_completions({**request, "cache_prompt": False})
    log_probabilities = torch.full((size,), MIN_LOG_PROBABILITY)
    for token in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        if token["id"] < size:
            log_probabilities[token["id"]] = max(token["logprob"], MIN_LOG_PROBABILITY)
    return log_probabilities


def _tokenise(server: Any, text: str) -> list[int]:
    body = json.dumps({"content": text, "parse_special": True, "add_special": False}).encode()
    request = urllib.request.Request(
        f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # nosec B310  # a loopback server
        tokens: list[int] = json.load(answer)["tokens"]
    return tokens
