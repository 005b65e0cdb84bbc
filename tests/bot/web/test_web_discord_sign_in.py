"""Signing in with Discord: the code flow over the sandbox's OAuth2, and whatever may go wrong on
the way.
"""

import asyncio
import logging
import re

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from bot.demo_guild import MEMBER, MODERATOR
from bot.operations.web.discord_sign_in_pages import MAX_SIGN_IN_BYTES
from bot.platform.discord_kit.oauth2 import DiscordOAuth2
from bot.platform.web_kit import auth
from bot.platform.web_kit.auth import (
    HTTPS_SESSION_COOKIE,
    MAX_FAILED_LOGINS_PER_ADDRESS,
    MAX_MEMBER_SESSIONS,
    SESSION_COOKIE,
    SESSION_IDLE_TIMEOUT_S,
    Authenticator,
    SignedInMember,
)
from bot.platform.web_kit.login_states import (
    LOGIN_TIMEOUT_S,
    MAX_LOGINS_PER_ADDRESS,
    LoginStates,
)
from sandbox.wire_faults import RequestFault
from tests.bot.web.moderator_stage import (
    DISCORD,
    SERVERS,
    SIGN_IN,
    TOKEN,
    Browser,
    moderator_stage,
    query_of,
)

CALLBACK = f"{DISCORD}/callback"


@pytest.fixture
async def town(tmp_path):
    async with moderator_stage(tmp_path) as made:
        yield made


async def test_a_moderator_signs_in_with_pkce_and_a_state_and_is_led_on(town):
    browser = town.browser()
    page = await browser.get(SIGN_IN)
    assert "Sign in with Discord" in page.text and 'type="password"' in page.text
    assert f"form-action 'self' {browser.url}" in page.headers["Content-Security-Policy"]
    location = await browser.begin()
    asked = query_of(location)
    assert location.startswith(f"{browser.url}/oauth2/authorize?")
    assert asked["scope"] == "identify guilds" and asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
    assert asked["redirect_uri"] == f"{browser.url}{CALLBACK}"
    assert len(asked["state"]) >= 43 and asked["state"] not in browser.cookies.values()
    answer = await browser.follow(await browser.consent(location, MODERATOR))
    assert answer.status == 200 and f'content="0; url={SERVERS}"' in answer.text
    assert answer.headers["Referrer-Policy"] == "same-origin", "nobody else is told the address"
    cookies = "; ".join(answer.headers.getall("Set-Cookie"))
    assert f"{SESSION_COOKIE}=" in cookies and "SameSite=Strict" in cookies
    assert "HttpOnly" in cookies and "understudy_login" not in browser.cookies
    page = await browser.get(SERVERS)
    assert page.status == 200 and MODERATOR in page.text and "Skerrow Harbour" in page.text
    assert "Breakwater" not in page.text, "she is a mere member there"


async def test_the_token_of_discord_is_revoked_and_kept_nowhere(town, caplog):
    caplog.set_level(logging.DEBUG)
    browser = town.browser()
    back = await browser.consent(await browser.begin(), MODERATOR)
    await browser.follow(back)
    oauth2 = town.stage.sandbox.oauth2
    assert oauth2.revoked == 1 and not oauth2.tokens
    code = query_of(back)["code"]
    named = [record.getMessage() for record in caplog.records if record.name.startswith("bot")]
    assert [text for text in named if text.endswith("signed in to the web server with Discord")]
    assert not [text for text in named if code in text or query_of(back)["state"] in text]


async def test_it_is_revoked_also_where_reading_fails(town):
    browser = town.browser()
    back = await browser.consent(await browser.begin(), MODERATOR)
    town.stage.sandbox.fail_requests("GET /users/@me/guilds", RequestFault.ERROR_BEFORE, 1)
    assert (await browser.follow(back)).status == 503
    assert town.stage.sandbox.oauth2.revoked == 1 and SESSION_COOKIE not in browser.cookies


