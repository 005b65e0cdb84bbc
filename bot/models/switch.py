"""Serving another base model: what becomes of each persona's version, and the new value of BASE_MODEL."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from bot.models.engine_advice import EngineAdvice
from bot.models.env_file import set_in_env_file
from bot.models.table import ModelTable
from bot.personas.base_model_compat import VersionKey, find_incompatible_versions
from bot.settings import SettingsError
from personas.cli_common import commands_as_typed
from personas.errors import BaseModelError
from personas.models.base_model import EMBEDDED, fingerprint, locate, split_name
from personas.models.catalogue import catalogue_models, find_model
from personas.models.gguf_names import HUB_FILE, find_gguf

RESTART_ADVICE = "Restart the bot: Ctrl-C, then make run."
PATH_STARTS = ("/", "./", "../", "~")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?(:[\w./-]+)?")
NO_FINGERPRINT = "never unpacked"
"""Stands for the fingerprint of a GGUF file that no adapter here was trained over."""


@dataclass(frozen=True)
class VersionChange:
    """A live version; `other_model` is the base model that it was trained over if that is another one,
    else empty.
    """

    persona_id: str
    version: str
    other_model: str

    @property
    def text(self) -> str:
        """What becomes of it."""
        name = f"{self.persona_id} {self.version}"
        if not self.other_model:
            return f"{name} goes on: it was trained over this model."
        return (
            f"{name} was trained over {self.other_model}: the base model answers until the "
            "persona is trained again. Nothing is deleted."
        )


@dataclass(frozen=True)
class SwitchPlan:
    """The new BASE_MODEL, the present one, what becomes of live versions, and of ENGINE."""

    base_model: str
    previous: str
    changes: tuple[VersionChange, ...]
    engine: EngineAdvice

    @property
    def to_retrain(self) -> int:
        return sum(1 for change in self.changes if change.other_model)

    @property
    def settings(self) -> dict[str, str]:
        """What is written into the file with settings."""
        written = {"BASE_MODEL": self.base_model}
        if self.engine.engine:
            written["ENGINE"] = self.engine.engine
        return written

    @property
    def lines(self) -> list[str]:
        """The plan in words."""
        lines = [change.text for change in self.changes]
        if not lines:
            lines.append("No persona has a live version.")
        if self.engine.note:
            lines.append(self.engine.note)
        return lines


def switch_json(plan: SwitchPlan, todo: Sequence[str] = ()) -> dict[str, Any]:
    """Return the published object of a switch."""
    return {
        "base_model": plan.base_model,
        "previous": plan.previous,
        "versions": [
            {
                "persona": change.persona_id,
                "version": change.version,
                "other_model": change.other_model or None,
            }
            for change in plan.changes
        ],
        "engine": plan.engine.engine,
        "engine_note": plan.engine.note,
        "todo": list(todo),
    }


def plan_switch(
    home: Path, name: str, previous: str, live: Iterable[VersionKey], engine: EngineAdvice
) -> SwitchPlan:
    """Plan to serve a base model that is on this machine. Raises `BaseModelError` if it is not."""
    base_model, base_hash = _find_here(name)
    versions = list(live)
    other = find_incompatible_versions(home, versions, base_hash)
    changes = [
        VersionChange(persona_id, version, other.models.get((persona_id, version), ""))
        for persona_id, version in versions
    ]
    return SwitchPlan(base_model, previous, tuple(changes), engine)


def require_unset_in_environment(plan: SwitchPlan, env_file: Path) -> None:
    """Raise `SettingsError` if the environment sets BASE_MODEL, as it precedes the file."""
    if stated := os.environ.get("BASE_MODEL", "").strip():
        raise SettingsError(
            f"BASE_MODEL is {stated} in the environment, which precedes {env_file}.",
            f"Unset it, or set it to {plan.base_model} where it is set.",
        )


def use_model(plan: SwitchPlan, env_file: Path) -> list[str]:
    """Write the plan's settings into their file; returns what to do next. Raises `SettingsError`."""
    require_unset_in_environment(plan, env_file)
    set_in_env_file(env_file, plan.settings)
    todo: list[str] = [RESTART_ADVICE]
    if plan.to_retrain:
        todo.append(
            "Then train the personas again: /finetune all on Discord, or Train all on the page "
            "Models."
        )
    return todo


