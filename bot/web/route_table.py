"""All routes of the API and of the dashboard, in the order in which they are matched."""

from __future__ import annotations

from aiohttp import web

from bot.web.api.data.data_service import set_up_data_state
from bot.web.api.data.dataset_routes import ROUTES as DATASETS
from bot.web.api.data.upload_routes import ROUTES as UPLOADS
from bot.web.api.openai.openai_routes import MODEL_ROUTES as MODELS
from bot.web.api.openai.openai_routes import ROUTES as CHAT
from bot.web.api.openapi import PROBLEM_ROUTES as PROBLEMS
from bot.web.api.openapi import ROUTES as OPENAPI
from bot.web.api.personas.card_routes import PREVIEW_ROUTES as PREVIEW
from bot.web.api.personas.card_routes import ROUTES as CARDS
from bot.web.api.personas.lore_routes import ROUTES as LORE
from bot.web.api.personas.version_routes import ROUTES as VERSIONS
from bot.web.api.playground_routes import ROUTES as PLAYGROUND
from bot.web.api.playground_service import set_up_playground
from bot.web.api.system_routes import HEALTH_ROUTES as HEALTH
from bot.web.api.system_routes import METRICS_ROUTES as METRICS
from bot.web.api.system_routes import SYSTEM_ROUTES as SYSTEM
from bot.web.api.training.job_routes import PLAN_ROUTES as PLAN
from bot.web.api.training.job_routes import ROUTES as JOBS
from bot.web.api.training.run_routes import ROUTES as RUNS
from bot.web.app_context import Route
from bot.web.pages.data.dataset_pages import BUILD_ROUTES as BUILD_PAGES
from bot.web.pages.data.dataset_pages import ROUTES as DATASET_PAGES
from bot.web.pages.data.plan_pages import ROUTES as PLAN_PAGES
from bot.web.pages.data.source_pages import ROUTES as SOURCE_PAGES
from bot.web.pages.overview_page import ROUTES as OVERVIEW
from bot.web.pages.personas.card_pages import ROUTES as CARD_PAGES
from bot.web.pages.personas.lore_pages import ROUTES as LORE_PAGES
from bot.web.pages.personas.persona_pages import ROUTES as PERSONA_PAGES
from bot.web.pages.personas.version_pages import ROUTES as VERSION_PAGES
from bot.web.pages.playground_page import ROUTES as PLAYGROUND_PAGES
from bot.web.pages.scorecards.blind_test_pages import ROUTES as BLIND_TEST_PAGES
from bot.web.pages.scorecards.scorecard_pages import ROUTES as SCORECARD_PAGES
from bot.web.pages.sign_in_page import ROUTES as SIGN_IN
from bot.web.pages.system_page import ROUTES as SYSTEM_PAGES
from bot.web.pages.training.rerun_page import ROUTES as RERUN_PAGES
from bot.web.pages.training.training_pages import ACTION_ROUTES as ACTIONS
from bot.web.pages.training.training_pages import COMPARISON_ROUTES as COMPARISON_PAGES
from bot.web.pages.training.training_pages import ROUTES as TRAINING_PAGES
from bot.web.templating import ROUTES as STATIC

ROUTES: tuple[Route, ...] = (
    *HEALTH,
    *JOBS,
    *PROBLEMS,
    *STATIC,
    *OVERVIEW,
    *SIGN_IN,
    *OPENAPI,
    *PERSONA_PAGES,
    *CARD_PAGES,
    *LORE_PAGES,
    *VERSION_PAGES,
    *VERSIONS,
    *CARDS,
    *PREVIEW,
    *LORE,
    *SOURCE_PAGES,
    *BUILD_PAGES,
    *PLAN_PAGES,
    *PLAN,
    *DATASET_PAGES,
    *UPLOADS,
    *DATASETS,
    *COMPARISON_PAGES,
    *TRAINING_PAGES,
    *ACTIONS,
    *RERUN_PAGES,
    *RUNS,
    *PLAYGROUND_PAGES,
    *PLAYGROUND,
    *BLIND_TEST_PAGES,
    *SCORECARD_PAGES,
    *SYSTEM_PAGES,
    *SYSTEM,
    *METRICS,
    *CHAT,
    *MODELS,
)
"""In the order in which they are matched."""


def set_up_state(app: web.Application) -> None:
    """Set up the application's state."""
    set_up_playground(app)
    set_up_data_state(app)