async def test_the_state_is_used_once_and_so_is_the_code(town):
    browser = town.browser()
    back = await browser.consent(await browser.begin(), MODERATOR)
    assert (await browser.follow(back)).status == 200
    browser.session.cookie_jar.clear()
    again = await browser.follow(back)
    assert again.status == 400 and "not any more" in again.text
    assert SESSION_COOKIE not in browser.cookies
    # A code of an earlier sign-in with a state of a new one
    state = query_of(await browser.begin())["state"]
    code = query_of(back)["code"]
    replayed = await browser.follow(f"{CALLBACK}?code={code}&state={state}")
    assert replayed.status == 400 and "used already" in replayed.text
    assert SESSION_COOKIE not in browser.cookies


async def test_a_state_belongs_to_the_browser_that_began(town):
    attacker, victim = town.browser(), town.browser()
    back = await attacker.consent(await attacker.begin(), MODERATOR)
    refused = await victim.follow(back)
    assert refused.status == 400 and SESSION_COOKIE not in victim.cookies
    await victim.begin()  # one with a cookie of its own
    refused = await victim.follow(back)
    assert refused.status == 400 and SESSION_COOKIE not in victim.cookies
    assert (await attacker.follow(back)).status == 200, "and nobody else has ended it"


@pytest.mark.parametrize("query", ["", "?code=x", "?state=x", "?state=x&code=y", "?error=x"])
async def test_a_way_back_without_a_sign_in_is_refused(town, query):
    answer = await town.browser().follow(f"{CALLBACK}{query}")
    assert answer.status == 400 and "not that of a sign-in here" in answer.text
    assert SERVERS not in answer.location


async def test_a_sign_in_that_takes_too_long_is_refused(town):
    browser = town.browser()
    back = await browser.consent(await browser.begin(), MODERATOR)
    town.time.now += LOGIN_TIMEOUT_S + 1
    assert (await browser.follow(back)).status == 400


async def test_who_cancels_is_told_and_a_code_without_the_verifier_is_worth_nothing(town):
    browser = town.browser()
    answer = await browser.sign_in("Cancel")
    assert answer.status == 403 and "cancelled at Discord" in answer.text
    assert "Sign in with Discord" in answer.text and SESSION_COOKIE not in browser.cookies
    # A code that was stolen on its way back, with the thief's own sign-in
    stolen = query_of(await browser.consent(await browser.begin(), MODERATOR))["code"]
    thief = town.browser()
    state = query_of(await thief.begin())["state"]
    answer = await thief.follow(f"{CALLBACK}?code={stolen}&state={state}")
    assert answer.status == 400 and SESSION_COOKIE not in thief.cookies


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (RequestFault.ERROR_BEFORE, "Discord has a fault right now."),
        (RequestFault.CUT_BEFORE, "Discord does not answer."),
        (RequestFault.LIMITED, "Try again in 1 second."),
    ],
)
@pytest.mark.parametrize("route", ["POST /oauth2/token", "GET /users/@me"])
async def test_what_discord_does_not_answer_is_named(town, route, fault, words):
    browser = town.browser()
    back = await browser.consent(await browser.begin(), MODERATOR)
    # aiohttp repeats a GET once where a connection that was used before is cut.
    times = 2 if route.startswith("GET") and fault is RequestFault.CUT_BEFORE else 1
    town.stage.sandbox.fail_requests(route, fault, times)
    answer = await browser.follow(back)
    assert answer.status == 503 and words in answer.text
    assert ("Retry-After" in answer.headers) == (fault is RequestFault.LIMITED)
    assert SESSION_COOKIE not in browser.cookies
    assert (await browser.sign_in(MODERATOR)).status == 200, "and the next one works"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (RequestFault.ERROR_BEFORE, "Discord hat gerade eine Störung. Versuch es in einer Minute"),
        (RequestFault.CUT_BEFORE, "Discord antwortet nicht."),
        (RequestFault.LIMITED, "Discord bittet diesen Bot zu warten. Versuch es in 1 Sekunde noch"),
        (None, "Discord nimmt das Client-Secret dieses Bots nicht an. Sag es denen, die"),
    ],
)
async def test_what_went_wrong_at_discord_is_told_in_the_browsers_language(town, fault, words):
    browser = town.browser()
    back = await browser.consent(await browser.begin(), MODERATOR)
    if fault:
        town.stage.sandbox.fail_requests("POST /oauth2/token", fault, 1)
    else:
        town.stage.sandbox.oauth2.client_secret = "another"
    answer = await browser.follow(back, language="de")
    assert answer.status == 503 and words in answer.text


