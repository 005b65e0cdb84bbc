"""`/dashboard/data/plan`: plans a training from a form, shows the plan, and queues it."""

import asyncio
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bot.data.web.source_pages import DATA_PATH
from bot.personas.web.lookup import guild_name
from bot.platform.errors import redact_paths
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.charts import bar_chart
from bot.platform.web_kit.problems import Problem, redacted_problem
from bot.platform.web_kit.request_body import parse_form_number, read_form
from bot.platform.web_kit.templating import DASHBOARD, redirect_to, render_page, shell_command
from bot.services import Services
from bot.training.request_checks import available_memory_bytes, requested_recipe_plan
from bot.training.teacher_text import teacher_texts
from bot.training.web.plan_cache import PLAN_CACHE, StoredPlan
from bot.training.web.requests import plan_training, start_training
from bot.training.web.setting_view import SHARE_FIELDS
from personas.errors import RequestError, UnderstudyError
from personas.home.shared_personas import OPERATOR_GUILD_ID
from personas.schemas.hyperparameters import parse_settings_line
from personas.schemas.training import CARD_RECIPE, DEFAULT_RECIPE, Teacher, TrainingRequest

PLAN_FIELDS = (
    "task_type persona dataset recipe settings general start_from lore_pairs from_card base_model "
    "review job_name"
).split()
CARD_CHOICE = "from:card"
"""What a form names in place of a data set, for replies that are written from the card."""
PATH_PREFIXES = ("uploads/", "datasets/")
"""Prefixes of data sets that a request names by path."""
MAX_LISTED_PERSONAS = 500
TASK_CHOICES = (
    ("persona", "A persona's voice"),
    ("dialogue", "Dialogue in general"),
    ("preference", "A persona, by votes"),
)

routes = Routes()


def form_to_request(given: Mapping[str, str]) -> dict[str, Any]:
    """Convert a form to a request body without its empty fields. Raises `Problem` for invalid
    settings, and for a missing persona.
    """
    text = _form_texts(given)
    body: dict[str, Any] = {"job_name": text["job_name"] or default_job_name(text)}
    task = text["task_type"] or "persona"
    if task != "persona":
        body["task_type"] = task
    if task != "dialogue" and text["persona"]:
        body["persona"] = text["persona"]
    if text["dataset"].startswith(PATH_PREFIXES):
        body["dataset_path"] = text["dataset"]
    elif text["dataset"]:
        body["dataset"] = text["dataset"]
    for name in ("recipe", "general", "start_from", "base_model"):
        if text[name]:
            body[name] = text[name]
    if text["review"]:
        body["review"] = True
    body |= {name: parse_form_number(text[name]) for name in SHARE_FIELDS if text[name]}
    if settings := _parse_settings(text["settings"]):
        body["hyperparameters"] = settings
    if task != "dialogue" and not text["persona"]:
        errors = [
            {
                "field": "persona",
                "pointer": "#/persona",
                "detail": "Choose a persona.",
            }
        ]
        raise Problem(
            "invalid-request",
            "No persona is chosen.",
            "Choose one.",
            errors=errors,
        )
    return body


def _form_texts(given: Mapping[str, str]) -> dict[str, str]:
    text = {name: given.get(name, "").strip() for name in PLAN_FIELDS}
    if text["dataset"] == CARD_CHOICE:
        text |= {"dataset": "", "from_card": text["from_card"] or "1"}
    return text


def _parse_settings(text: str) -> dict[str, Any]:
    """Parse the field of settings. Raises `Problem`."""
    try:
        parsed = parse_settings_line(text.replace("\n", ","))
    except RequestError as error:
        errors = [{"field": "settings", "pointer": "#/hyperparameters", "detail": str(error)}]
        raise Problem("invalid-request", error.message, error.advice, errors=errors) from None
    settings: dict[str, Any] = parsed.model_dump(exclude_none=True, mode="json")
    return settings


