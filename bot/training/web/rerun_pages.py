"""`/dashboard/training/ID/repeat`: starts a run again with changed settings."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.request_body import (
    parse_form_number,
    read_form,
    with_decimal_point,
)
from bot.platform.web_kit.templating import FormError, format_bytes, redirect_to, render_page
from bot.services import Services
from bot.store import TrainingJob
from bot.training.backends.job_folder_backend import job_folder
from bot.training.repeat import next_job_name, setting_text
from bot.training.request_checks import requested_recipe_plan
from bot.training.status_text import format_duration
from bot.training.web import run_view, setting_view
from bot.training.web.requests import require_job, start_training
from bot.training.web.run_details import read_run_settings
from personas.cli_common import commands_as_typed
from personas.errors import RequestError, UnderstudyError
from personas.home.job_material import ShippedData
from personas.home.recipe_files import recipe_values
from personas.schemas.hyperparameters import (
    Hyperparameters,
    describe_allowed_values,
    parse_settings,
)
from personas.schemas.training import TrainingRequest

SETTING_PREFIX = "set."
"""Prefix of settings' names in the form."""
RERUN_FIELDS = ("job_name", *setting_view.REQUEST_FIELDS)
AS_RECIPE = {"": "as the recipe has it"}
"""The choice of a setting that the recipe decides."""
TASK_TYPES = ("persona", "dialogue", "preference")
routes = Routes()


@dataclass(frozen=True)
class RerunField:
    """A field of the form. `used` is the original value; `choices`, if any, are all valid
    values with what the menu shows of them.
    """

    name: str
    value: str
    used: str
    hint: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def label(self) -> str:
        return self.name.removeprefix(SETTING_PREFIX)


@dataclass(frozen=True)
class OriginalRun:
    """The original run: its request, and the settings it used by name."""

    job: TrainingJob
    request: TrainingRequest
    used: Mapping[str, Any]

    @property
    def texts(self) -> dict[str, str]:
        """Every form field as the run had it."""
        texts = {name: setting_text(getattr(self.request, name)) for name in RERUN_FIELDS}
        for name in Hyperparameters.model_fields:
            texts[SETTING_PREFIX + name] = setting_text(self.used.get(name))
        return texts


