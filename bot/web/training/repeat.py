"""A run once more, with changes: a form filled with the settings that the run used, and what is other in it."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from bot.house import House
from bot.progress import duration
from bot.store import Job
from bot.web.bodies import form_of
from bot.web.finetune import queue_training
from bot.web.formats import size
from bot.web.frame import Fault, back_to, page
from bot.web.here import Route, house_of
from bot.web.jobs import job_named
from bot.web.preflight import own_plan
from bot.web.problems import Problem
from bot.web.training.record import folder_of, settings_in_folder
from bot.web.training.settings import GROUPS, OF_REQUEST, Row, written
from bot.web.training.words import TRAINING, run_path, server_name
from bot.web.words import without_places
from personas.contracts import Hyperparameters, TrainingRequest
from personas.errors import RequestError, UnderstudyError
from personas.hyperparameters import allowed, settings_of
from personas.job_material import ShippedData

LONGEST_NAME = 64
NUMBERED = re.compile(r"(.*?)-(\d{1,6})")
PREFIX = "set."
"""Before the name of a setting, in the form."""

FIRST_RECIPE = "demo-cpu"
"""What other recipes leave out is as it is here."""

FIELDS = ("job_name", *OF_REQUEST)
KINDS = ("persona", "dialogue", "preference")


@dataclass(frozen=True)
class Field:
    """A field of the form. `used` is what the run had; `choices`, where there are any, are all that may stand there."""

    name: str
    value: str
    used: str
    hint: str = ""
    choices: tuple[str, ...] = ()
    error: str = ""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name.removeprefix(PREFIX)


@dataclass(frozen=True)
class Before:
    """The run that is repeated: what was asked for, and the settings that it used, by name."""

    job: Job
    request: TrainingRequest
    used: Mapping[str, Any]

    @property
    def texts(self) -> dict[str, str]:
        """Every field of the form as the run had it."""
        fields = {name: written(getattr(self.request, name)) for name in FIELDS}
        return fields | {PREFIX + name: written(self.used.get(name)) for name in Hyperparameters.model_fields}


@dataclass
class Wanted:
    """What the form says, and what is wrong with it by field; `body` is what is sent."""

    texts: Mapping[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


async def get_form(request: web.Request) -> web.Response:
    """The form, filled with what the run used, under a name of its own."""
    house, before = await _before(request)
    texts = {**before.texts, "job_name": next_name(before.request.job_name)}
    return _shown(request, house, before, Wanted(texts))


async def post_form(request: web.Request) -> web.Response:
    """Show what is other than in the run, or queue it."""
    house, before = await _before(request)
    sent = await form_of(request)
    texts = {name: sent.get(name, "").strip() for name in before.texts}
    wanted = await asyncio.to_thread(body_of, before, texts)
    if sent.get("do") != "start" or wanted.errors:
        return _shown(request, house, before, wanted, status=422 if wanted.errors else 200, compared=not wanted.errors)
    try:
        job, plan = await queue_training(request, wanted.body, guild_id=before.job.guild_id)
    except UnderstudyError as error:
        return _shown(request, house, before, _with(wanted, error, house), status=422, refused=_told(error, house))
    said = f"Queued as {job.job_id}."
    if plan:
        own = own_plan(plan, job.request.recipe)
        said += f" About {own.steps:,} steps, {duration(own.seconds)} and {size(own.memory_bytes)} of memory."
    return back_to(request, run_path(job.job_id), said)


def next_name(name: str) -> str:
    """A job's name for another run of the same: `dusk` becomes `dusk-2`, and that `dusk-3`."""
    numbered = NUMBERED.fullmatch(name)
    stem, number = (numbered[1], int(numbered[2]) + 1) if numbered else (name, 2)
    return f"{stem[: LONGEST_NAME - len(str(number)) - 1]}-{number}"


def body_of(before: Before, texts: Mapping[str, str]) -> Wanted:
    """What the form asks for.

    Settings are named in it that were named before, that are changed, and that the run had other than its recipe has
    them today. Where another recipe is chosen, that decides all else.
    """
    body: dict[str, Any] = {name: text for name in FIELDS if (text := texts[name])}
    wanted = Wanted(texts, body=body)
    recipe = recipe_values(texts["recipe"]) if texts["recipe"] == before.request.recipe else {}
    named = before.request.hyperparameters.model_dump(exclude_none=True)
    settings: dict[str, Any] = {}
    for name in Hyperparameters.model_fields:
        text, had = texts[PREFIX + name], before.used.get(name)
        is_changed = text != written(had)
        is_special = name in named or (name in recipe and had is not None and written(recipe[name]) != written(had))
        if not text or not (is_changed or is_special):
            continue
        try:
            settings |= settings_of([f"{name}={text}"]).model_dump(mode="json", exclude_none=True)
        except RequestError as error:
            wanted.errors[PREFIX + name] = str(error)
    if settings:
        body["hyperparameters"] = settings
    return wanted


