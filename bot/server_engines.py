"""Creates the engine over the servers that ENGINE names, for the bot and for its doctor."""

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from bot.settings import Settings
from personas.engine import MetricsCallback
from personas.engine.serving_precision import PRECISION_BY_SETTING
from personas.models.base_model import BaseModel

# What works with servers is imported only where the setting names them.
if TYPE_CHECKING:
    from personas.engine.remote.llamacpp_engine import LlamaCppEngine
    from personas.engine.remote.local_vllm_engine import LocalVllmEngine
    from personas.engine.remote.ollama_engine import OllamaEngine
    from personas.engine.remote.vllm_engine import VllmEngine

log = logging.getLogger(__name__)
GATEWAY_HEALTH_INTERVAL_S = 5.0  # a gateway may count the requests


async def create_server_engine(
    settings: Settings, base: BaseModel, on_reply: MetricsCallback = lambda metrics: None
) -> "VllmEngine":
    """Create the engine of an ENGINE other than local. It connects, or starts its server, when it
    starts.

    Raises `BaseModelError` and `ServerError` where the model's file or the server's program is not
    here.
    """
    if settings.engine == "llamacpp":
        return await _create_llamacpp_engine(settings, base, on_reply)
    if settings.engine == "ollama":
        return await _create_ollama_engine(settings, base, on_reply)
    if settings.engine == "vllm" and not settings.engine_urls:
        return _create_local_vllm_engine(settings, base, on_reply)

    from personas.engine.remote.openai_engine import OpenAIEngine
    from personas.engine.remote.replica import ReplicaLimits
    from personas.engine.remote.vllm_engine import VllmEngine

    log.info("connecting to %s …", ", ".join(settings.engine_urls))
    precision = PRECISION_BY_SETTING[settings.engine_precision] or "bfloat16"
    limits = ReplicaLimits(rows=settings.engine_rows, adapters=settings.engine_loras)
    if settings.engine == "openai":
        limits = replace(limits, adapters=0, health_interval_s=GATEWAY_HEALTH_INTERVAL_S)
        return OpenAIEngine(
            base,
            precision,
            settings.engine_urls,
            settings.home,
            model=settings.engine_model,
            key=settings.engine_key,
            limits=limits,
            max_waiting=settings.max_waiting_replies,
            max_context_tokens=settings.context_tokens,
            on_reply=on_reply,
        )
    return VllmEngine(
        base,
        precision,
        settings.engine_urls,
        settings.home,
        server_home=settings.engine_home,
        key=settings.engine_key,
        limits=limits,
        max_waiting=settings.max_waiting_replies,
        max_context_tokens=settings.context_tokens,
        on_reply=on_reply,
    )


def _create_local_vllm_engine(
    settings: Settings, base: BaseModel, on_reply: MetricsCallback
) -> "LocalVllmEngine":
    from personas.engine.remote.local_vllm_engine import LocalVllmEngine
    from personas.engine.remote.replica import ReplicaLimits
    from personas.engine.remote.vllm_command import find_vllm

    return LocalVllmEngine(
        base,
        PRECISION_BY_SETTING[settings.engine_precision] or "bfloat16",
        (),
        settings.home,
        program=find_vllm(settings.vllm_python, settings.home),
        limits=ReplicaLimits(rows=settings.engine_rows, adapters=settings.engine_loras),
        max_waiting=settings.max_waiting_replies,
        max_context_tokens=settings.context_tokens,
        on_reply=on_reply,
    )


async def _create_llamacpp_engine(
    settings: Settings, base: BaseModel, on_reply: MetricsCallback
) -> "LlamaCppEngine":
    from personas.engine.remote.llamacpp_command import find_program
    from personas.engine.remote.llamacpp_engine import LLAMACPP_LIMITS, LlamaCppEngine
    from personas.models.gguf_base_file import find_base_gguf

    model_file = await asyncio.to_thread(find_base_gguf, base, settings.engine_model)
    program = None if settings.engine_urls else find_program(settings.llama_server)
    where = program.name if program else ", ".join(settings.engine_urls)
    log.info("%s serves %s with llama.cpp …", where, model_file)
    return LlamaCppEngine(
        base,
        PRECISION_BY_SETTING[settings.engine_precision] or "bfloat16",
        settings.engine_urls,
        settings.home,
        model_file=model_file,
        program=program,
        candidates=settings.max_reply_candidates,
        key=settings.engine_key,
        limits=replace(LLAMACPP_LIMITS, rows=settings.engine_rows, adapters=settings.engine_loras),
        max_waiting=settings.max_waiting_replies,
        max_context_tokens=settings.context_tokens,
        on_reply=on_reply,
    )


async def _create_ollama_engine(
    settings: Settings, base: BaseModel, on_reply: MetricsCallback
) -> "OllamaEngine":
    from personas.engine.remote.ollama_engine import DEFAULT_URL, OLLAMA_LIMITS, OllamaEngine
    from personas.models.gguf_base_file import find_base_gguf

    model_file = await asyncio.to_thread(find_base_gguf, base, settings.engine_model)
    urls = settings.engine_urls or (DEFAULT_URL,)
    log.info("asking Ollama at %s to serve %s …", ", ".join(urls), model_file)
    return OllamaEngine(
        base,
        PRECISION_BY_SETTING[settings.engine_precision] or "bfloat16",
        urls,
        settings.home,
        model_file=model_file,
        key=settings.engine_key,
        limits=replace(OLLAMA_LIMITS, rows=settings.engine_rows, adapters=settings.engine_loras),
        max_waiting=settings.max_waiting_replies,
        max_context_tokens=settings.context_tokens,
        on_reply=on_reply,
    )