def local_names(name: str, table: ModelTable) -> list[str]:
    """Return the names that a model may have on this machine, the one that is served best first."""
    model = find_model(name)
    path, mark, suffix = name.partition("#")
    if path.casefold() == EMBEDDED:
        return [EMBEDDED + mark + suffix]
    if model is None or path in (model.id, model.gguf) or "@" in path:
        return [name]
    best = table.fit_of(model).base_model
    names = dict.fromkeys(each for each in (best, model.id, model.gguf, model.ollama) if each)
    return [each + mark + suffix for each in names]


def find_local_name(name: str, table: ModelTable) -> str:
    """Return which of a model's names is on this machine. Raises `BaseModelError` if none is."""
    path = _without_suffixes(name)
    errors = []
    for each in local_names(name, table):
        try:
            _find_here(each)
        except BaseModelError as error:
            errors.append(error)
            continue
        return each
    model = find_model(name)
    is_ollama_name = ":" in path and "/" not in path
    if model is None and (Path(path).expanduser().exists() or is_ollama_name):
        raise errors[0]
    if model is None and (path.startswith(PATH_STARTS) or _is_file_name(path)):
        raise BaseModelError(
            f"There is no file or folder {path}.",
            "Check the path.",
        )
    if model is None and not HUB_NAME.fullmatch(path):
        raise _unknown_name_error(path)
    fetched = model.name if model and "@" not in path and "/" not in path else path
    raise BaseModelError(
        f"{path} is not on this machine.",
        "Fetch it first: {command}".format(
            command=commands_as_typed(f"python -m bot models fetch {fetched}")
        ),
    )


def _without_suffixes(name: str) -> str:
    """Return a base model's name without scaling and chat template. Raises `BaseModelError` for a name
    that no model can have.
    """
    if not name.strip():
        raise BaseModelError(
            "The base model has no name.",
            f"Name a model: {commands_as_typed('python -m bot models')}",
        )
    if "#" in name and Path(name).expanduser().is_file():
        raise BaseModelError(
            (
                f"The path {name} has a #, which begins a scaling or a chat template in a base "
                "model's name."
            ),
            "Rename the file or its folder.",
        )
    path, _, _ = split_name(name)
    return path


def _is_file_name(path: str) -> bool:
    return path.endswith(".gguf") and ":" not in path


def _unknown_name_error(name: str) -> BaseModelError:
    known = [EMBEDDED, *(model.name for model in catalogue_models())]
    close = difflib.get_close_matches(name.casefold(), known)
    advice = f"See {commands_as_typed('python -m bot models')}."
    if close:
        advice = f"Did you mean {reduce(_either, close)}?"
    return BaseModelError(
        (
            f"{name} is neither a name of the table, nor a hub's id (owner/name), nor a file or "
            "folder here."
        ),
        advice,
    )


def _either(first: str, second: str) -> str:
    return f"{first} or {second}"


def _find_here(name: str) -> tuple[str, str]:
    """Return a model's name with its commit, and its fingerprint. Downloads nothing."""
    if name == EMBEDDED:
        return name, fingerprint(locate(name, fetch=False))
    name = _absolute(name)
    try:
        base = locate(name, fetch=False)
        return base.name, fingerprint(base)
    except BaseModelError:
        file = find_gguf(name.partition("#")[0], fetch=False)
        if file is None:
            raise
    # It was not unpacked, so nothing was trained over it.
    return _pinned(name, file), NO_FINGERPRINT


def _absolute(name: str) -> str:
    """Return the name of a file or folder here with its whole path: the bot may start elsewhere."""
    path, mark, suffix = name.partition("#")
    local = Path(path).expanduser()
    return f"{local.absolute()}{mark}{suffix}" if local.exists() else name


def _pinned(name: str, file: Path) -> str:
    hub_file = HUB_FILE.fullmatch(name)
    is_cached = file.parent.parent.name == "snapshots"
    if hub_file is None or hub_file["revision"] or not is_cached:
        return name
    return f"{hub_file['repository']}@{file.parent.name}:{file.name}"