def recipe_values(name: str) -> dict[str, Any]:
    """The values of a recipe as it ships today; empty for one that there is not."""
    folder = ShippedData.beside_the_code().recipes
    files = {path.stem: path for path in folder.glob("*.toml")}
    if name not in files:
        return {}
    return {**_toml(files[FIRST_RECIPE]), **_toml(files[name])}


def differences(before: Before, texts: Mapping[str, str]) -> list[Row]:
    """What is other than in the run, the job's own name left out."""
    rows = (
        Row(name.removeprefix(PREFIX), had or "–", texts[name] or "as the recipe has it")
        for name, had in before.texts.items()
        if name != "job_name" and texts[name] != had
    )
    return list(rows)


# ------------------------------------------------------------------------------------------------ the page


def _shown(
    request: web.Request,
    house: House,
    before: Before,
    wanted: Wanted,
    *,
    status: int = 200,
    refused: str = "",
    compared: bool = False,
) -> web.Response:
    job = before.job
    faults = [Fault(said, name, name.removeprefix(PREFIX)) for name, said in wanted.errors.items()]
    return page(
        request,
        "training/repeat.html",
        title=f"{job.name} {job.version} once more",
        section="training",
        status=status,
        faults=faults or ([Fault(refused)] if refused else []),
        job=job,
        path=run_path(job.job_id),
        server=server_name(house, job.guild_id),
        fields=[_field(house, name, before, wanted) for name in FIELDS],
        groups=[(title, [_field(house, PREFIX + name, before, wanted) for name in names]) for title, names in GROUPS],
        changes=differences(before, wanted.texts),
        body=wanted.body,
        compared=compared,
    )


def _field(house: House, name: str, before: Before, wanted: Wanted) -> Field:
    hint, choices = _about(house, name)
    return Field(name, wanted.texts[name], before.texts[name], hint, choices, wanted.errors.get(name, ""))


def _about(house: House, name: str) -> tuple[str, tuple[str, ...]]:
    """What may stand in a field: in words, or as choices."""
    if name.startswith(PREFIX):
        setting = name.removeprefix(PREFIX)
        schema = Hyperparameters.model_json_schema()["properties"][setting]["anyOf"][0]
        if schema.get("type") == "boolean":
            return "", ("", "true", "false")
        if "enum" in schema:
            return "", ("", *schema["enum"])
        return allowed(setting), ()
    if name == "recipe":
        return "", tuple(house.catalogue.recipes())
    if name == "task_type":
        return "", KINDS
    return HINTS.get(name, ""), ()


HINTS = {
    "job_name": "letters, digits, - and _",
    "persona": "its id; empty for general dialogue",
    "dataset": "by name; empty for the persona's own log",
    "dataset_path": "or by path, for the operator's own runs",
    "general": "general dialogue by name, for recipes that mix some in",
    "start_from": "what is trained further",
    "base_model": "the one that is served, unless it is the operator's own run",
}


async def _before(request: web.Request) -> tuple[House, Before]:
    house = house_of(request)
    job = job_named(house, request.match_info["job_id"])
    try:
        asked = job.request
    except RequestError as error:
        why = f"What {job.name} {job.version} was asked for cannot be read: {error.message}"
        raise Problem("conflict", why, "Start a training under Data.") from None
    folder = folder_of(house.home, job.job_id)
    settings = await asyncio.to_thread(settings_in_folder, folder, job)
    return house, Before(job, asked, settings.values)


def _with(wanted: Wanted, error: UnderstudyError, house: House) -> Wanted:
    """The same with what a refusal says of single fields."""
    found = {}
    for one in error.errors if isinstance(error, Problem) else ():
        name = one["field"].removeprefix("hyperparameters.")
        key = name if name in FIELDS else PREFIX + name
        found[key] = without_places(one["detail"], house.home)
    return Wanted(wanted.texts, found, wanted.body)


def _told(error: UnderstudyError, house: House) -> str:
    advice = "" if isinstance(error, Problem) and error.errors else error.advice  # that speaks of JSON
    return without_places(f"{error.message} {advice}".strip(), house.home)


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


ROUTES: tuple[Route, ...] = (
    ("GET", f"{TRAINING}/{{job_id}}/repeat", get_form),
    ("POST", f"{TRAINING}/{{job_id}}/repeat", post_form),
)
