"""All routes of the API and of the dashboard."""

from itertools import chain

from bot.web import templating
from bot.web.api import openapi, playground_routes, system_routes
from bot.web.api.data import dataset_routes, upload_routes
from bot.web.api.openai import openai_routes
from bot.web.api.personas import card_routes, lore_routes, version_routes
from bot.web.api.training import job_routes, run_routes
from bot.web.app_context import Routes
from bot.web.pages import overview_page, playground_page, sign_in_page, system_page
from bot.web.pages.data import dataset_pages, plan_pages, source_pages
from bot.web.pages.personas import card_pages, lore_pages, persona_pages, version_pages
from bot.web.pages.scorecards import blind_test_pages, scorecard_pages
from bot.web.pages.training import rerun_page, training_pages

API_MODULES = (
    system_routes, job_routes, run_routes, openapi, version_routes, card_routes, lore_routes, upload_routes,
    dataset_routes, playground_routes, openai_routes,
)  # fmt: skip
PAGE_MODULES = (
    templating, overview_page, sign_in_page, persona_pages, card_pages, lore_pages, version_pages, source_pages,
    dataset_pages, plan_pages, training_pages, rerun_page, playground_page, blind_test_pages, scorecard_pages,
    system_page,
)  # fmt: skip
ROUTES = Routes(chain.from_iterable(module.routes for module in (*API_MODULES, *PAGE_MODULES)))