async def test_a_wrong_client_secret_is_the_operators_to_mend(town):
    town.stage.sandbox.oauth2.client_secret = "another"
    answer = await town.browser().sign_in(MODERATOR)
    assert answer.status == 503 and "DISCORD_CLIENT_SECRET" in answer.text
    assert "a-client-secret" not in answer.text


async def test_codes_are_not_guessed_at_discord_without_end(town):
    browser = town.browser()
    for _ in range(MAX_FAILED_LOGINS_PER_ADDRESS):
        state = query_of(await browser.begin())["state"]
        assert (await browser.follow(f"{CALLBACK}?code=x&state={state}")).status == 400
    state = query_of(await browser.begin())["state"]
    answer = await browser.follow(f"{CALLBACK}?code=x&state={state}")
    assert answer.status == 429 and answer.headers["Retry-After"]
    token = await browser.submit(SIGN_IN, token=TOKEN)
    assert token.status == 303, "which does not concern the token"


async def test_codes_that_come_at_once_count_like_others(town, monkeypatch):
    asked = []
    identify = DiscordOAuth2.identify

    async def counting(self, **fields):
        asked.append(fields["code"])
        return await identify(self, **fields)

    monkeypatch.setattr(DiscordOAuth2, "identify", counting)
    browsers = [town.browser() for _ in range(MAX_FAILED_LOGINS_PER_ADDRESS + 5)]
    paths = []
    for browser in browsers:
        state = query_of(await browser.begin())["state"]
        paths.append(f"{CALLBACK}?code=x&state={state}")
    answers = await asyncio.gather(*map(Browser.follow, browsers, paths))
    assert len(asked) == MAX_FAILED_LOGINS_PER_ADDRESS
    assert [answer.status for answer in answers].count(429) == 5


async def test_who_signs_in_right_is_not_held_up_by_it(town):
    for _ in range(MAX_FAILED_LOGINS_PER_ADDRESS + 2):
        assert (await town.browser().sign_in(MODERATOR)).status == 200


async def test_a_way_back_of_somebody_else_ends_no_sign_in(town):
    browser = town.browser()
    back = await browser.consent(await browser.begin(), MODERATOR)
    assert (await browser.follow(f"{CALLBACK}?code=x&state=other")).status == 400
    assert (await browser.follow(back)).status == 200


async def test_a_page_to_go_on_with_is_kept_only_if_it_is_short(town):
    await town.browser().begin(to=f"{SERVERS}/{'a' * 600}")
    (waiting,) = town.login.states._waiting.values()
    assert waiting.login.page == SERVERS
    refused = await town.browser().submit(DISCORD, to="a" * MAX_SIGN_IN_BYTES)
    assert refused.status == 413 and len(town.login.states._waiting) == 1


async def test_where_discord_is_down_nobody_has_failed(town):
    for _ in range(MAX_FAILED_LOGINS_PER_ADDRESS + 1):
        browser = town.browser()
        back = await browser.consent(await browser.begin(), MODERATOR)
        town.stage.sandbox.fail_requests("POST /oauth2/token", RequestFault.ERROR_BEFORE, 1)
        assert (await browser.follow(back)).status == 503


