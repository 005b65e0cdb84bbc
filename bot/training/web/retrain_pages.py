"""`/dashboard/training/all`: what training all personas of another base model takes, and its start."""

from aiohttp import web

from bot.platform.errors import redact_paths
from bot.platform.localisation import gettext_lazy, join_texts
from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.templating import redirect_to, render_page
from bot.training.web.run_view import TRAINING_PATH, job_guild_name
from personas.home.shared_personas import OPERATOR_GUILD_ID

routes = Routes()
RETRAIN_PATH = f"{TRAINING_PATH}/all"


@routes.add(f"GET {RETRAIN_PATH}")
async def get_retrain_page(request: web.Request) -> web.Response:
    """Page of the plan; takes some seconds for each persona."""
    services = get_services(request)
    plan = await services.retrain_all.plan(OPERATOR_GUILD_ID)
    return render_page(
        request,
        "training/all.html",
        title=gettext_lazy("Train all personas again"),
        plan=plan,
        server=lambda guild_id: job_guild_name(services, guild_id),
        shown=lambda text: redact_paths(text, services.home),
    )


@routes.add(f"POST {RETRAIN_PATH}")
async def post_retrain(request: web.Request) -> web.Response:
    """Queue the trainings."""
    services = get_services(request)
    plan = services.retrain_all.start(OPERATOR_GUILD_ID)
    queued = sum(1 for item in plan.items if item.job)
    message = gettext_lazy(
        "{queued} of {count} trainings are queued.", queued=queued, count=len(plan.items)
    )
    refused = [f"{item.persona_name}: {item.error}" for item in plan.items if item.error]
    if refused:
        reasons = redact_paths(" ".join(refused), services.home)
        message = join_texts(message, gettext_lazy("Refused: {reasons}", reasons=reasons))
    return redirect_to(request, TRAINING_PATH, message)
