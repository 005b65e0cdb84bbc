"""`/dashboard/system/safety`: how messages that speak of self-harm are answered, the texts, and how
many there were.
"""

from aiohttp import web
from markupsafe import Markup

from bot.platform.web_kit.app_context import Routes, get_services
from bot.platform.web_kit.markdown import markdown_renderer
from bot.platform.web_kit.templating import DASHBOARD, render_page
from bot.safety.rules import SafetyRules
from bot.safety.texts import shipped_texts

routes = Routes()
SAFETY_PATH = f"{DASHBOARD}/system/safety"
TEXT_RENDERER = markdown_renderer().disable("image")
TEXT_RENDERER.options["breaks"] = True  # as on Discord


@routes.add(f"GET {SAFETY_PATH}")
async def get_safety_page(request: web.Request) -> web.Response:
    """Page of the protocol."""
    services = get_services(request)
    shipped = shipped_texts()
    texts = []
    for rules in SafetyRules.shipped().languages:
        text = services.safety.texts[rules.language]
        shown = Markup(TEXT_RENDERER.render(text))  # nosec B704  # it escapes HTML
        texts.append((rules, shown, text == shipped[rules.language]))
    english = SafetyRules.shipped().emergency_text("en")
    return render_page(
        request,
        "safety/protocol.html",
        title="Safety",
        texts=texts,
        emergency_text=Markup(TEXT_RENDERER.render(english)),  # nosec B704  # it escapes HTML
        years=services.store.safety_answers.by_year(),
        counts=services.store.safety_answers.by_language(),
        emergency_years=services.store.emergency_answers.by_year(),
        emergencies=services.store.emergency_answers.by_language(),
        withheld_years=services.store.withheld_replies.by_year(),
        withheld=services.store.withheld_replies.by_language(),
    )