@dataclass
class RerunForm:
    """Texts of the form, errors by field, and the request `body` built from it."""

    texts: Mapping[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


@routes.add(f"GET {run_view.TRAINING_PATH}/{{job_id}}/repeat")
async def get_rerun_form(request: web.Request) -> web.Response:
    """Page with the form, filled with the run's settings under a new name."""
    services, before = await _original_run(request)
    texts = {**before.texts, "job_name": next_job_name(before.request.job_name)}
    return _render_rerun(request, services, before, RerunForm(texts))


@routes.add(f"POST {run_view.TRAINING_PATH}/{{job_id}}/repeat")
async def post_rerun_form(request: web.Request) -> web.Response:
    """Show what differs from the original run, or queue it."""
    services, before = await _original_run(request)
    form = await read_form(request)
    texts = {name: form.get(name, "").strip() for name in before.texts}
    draft = await asyncio.to_thread(parse_rerun_form, before, texts)
    if form.get("do") != "start" or draft.errors:
        return _render_rerun(request, services, before, draft, compared=not draft.errors)
    try:
        started = await start_training(request, draft.body, guild_id=before.job.guild_id)
    except UnderstudyError as error:
        draft.errors = _field_errors(error, services)
        return _render_rerun(request, services, before, draft, refused=_error_text(error, services))
    job = started.job
    message = f"Queued as {job.job_id}."
    if started.plan:
        own = requested_recipe_plan(started.plan, job.request.recipe)
        duration = format_duration(own.seconds)
        memory = format_bytes(own.memory_bytes)
        needs = f"About {own.steps:,} steps, {duration} and {memory} of memory."
        message = f"{message} {needs}"
    return redirect_to(request, run_view.run_path(job.job_id), message)


def parse_rerun_form(before: OriginalRun, texts: Mapping[str, str]) -> RerunForm:
    """Build the request from the form.

    It names settings that the original request named, changed ones, and those in which the run
    differed from today's recipe. Another recipe decides on all others.
    """
    body: dict[str, Any] = {name: text for name in RERUN_FIELDS if (text := texts[name])}
    body |= {
        name: parse_form_number(body[name]) for name in setting_view.SHARE_FIELDS if name in body
    }
    if before.request.review and "from_card" in body:
        body["review"] = True
    draft = RerunForm(texts, body=body)
    recipe = shipped_values(texts["recipe"]) if texts["recipe"] == before.request.recipe else {}
    named = before.request.hyperparameters.model_dump(exclude_none=True)
    settings: dict[str, Any] = {}
    for name in Hyperparameters.model_fields:
        text = texts[SETTING_PREFIX + name]
        had = before.used.get(name)
        is_changed = text != setting_text(had)
        is_special = name in named or (
            name in recipe and had is not None and setting_text(recipe[name]) != setting_text(had)
        )
        if not text or not (is_changed or is_special):
            continue
        try:
            setting = parse_settings([f"{name}={with_decimal_point(text)}"])
            settings |= setting.model_dump(mode="json", exclude_none=True)
        except RequestError as error:
            draft.errors[SETTING_PREFIX + name] = str(error)
    if settings:
        body["hyperparameters"] = settings
    return draft


def shipped_values(recipe: str) -> dict[str, Any]:
    """The values of a recipe as it ships today; empty for an unknown one."""
    folder = ShippedData.from_source_tree().recipes
    if recipe not in {path.stem for path in folder.glob("*.toml")}:
        return {}
    return recipe_values(folder, recipe)


def changed_settings(
    before: OriginalRun, texts: Mapping[str, str]
) -> list[setting_view.SettingComparison]:
    """List changes against the original run, except the job's name."""
    changes = []
    for name, had in before.texts.items():
        if name != "job_name" and texts[name] != had:
            label = name.removeprefix(SETTING_PREFIX)
            now = texts[name] or "as the recipe has it"
            changes.append(setting_view.SettingComparison(label, had or "–", now))
    return changes


def _render_rerun(
    request: web.Request,
    services: Services,
    before: OriginalRun,
    draft: RerunForm,
    refused: str = "",
    *,
    compared: bool = False,
) -> web.Response:
    job = before.job
    faults = []
    for name, error in draft.errors.items():
        faults.append(FormError(error, name, name.removeprefix(SETTING_PREFIX)))
    if refused and not faults:
        faults.append(FormError(refused))
    groups = []
    for group, names in setting_view.SETTING_GROUPS:
        fields = [_rerun_field(services, SETTING_PREFIX + name, before, draft) for name in names]
        groups.append((group, fields))
    return render_page(
        request,
        "training/repeat.html",
        title=f"{run_view.job_label(services, job)} once more",
        status=422 if faults else 200,
        faults=faults,
        job=job,
        path=run_view.run_path(job.job_id),
        server=run_view.job_guild_name(services, job.guild_id),
        fields=[_rerun_field(services, name, before, draft) for name in RERUN_FIELDS],
        groups=groups,
        changes=changed_settings(before, draft.texts),
        body=draft.body,
        compared=compared,
    )


def _rerun_field(
    services: Services, name: str, before: OriginalRun, draft: RerunForm
) -> RerunField:
    hint, choices = _field_hint(services, name)
    return RerunField(
        name=name,
        value=draft.texts[name],
        used=before.texts[name],
        hint=hint,
        choices=choices,
        error=draft.errors.get(name, ""),
    )


def _field_hint(services: Services, name: str) -> tuple[str, dict[str, str]]:
    """Allowed values of a field: as text, or as choices with their labels."""
    if name.startswith(SETTING_PREFIX):
        setting = name.removeprefix(SETTING_PREFIX)
        schema = Hyperparameters.model_json_schema()["properties"][setting]["anyOf"][0]
        if schema.get("type") == "boolean":
            return "", AS_RECIPE | {value: value for value in ("true", "false")}
        if "enum" in schema:
            return "", AS_RECIPE | {value: value for value in schema["enum"]}
        return describe_allowed_values(setting), {}
    if name == "recipe":
        return "", services.catalogue.recipe_labels()
    if name == "task_type":
        return "", {value: value for value in TASK_TYPES}
    return FIELD_HINTS.get(name, ""), {}


FIELD_HINTS = {
    "job_name": "letters, digits, - and _",
    "persona": "its id; empty for general dialogue",
    "dataset": "by name; empty for the persona's own log",
    "dataset_path": "or by path, for the operator's own runs",
    "general": "general dialogue by name, for recipes that mix some in",
    "start_from": "what is trained further",
    "lore_pairs": "share of the replies from lore, 0 to 1; empty for none",
    "from_card": "share of the replies written from the card, up to 1; empty for none",
    "base_model": "the one that is served, unless it is the operator's own run",
}


async def _original_run(request: web.Request) -> tuple[Services, OriginalRun]:
    services = get_services(request)
    job = require_job(request)
    try:
        original = job.request
    except RequestError as error:
        message = f"The request of {job.name} {job.version} cannot be read: {error.message}"
        raise Problem("conflict", message, "Start a training under Data.") from None
    folder = job_folder(services.home, job.job_id)
    settings = await asyncio.to_thread(read_run_settings, folder, job)
    return services, OriginalRun(job, original, settings.values)


def _field_errors(error: UnderstudyError, services: Services) -> dict[str, str]:
    errors: dict[str, str] = {}
    if not isinstance(error, Problem):
        return errors
    for wrong in error.errors:
        name = wrong["field"].removeprefix("hyperparameters.")
        key = name if name in RERUN_FIELDS else SETTING_PREFIX + name
        errors[key] = redact_paths(wrong["detail"], services.home)
    return errors


def _error_text(error: UnderstudyError, services: Services) -> str:
    text = error.message
    # The advice of a problem with fields speaks of JSON.
    if not (isinstance(error, Problem) and error.errors):
        text = f"{text} {error.advice}".strip()
    return redact_paths(commands_as_typed(text), services.home)