def test_members_never_sign_the_operator_out(monkeypatch):
    monkeypatch.setattr(auth, "MAX_SESSIONS", 3)
    door = Authenticator("correct-horse")
    request = make_mocked_request("GET", "/dashboard")
    operator = door.begin(request)
    for user_id in range(5):
        door.begin(request, SignedInMember(user_id, "somebody", frozenset({1})))
    cookies = {"Cookie": f"{SESSION_COOKIE}={operator}"}
    assert door.has_session(make_mocked_request("GET", "/dashboard", headers=cookies))


async def test_who_moderates_no_server_of_the_bot_gets_no_session(town):
    browser = town.browser()
    answer = await browser.sign_in(MEMBER)
    assert answer.status == 403 and "You moderate none of the servers" in answer.text
    assert SESSION_COOKIE not in browser.cookies
    assert (await browser.get(SERVERS)).location.startswith(SIGN_IN)


async def test_a_session_that_somebody_planted_is_not_taken_over(town):
    browser = town.browser()
    planted = "planted-by-somebody-else"
    browser.session.cookie_jar.update_cookies({SESSION_COOKIE: planted})
    await browser.sign_in(MODERATOR)
    assert browser.cookies[SESSION_COOKIE] != planted
    attacker = town.browser()
    for cookie in (planted, browser.cookies[SESSION_COOKIE] + "x"):
        attacker.session.cookie_jar.update_cookies({SESSION_COOKIE: cookie})
        assert (await attacker.get(SERVERS)).location.startswith(SIGN_IN)
    # The session that somebody had before ends, also the operator's.
    operator = town.browser()
    await operator.submit(SIGN_IN, token=TOKEN)
    before = operator.cookies[SESSION_COOKIE]
    await operator.sign_in(MODERATOR)
    attacker.session.cookie_jar.update_cookies({SESSION_COOKIE: before})
    assert (await attacker.get("/dashboard")).location.startswith(SIGN_IN)


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example.org",
        "//evil.example.org",
        "/\\evil.example.org",
        "/dashboard/servers\\@evil.example.org",
        '/dashboard/servers/"><script>',
        "/dashboard/servers/7;url=//evil.example.org",
        "/dashboard/data",
        "/dashboard/servers/1\r\nA: b",
    ],
)
async def test_it_leads_to_pages_of_members_alone(town, to):
    answer = await town.browser().sign_in(MODERATOR, to=to)
    assert f'content="0; url={SERVERS}"' in answer.text and "evil" not in answer.text


async def test_it_leads_to_the_page_that_was_asked_for(town):
    wanted = f"{SERVERS}/{town.first}"
    browser = town.browser()
    asked = await browser.get(wanted)
    assert asked.status == 303
    page = await browser.get(asked.location)
    assert f'value="{wanted}"' in page.text
    assert f"url={wanted}" in (await browser.sign_in(MODERATOR, to=wanted)).text


async def test_a_foreign_page_begins_no_sign_in(town):
    browser = town.browser()
    for headers in (
        {"Origin": "https://evil.example.org", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "null"},
        {},
    ):
        answer = await browser.ask("POST", DISCORD, data={"to": SERVERS}, headers=headers)
        assert answer.status == 403 and not answer.location, headers
    assert (await browser.get(DISCORD)).location == SIGN_IN, "a form's address leads back"


async def test_signing_out_and_time_end_a_members_session(town):
    browser = await town.signed_in(MODERATOR)
    cookie = browser.cookies[SESSION_COOKIE]
    out = await browser.submit("/dashboard/sign-out")
    assert out.status == 303 and out.location == SIGN_IN
    browser.session.cookie_jar.update_cookies({SESSION_COOKIE: cookie})
    assert (await browser.get(SERVERS)).location.startswith(SIGN_IN)
    browser = await town.signed_in(MODERATOR)
    town.time.now += SESSION_IDLE_TIMEOUT_S + 1
    assert (await browser.get(SERVERS)).location.startswith(SIGN_IN)


