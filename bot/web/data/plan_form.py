"""A run asked for in a form: the body of `POST /finetune/start-training`, and the command that does the same."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from bot.web.problems import Problem
from personas.contracts import TrainingRequest
from personas.errors import RequestError
from personas.hyperparameters import settings_in

FIELDS = ("task_type", "persona", "dataset", "recipe", "settings", "general", "start_from", "base_model", "job_name")
PATHS = ("uploads/", "datasets/")
"""What a data set's id begins with where it is named by path."""


def body_of(given: Mapping[str, str]) -> dict[str, Any]:
    """The body that a form stands for, with nothing in it that was left empty. Raises `Problem` for its settings."""
    text = {name: given.get(name, "").strip() for name in FIELDS}
    body: dict[str, Any] = {"job_name": text["job_name"] or job_name_for(text)}
    task = text["task_type"] or "persona"
    if task != "persona":
        body["task_type"] = task
    if task != "dialogue" and text["persona"]:
        body["persona"] = text["persona"]
    if text["dataset"]:
        body["dataset_path" if text["dataset"].startswith(PATHS) else "dataset"] = text["dataset"]
    body |= {name: text[name] for name in ("recipe", "general", "start_from", "base_model") if text[name]}
    try:
        settings = settings_in(text["settings"].replace("\n", ",")).model_dump(exclude_none=True, mode="json")
    except RequestError as error:
        errors = [{"field": "settings", "pointer": "#/hyperparameters", "detail": str(error)}]
        raise Problem("invalid-request", error.message, error.advice, errors=errors) from None
    return body | ({"hyperparameters": settings} if settings else {})


def job_name_for(given: Mapping[str, str]) -> str:
    """A name for a job that was given none."""
    of = given.get("persona") if given.get("task_type") != "dialogue" else given.get("dataset", "").rpartition("/")[2]
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_") else "-" for sign in of or "")
    return (plain.strip("-_") or "run")[:64]


def curl_of(body: Mapping[str, Any], url: str) -> str:
    """The request as a person sends it from a terminal."""
    sent = shlex.quote(json.dumps(body, ensure_ascii=False, indent=2))
    return f"curl -X POST {url}/finetune/start-training -H 'Content-Type: application/json' -d {sent}"


def command_of(request: TrainingRequest) -> str:
    """The trainer's own command for the same run; empty where there is none (preferences are the bot's to gather)."""
    if request.task_type == "preference":
        return ""
    words = ["train", *(["--persona", request.persona] if request.persona else ["--dialogue"])]
    given = {
        "--dataset": request.dataset or request.dataset_path,
        "--general": request.general,
        "--start-from": request.start_from,
        "--base-model": request.base_model if request.base_model != "embedded" else None,
        "--recipe": request.recipe if request.recipe != "demo-cpu" else None,
    }
    words += [word for option, value in given.items() if value for word in (option, value)]
    for name, value in request.hyperparameters.model_dump(exclude_none=True, mode="json").items():
        words += ["--set", f"{name}={_written(value)}"]
    return f"python -m trainer {shlex.join(words)}"


def _written(value: Any) -> str:
    """A setting as `--set` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
