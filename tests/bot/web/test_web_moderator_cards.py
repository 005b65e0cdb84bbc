"""Moderators on the web: the score card of a version, and the card and lore of a persona."""

import html
import re

import pytest

from bot.demo_guild import MEMBER, MODERATOR
from bot.store import CARD_CONTRIBUTION
from personas.home.adapters import adapter_ref
from personas.lore.passages import WORLD
from tests.bot.conftest import OFFICE
from tests.bot.web.moderator_stage import SERVERS
from tests.trainer.sample_scorecards import good_card

NAME = "Marlow Finch"


def put_card(town, persona_id, version):
    """A whole score card of a version, with a persona of another server in it."""
    folder = adapter_ref(town.stage.client.services.home, persona_id, version).folder
    folder.mkdir(parents=True)
    card = good_card(persona=persona_id).model_copy(update={"version": version})
    (folder / "scorecard.json").write_text(card.model_dump_json(), encoding="utf-8")


def fields_of(page):
    """What the form of a card would send."""
    fields = dict(re.findall(r'<input id="\w+" value="([^"]*)" name="(\w+)"', page))
    sent = {name: html.unescape(value) for value, name in fields.items()}
    texts = re.findall(r'<textarea[^>]*?name="(\w+)"[^>]*>\n(.*?)</textarea>', page, re.DOTALL)
    sent |= {name: html.unescape(text) for name, text in texts if text}
    return sent | {"stamp": re.search(r'name="stamp" value="(\w+)"', page)[1]}


def operators_links(page):
    """Addresses in a page that are not those of members; the sandbox's page has none."""
    return re.findall(
        r'(?:href|action|formaction|src)="(/(?!dashboard/(?:servers|static|sign-out)).+?)"', page
    )


async def test_a_score_card_is_shown_whole(town):
    persona_id = town.bring_in(town.first, NAME)
    version = town.install(persona_id, town.first)
    put_card(town, persona_id, version)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}"
    assert f'href="{page}/versions/{version}"' in (await browser.get(page)).text
    shown = (await browser.get(f"{page}/versions/{version}")).text
    for words in (
        "Replies side by side",
        "said by new",
        "A quarter tone flat.",
        "Held-out replies",
    ):
        assert words in shown, words
    assert "adapter of ada" not in shown, "personas of other servers are none of theirs"
    assert not operators_links(shown)
    assert (await browser.get(f"{page}/versions/v9")).status == 404


async def test_replies_of_the_operators_versions_and_of_age_restricted_personas_are_not_shown(town):
    own, shared = town.bring_in(town.first, NAME), "oda"
    versions = {own: town.install(own, town.first), shared: town.install(shared, 0)}
    for persona_id, version in versions.items():
        put_card(town, persona_id, version)
    age = town.stage.client.services.reply_service.rules.age
    age.set(
        town.stage.client.services.personas.get(own, town.first), town.first, is_restricted=True
    )
    browser = await town.signed_in(MODERATOR)
    for persona_id, why in ((own, "age-restricted"), (shared, "the operator trained it")):
        path = f"{SERVERS}/{town.first}/personas/{persona_id}/versions/{versions[persona_id]}"
        shown = (await browser.get(path)).text
        assert why in shown and "Held-out replies" in shown
        assert "said by new" not in shown and "A quarter tone flat." not in shown


async def test_a_card_is_edited_and_an_earlier_one_brought_back(town):
    persona_id = town.bring_in(town.first, NAME)
    store, user_id = town.stage.store, town.user_id(MODERATOR)
    store.audit_channels.set(town.first, town.channel_id(OFFICE, town.first))
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}/card"
    shown = (await browser.get(page)).text
    assert not operators_links(shown) and "keeps the lamp" in shown
    form = fields_of(shown) | {"description": "Marlow winds the clock."}
    assert (await browser.submit(page, **form)).location == page
    personas = town.stage.client.services.personas
    assert personas.get(persona_id, town.first).description == "Marlow winds the clock."
    await town.stage.sees(f"<@{user_id}> edited the card of **{NAME}**")
    assert store.people.contributor(town.first, persona_id, CARD_CONTRIBUTION) == user_id
    late = await browser.submit(page, **form | {"description": "Another."})
    assert late.status == 409 and "Someone else changed this card" in late.text
    wrong = await browser.submit(page, **form | {"name": ""})
    assert wrong.status == 422 and "There is a problem" in wrong.text
    earlier = re.search(rf'href="({page}/earlier/[^"]+)"', (await browser.get(page)).text)[1]
    assert "keeps the lamp" in (await browser.get(earlier)).text
    assert (await browser.submit(earlier)).location == page
    assert "keeps the lamp" in personas.get(persona_id, town.first).description


async def test_lore_is_written_removed_and_brought_back(town):
    persona_id = town.bring_in(town.first, NAME)
    store, user_id = town.stage.store, town.user_id(MODERATOR)
    browser = await town.signed_in(MODERATOR)
    page = f"{SERVERS}/{town.first}/personas/{persona_id}/card/lore"
    assert not operators_links((await browser.get(page)).text)
    added = await browser.submit(page, name="The bell", text="The bell rings at noon.")
    assert (added.status, added.location) == (303, page), added.text
    file = f"{page}/{town.first}/the-bell.md"
    assert f'href="{file}"' in (await browser.get(page)).text
    assert store.people.contributor(town.first, persona_id, "the-bell.md") == user_id
    asked = (await browser.submit(page, ask="When does the bell ring?")).text
    assert "The bell rings at noon." in asked
    saved = await browser.submit(file, text="# The bell\n\nIt rings at midnight.")
    assert (saved.status, saved.location) == (303, page), saved.text
    number = re.search(r'name="number" value="([^"]+)"', (await browser.get(file)).text)[1]
    assert (await browser.submit(f"{file}/remove")).status == 303
    assert f'href="{file}"' in (await browser.get(page)).text, "it can be restored"
    assert (await browser.submit(f"{file}/bring-back", number=number)).status == 303
    assert "rings at noon" in (await browser.get(file)).text
    sets = town.stage.client.services.lore_sets
    for taken, chosen in (("yes", True), ("no", False)):
        assert (await browser.submit(f"{page}-sets/{WORLD}", taken=taken)).status == 303
        assert (WORLD in sets.taken(persona_id, town.first)) == chosen
    for other in (f"{page}/0/the-bell.md", f"{page}/{town.second}/the-bell.md"):
        assert (await browser.get(other)).status == 404
        assert (await browser.submit(other, text="# Mine\n\nNo.")).status == 404


@pytest.mark.parametrize("name", [MODERATOR, MEMBER])
async def test_cards_and_lore_are_for_moderators_and_of_their_own_personas(town, name):
    """Also not for who may train and promote: the commands on cards take no such role."""
    own = town.bring_in(town.first, NAME)
    for action in ("train", "promote", "teach"):
        town.stage.store.action_roles.add(town.first, action, town.role_id("Regular", town.first))
    browser = await town.signed_in(name)
    home = f"{SERVERS}/{town.first}/personas"
    persona_id = "oda" if name == MODERATOR else own
    page = f"{home}/{persona_id}/card"
    assert page not in (await browser.get(f"{home}/{persona_id}")).text
    for path in (page, f"{page}/lore", f"{page}/lore/{town.first}/x.md", f"{page}/earlier/1"):
        assert (await browser.get(path)).status == 403, path
        assert (await browser.submit(path, text="# No\n\nNo.", name="No")).status == 403, path
    for path in ("remove", "bring-back"):
        assert (await browser.submit(f"{page}/lore/{town.first}/x.md/{path}")).status == 403