async def test_without_a_secret_nobody_signs_in_with_discord(tmp_path):
    async with moderator_stage(tmp_path, secret="") as town:
        browser = town.browser()
        page = await browser.get(SIGN_IN)
        assert "Sign in with Discord" not in page.text
        assert "form-action 'self';" in page.headers["Content-Security-Policy"]
        assert (await browser.submit(DISCORD)).status == 404
        assert (await browser.follow(f"{CALLBACK}?code=x&state=y")).status == 404


async def test_without_a_token_it_is_not_offered_as_all_are_the_operator(stage):
    # `stage` has a web server without a token, as `make run` has.
    async with aiohttp.ClientSession() as session:
        browser = Browser(session, stage.sandbox.url)
        assert (await browser.get(SIGN_IN)).location == "/dashboard"
        assert (await browser.submit(DISCORD)).status == 404
        assert (await browser.get(SERVERS)).status == 404


def test_states_are_single_use_bound_and_bounded():
    states = LoginStates(now=lambda: 0.0)

    def take(state, binding):
        return states.take(state, binding=binding, https_binding="")

    login = states.begin("10.0.0.1", "http://x/callback", SERVERS)
    assert take(login.state, "") is None and take("", login.binding) is None
    assert take(login.state, login.binding) == login
    assert take(login.state, login.binding) is None
    begun = [
        states.begin("10.0.0.1", "http://x/callback", SERVERS)
        for _ in range(MAX_LOGINS_PER_ADDRESS + 1)
    ]
    other = states.begin("10.0.0.2", "http://x/callback", SERVERS)
    assert take(begun[0].state, begun[0].binding) is None, "its oldest has ended"
    assert take(begun[1].state, begun[1].binding)
    assert take(other.state, other.binding), "and nobody else's"


async def test_over_https_the_cookies_are_those_that_nobody_else_can_plant(town):
    browser = town.browser()
    own = {"Origin": browser.url.replace("http:", "https:"), "Sec-Fetch-Site": "same-origin"}
    begun = await browser.ask("POST", DISCORD, data={"to": SERVERS}, headers=own)
    cookie = begun.headers["Set-Cookie"]
    assert cookie.startswith("__Host-understudy_login=") and "Secure" in cookie
    binding = cookie.partition("=")[2].partition(";")[0]
    back = await browser.consent(begun.location, MODERATOR)
    assert back.startswith("https:")
    back = back.replace("https:", "http:", 1)  # as a proxy passes it on
    refused = await browser.get(back, headers={"Cookie": f"understudy_login={binding}"})
    assert refused.status == 400, "a page of a sibling host can have set it"
    answer = await browser.get(back, headers={"Cookie": f"__Host-understudy_login={binding}"})
    assert answer.status == 200
    cookies = "; ".join(answer.headers.getall("Set-Cookie"))
    session_id = re.search(rf"{HTTPS_SESSION_COOKIE}=([^;]+)", cookies)[1]
    for name, status in ((SESSION_COOKIE, 303), (HTTPS_SESSION_COOKIE, 200)):
        page = await browser.get(SERVERS, headers={"Cookie": f"{name}={session_id}"})
        assert page.status == status, name


def test_a_members_sessions_end_nobody_elses():
    door = Authenticator(TOKEN)
    request = make_mocked_request("POST", SIGN_IN)
    operator = door.begin(request)
    member = SignedInMember(7, "Mina", frozenset({1}))
    for _ in range(MAX_MEMBER_SESSIONS + 5):
        door.begin(request, member)
    assert len(door._sessions) == MAX_MEMBER_SESSIONS + 1
    signed_in = make_mocked_request(
        "GET", SIGN_IN, headers={"Cookie": f"{SESSION_COOKIE}={operator}"}
    )
    assert door.has_session(signed_in) and door.member_of(signed_in) is None
