"""Advises which engine serves a base model here; `models use` writes it into ENGINE."""

import os
from dataclasses import dataclass
from typing import Self

from bot.models.table import ModelTable
from bot.settings import Settings
from personas.cli_common import commands_as_typed
from personas.models.base_model import split_name
from personas.models.catalogue import CatalogueModel, find_model
from personas.models.model_fit import EngineName


@dataclass(frozen=True)
class PresentEngine:
    """The operator's ENGINE and LLAMA_SERVER, and whether ENGINE_URLS names servers."""

    kind: str = "local"
    llama_server: str = ""
    has_urls: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.engine, settings.llama_server, bool(settings.engine_urls))


@dataclass(frozen=True)
class EngineAdvice:
    """The new value of ENGINE, None to leave it as it is; `note` says why, or what is missing."""

    engine: EngineName | None = None
    note: str = ""


def advise_engine(base_model: str, table: ModelTable, present: PresentEngine) -> EngineAdvice:
    """Advise about a base model that is on this machine. Servers of the operator's own stay."""
    if present.kind not in ("local", "llamacpp") or present.has_urls:
        return EngineAdvice()
    path, scaling, _ = split_name(base_model)
    if scaling:
        untold = "llama.cpp is not told of a RoPE scaling"
        return _change_to("local", untold, present)
    model = find_model(path)
    if model is None:
        return EngineAdvice()
    fit = table.fit_of(model)
    best = fit.engine
    reason = best.reason
    missing = ""
    if best.engine == "llamacpp" and present.kind != "llamacpp":
        missing = _missing_for_llamacpp(path, model, present)
    if missing:
        return EngineAdvice(note=f"ENGINE=llamacpp would serve it best here: {reason}. {missing}")
    return _change_to(best.engine, reason, present)


def _change_to(engine: EngineName, reason: str, present: PresentEngine) -> EngineAdvice:
    if engine == present.kind:
        return EngineAdvice()
    if os.environ.get("ENGINE", "").strip():
        return EngineAdvice(
            note=(
                f"ENGINE={engine} serves it best here: {reason}. ENGINE is {present.kind} in the "
                "environment, which precedes the file: change it there."
            )
        )
    note = f"ENGINE={engine} is written too: {reason}."
    return EngineAdvice(engine, note)


def _missing_for_llamacpp(path: str, model: CatalogueModel, present: PresentEngine) -> str:
    if path == model.id:
        return "Fetch its GGUF file: {command}".format(
            command=commands_as_typed(f"python -m bot models fetch {model.name} --gguf")
        )
    # What works with servers is imported only where it is asked about.
    from personas.engine.remote.llamacpp_command import NoLlamaServerError, find_program

    try:
        find_program(present.llama_server)
    except NoLlamaServerError as error:
        return str(error)
    return ""