def default_job_name(given: Mapping[str, str]) -> str:
    """Name a job after its persona or data set."""
    name = given.get("persona", "")
    if given.get("task_type") == "dialogue":
        name = given.get("dataset", "").rpartition("/")[2]
    plain = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return (plain.strip("-_") or "run")[:64]


def curl_command(body: Mapping[str, Any], url: str) -> str:
    sent = shlex.quote(json.dumps(body, ensure_ascii=False, indent=2))
    return (
        f"curl -X POST {url}/finetune/start-training -H 'Content-Type: application/json' -d {sent}"
    )


def trainer_command(request: TrainingRequest) -> str:
    """The trainer's command for the same run; empty for preferences, which only the bot can
    gather.
    """
    if request.task_type == "preference":
        return ""
    words = ["train"]
    words += ["--persona", request.persona] if request.persona else ["--dialogue"]
    options = {
        "--dataset": request.dataset or request.dataset_path,
        "--right": request.right,
        "--general": request.general,
        "--start-from": request.start_from,
    }
    if request.lore_pairs:
        options["--lore-pairs"] = f"{request.lore_pairs:g}"
    if request.from_card:
        options |= _card_options(request.from_card, request.teacher)
    options["--base-model"] = request.base_model
    # The rest are the trainer's own defaults.
    if request.recipe != (CARD_RECIPE if request.from_card else DEFAULT_RECIPE):
        options["--recipe"] = request.recipe
    for option, option_value in options.items():
        if option_value:
            words += [option, option_value]
    if request.review:
        words.append("--only-write")
    for name, value in request.hyperparameters.model_dump(exclude_none=True, mode="json").items():
        words += ["--set", f"{name}={_setting_text(value)}"]
    return f"python -m trainer {shlex.join(words)}"


def _card_options(share: float, teacher: Teacher | None) -> dict[str, str | None]:
    options: dict[str, str | None] = {"--from-card": f"{share:g}"}
    if teacher is None:
        return options
    return options | {
        "--teacher": teacher.url or teacher.model,
        "--teacher-model": teacher.model if teacher.url else None,
        "--teacher-licence": teacher.licence,
    }


def _setting_text(value: Any) -> str:
    """A setting as `--set` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@routes.add(f"GET {DATA_PATH}/plan")
async def get_plan_form(request: web.Request) -> web.Response:
    """Page with the form, filled from the query, by default with the first persona."""
    fields = {name: request.query.get(name, "") for name in PLAN_FIELDS}
    if not any(fields.values()):
        fields = _default_fields(request)
    return await _render_plan_form(request, fields)


def _default_fields(request: web.Request) -> dict[str, str]:
    return {"persona": next(iter(get_services(request).personas.of(OPERATOR_GUILD_ID)), "")}


@routes.add(f"POST {DATA_PATH}/plan")
async def post_plan_form(request: web.Request) -> web.Response:
    """Plan the form's run and show the plan at its own address; with `start`, queue the run."""
    services = get_services(request)
    given = dict((await read_form(request)).items())
    erasure_count = services.store.erasure_requests.count()
    try:
        body = form_to_request(given)
        if given.get("start"):
            job = (await start_training(request, body)).job
            return redirect_to(
                request,
                f"{DASHBOARD}/training/{job.job_id}",
                f"{job.name} is queued.",
            )
        planned = await plan_training(request, body, proposes=False)
    except UnderstudyError as error:
        return await _render_plan_form(request, given, problem=_as_problem(error, services))
    stored = StoredPlan(
        given, body, wanted=planned.request, plan=planned.plan, erasure_count=erasure_count
    )
    id = request.app[PLAN_CACHE].add(stored)
    return redirect_to(request, f"{DATA_PATH}/plans/{id}")


@routes.add(f"GET {DATA_PATH}/plans/{{id}}")
async def get_plan_page(request: web.Request) -> web.Response:
    """Page of an earlier plan, with its form."""
    erasure_count = get_services(request).store.erasure_requests.count()
    try:
        stored = request.app[PLAN_CACHE].get(request.match_info["id"], erasure_count)
    except Problem as gone:
        return await _render_plan_form(request, _default_fields(request), problem=gone)
    return await _render_plan_form(request, stored.given, stored)


