"""Creates the engine over the servers that ENGINE names, for the bot and for its doctor."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from bot.settings import Settings
from personas.engine import MetricsCallback
from personas.engine.serving_precision import PRECISION_BY_SETTING
from personas.models.base_model import BaseModel
from personas.schemas.chat import VisionSetting
from personas.schemas.training import ServingPrecision

# What works with servers is imported only where the setting names them.
if TYPE_CHECKING:
    from personas.engine.remote.llamacpp_engine import LlamaCppEngine
    from personas.engine.remote.openai_engine import OpenAIEngine
    from personas.engine.remote.replica import ReplicaLimits
    from personas.engine.remote.vllm_engine import VllmEngine

log = logging.getLogger(__name__)
GATEWAY_HEALTH_INTERVAL_S = 5.0  # a gateway may count the requests


class EngineOptions(TypedDict):
    """What every engine over servers takes."""

    base: BaseModel
    precision: ServingPrecision
    urls: Sequence[str]
    home: Path
    key: str
    limits: "ReplicaLimits"
    max_waiting: int
    max_context_tokens: int | None
    vision: VisionSetting
    on_reply: MetricsCallback


async def create_server_engine(
    settings: Settings, base: BaseModel, on_reply: MetricsCallback = lambda metrics: None
) -> "VllmEngine":
    """Create the engine of an ENGINE other than local. It connects, or starts its server, when it
    starts.

    Raises `BaseModelError` and `ServerError` where the model's file or the server's program is not
    here.
    """
    from personas.engine.remote.replica import ReplicaLimits

    options = EngineOptions(
        base=base,
        precision=PRECISION_BY_SETTING[settings.engine_precision] or "bfloat16",
        urls=settings.engine_urls,
        home=settings.home,
        key=settings.engine_key,
        limits=ReplicaLimits(rows=settings.engine_rows, adapters=settings.engine_loras),
        max_waiting=settings.max_waiting_replies,
        max_context_tokens=settings.context_tokens,
        vision=settings.vision,
        on_reply=on_reply,
    )
    if settings.engine == "llamacpp":
        return await _create_llamacpp_engine(settings, options)
    if settings.engine == "openai":
        return _create_openai_engine(settings, options)
    return _create_vllm_engine(settings, options)


def _create_vllm_engine(settings: Settings, options: EngineOptions) -> "VllmEngine":
    if settings.engine_urls:
        from personas.engine.remote.vllm_engine import VllmEngine

        log.info("connecting to %s …", ", ".join(settings.engine_urls))
        return VllmEngine(**options, server_home=settings.engine_home)

    from personas.engine.remote.local_vllm_engine import LocalVllmEngine
    from personas.engine.remote.vllm_command import find_vllm

    program = find_vllm(settings.vllm_python, settings.home)
    return LocalVllmEngine(**options, program=program)


def _create_openai_engine(settings: Settings, options: EngineOptions) -> "OpenAIEngine":
    from personas.engine.remote.openai_engine import OpenAIEngine

    log.info("connecting to %s …", ", ".join(settings.engine_urls))
    options["limits"] = replace(
        options["limits"], adapters=0, health_interval_s=GATEWAY_HEALTH_INTERVAL_S
    )
    return OpenAIEngine(**options, model=settings.engine_model)


async def _create_llamacpp_engine(settings: Settings, options: EngineOptions) -> "LlamaCppEngine":
    from personas.engine.remote.llamacpp_command import find_program
    from personas.engine.remote.llamacpp_engine import LLAMACPP_LIMITS, LlamaCppEngine
    from personas.models.gguf_base_file import find_base_gguf

    model_file = await asyncio.to_thread(find_base_gguf, options["base"], settings.engine_model)
    program = None if settings.engine_urls else find_program(settings.llama_server)
    where = program.name if program else ", ".join(settings.engine_urls)
    log.info("%s serves %s with llama.cpp …", where, model_file)
    options["limits"] = replace(
        LLAMACPP_LIMITS, rows=settings.engine_rows, adapters=settings.engine_loras
    )
    return LlamaCppEngine(
        **options,
        model_file=model_file,
        program=program,
        candidates=settings.max_reply_candidates,
    )
