"""The card of a version's prompts, chosen on the page."""

import pytest

from personas.home.adapters import adapter_ref
from tests.bot.version_rows import install_learned
from tests.bot.web.conftest import dashboard_in
from tests.trainer.sample_scorecards import good_card

PAGE = "/dashboard/personas/ballast/versions"
V1 = "/personas/ballast/versions/v1"


async def test_it_is_chosen_kept_over_restarts_and_taken_back(tmp_path):
    async with dashboard_in(tmp_path) as dashboard:
        install_learned(dashboard.store, tmp_path, short_card=True)
        _, one, _ = await dashboard.ask("GET", V1)
        assert (one["card"], one["can_have_short_card"]) == ("full", True)
        assert one["card_tokens"]["short"] < one["card_tokens"]["full"] / 4
        assert (await dashboard.submit(f"{PAGE}/v1/card", card="short"))[0] == 303
    async with dashboard_in(tmp_path) as dashboard:
        _, listed, _ = await dashboard.ask("GET", "/personas/ballast/versions")
        assert listed["versions"][0]["card"] == "short"
        services = dashboard.services
        assert services.served_versions.adapter("ballast", "v1").card == "short"
        for _ in range(2):
            assert (await dashboard.submit(f"{PAGE}/v1/card", card="full"))[0] == 303
            assert dashboard.store.versions.card_of("ballast", "v1") == "full"


async def test_a_version_that_was_not_trained_so_is_refused(dashboard):
    install_learned(dashboard.store, dashboard.home, short_card=False)
    page = (await dashboard.page(PAGE))[1]
    assert "short card" not in page
    status, refused, _ = await dashboard.submit(f"{PAGE}/v1/card", card="short")
    assert status == 409 and "was not trained under the short card" in refused
    assert "short_card_share" in refused
    assert (await dashboard.submit(f"{PAGE}/v1/card", card="tiny"))[0] == 422
    assert (await dashboard.submit(f"{PAGE}/v10/card", card="full"))[0] == 404
    assert dashboard.store.versions.card_of("ballast", "v1") == "full"


async def test_a_withdrawn_version_keeps_its_card(dashboard):
    install_learned(dashboard.store, dashboard.home, short_card=True)
    dashboard.store.versions.withdraw("ballast", "v1", 2.0, "removed")
    assert (await dashboard.submit(f"{PAGE}/v1/card", card="short"))[0] == 409
    assert "Use the short card" not in (await dashboard.page(PAGE))[1]


async def test_the_page_offers_it_with_the_tokens_of_both(dashboard):
    install_learned(dashboard.store, dashboard.home, short_card=True)
    _, one, _ = await dashboard.ask("GET", V1)
    page = (await dashboard.page(PAGE))[1]
    tokens = one["card_tokens"]
    assert f"line ({tokens['short']} tokens) instead of the card ({tokens['full']})" in page
    assert ">full card</span>" in page and "Use the short card" in page
    status, _, headers = await dashboard.submit(f"{PAGE}/v1/card", card="short")
    assert status == 303 and headers["Location"].startswith(PAGE)
    page = (await dashboard.page(PAGE))[1]
    assert ">short card</span>" in page and "Use the full card" in page
    assert (await dashboard.submit(f"{PAGE}/v1/card", card="none"))[0] == 422


@pytest.mark.parametrize(("measured", "served"), [("full", "short"), ("short", "full")])
async def test_a_score_card_says_under_which_card_it_was_measured(dashboard, measured, served):
    install_learned(dashboard.store, dashboard.home, short_card=True)
    card = good_card(prompt_card=measured)
    folder = adapter_ref(dashboard.home, "ballast", "v1").folder
    (folder / "scorecard.json").write_text(card.model_dump_json(), encoding="utf-8")
    dashboard.services.versions.choose_card("ballast", "v1", measured)
    page = "/dashboard/cards/ballast/v1"
    text = (await dashboard.page(page))[1]
    assert "was measured under" not in text
    precision = f"in {card.precision}"
    assert (f"{precision}, under the short card" in text) is (measured == "short")
    assert precision in text and f"{precision}, as it is served" not in text, "this machine decides"
    dashboard.services.versions.choose_card("ballast", "v1", served)
    text = (await dashboard.page(page))[1]
    assert f"served with its {served} card, and was measured under the {measured} one" in text
    assert ("--short-card" in text) is (served == "short")