def _as_problem(error: UnderstudyError, services: Services) -> Problem:
    if isinstance(error, Problem):
        return error
    return redacted_problem("cannot-train", error, services.home)


async def _render_plan_form(
    request: web.Request,
    given: Mapping[str, str],
    stored: StoredPlan | None = None,
    problem: Problem | None = None,
) -> web.Response:
    services = get_services(request)
    sources = await services.data.sources()
    sources = [source for source in sources if not source.refused and not source.is_set]
    sets, _ = await services.data.datasets()
    context = None
    conflict = None
    if stored:
        context = await asyncio.to_thread(_plan_context, request, stored, services)
        conflict = services.queue.conflict(stored.wanted)
    choices = []
    for built in sets:
        (value,) = built.request_field.values()
        choices.append((value, built))
    fields = {name: given.get(name, "") for name in PLAN_FIELDS}
    if fields["from_card"] == "1" and not fields["dataset"]:
        fields["dataset"] = CARD_CHOICE
    fields["recipe"] = fields["recipe"] or services.trainings.default_recipe(
        fields["persona"],
        from_card=bool(fields["from_card"]) or fields["dataset"] == CARD_CHOICE,
    )
    return render_page(
        request,
        "data/plan.html",
        title="Plan a training",
        problem=problem,
        ids={"dataset_path": "dataset", "hyperparameters": "settings"},
        given=fields,
        tasks=TASK_CHOICES,
        personas=_list_personas(services, fields["persona"]),
        recipes=services.catalogue.recipe_labels(),
        sources=sources,
        sets=choices,
        adapters=services.catalogue.dialogue_adapters(),
        dialogues=services.catalogue.dialogues(),
        served=services.base_model,
        card_choice=CARD_CHOICE,
        found=context,
        conflict=conflict,
    )


def _list_personas(services: Services, chosen: str) -> list[tuple[str, str]]:
    """List ids and labels of the personas, servers' own ones last; `chosen` is always listed."""
    listed = services.personas.everybody()[:MAX_LISTED_PERSONAS]
    owned = services.personas.find_owner(chosen)
    if owned and owned not in listed:
        listed.append(owned)
    labels = []
    for guild_id, persona in listed:
        place = f" ({guild_name(services, guild_id)})" if guild_id != OPERATOR_GUILD_ID else ""
        labels.append((persona.id, f"{persona.name}{place}"))
    return labels


def _learner_name(services: Services, wanted: TrainingRequest) -> str:
    owned = services.personas.find_owner(wanted.persona or "")
    return owned[1].name if owned else "The dialogue adapter"


def _plan_context(request: web.Request, stored: StoredPlan, services: Services) -> dict[str, Any]:
    """Template variables of a plan."""
    plan = stored.plan
    wanted = stored.wanted
    sources = [(name, float(samples)) for name, samples in plan.sources.items()]
    own = requested_recipe_plan(plan, wanted.recipe)
    free = available_memory_bytes()
    command = trainer_command(wanted)
    notes = [redact_paths(note, services.home) for note in services.training_notes(wanted)]
    return {
        "plan": plan,
        "learner": _learner_name(services, wanted),
        "made_at": stored.made_at,
        "own": own,
        "others": [recipe for recipe in plan.recipes if recipe.recipe != wanted.recipe],
        "free": free,
        "fits": own.memory_bytes <= free,
        "lighter": [way for way in plan.lighter if way.memory_bytes <= free],
        "notes": [*teacher_texts(wanted), *notes],
        "lengths": bar_chart(
            "Tokens per sample, prompt and reply",
            plan.tokens_per_sample.rows,
            "samples",
        ),
        "composition": bar_chart("Samples by source", sources, "samples"),
        "command": shell_command(command, services.home) if command else "",
        "curl": curl_command(stored.body, f"http://{request.host}"),
    }
