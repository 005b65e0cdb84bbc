"""The token: where it is demanded, how one signs in and out, and that it cannot be guessed."""

import re
from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request

from bot.platform.web_kit.auth import (
    FAILED_LOGIN_WINDOW_S,
    MAX_FAILED_LOGINS,
    MAX_FAILED_LOGINS_PER_ADDRESS,
    MAX_SESSION_AGE_S,
    MAX_SESSIONS,
    SESSION_COOKIE,
    SESSION_IDLE_TIMEOUT_S,
    Authenticator,
    FailedLogins,
)
from tests.bot.web.conftest import dashboard_in

TOKEN = "correct-horse-battery-staple-42"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SIGN_IN = "/dashboard/sign-in"


class Time:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def locked(tmp_path, time):
    """A dashboard behind a token, reached by other machines too."""
    async with dashboard_in(
        tmp_path / "home", Authenticator(TOKEN, ("bot.example.org",), is_local=False, now=time)
    ) as made:
        yield made


async def signed_in(dashboard, token=TOKEN, **more):
    return await dashboard.submit(SIGN_IN, token=token, **more)


async def test_without_the_token_nothing_is_reported_but_that_it_is_well(locked):
    for path in (
        "/finetune/jobs",
        "/openapi.json",
        "/personas",
        "/nowhere",
        "/problems/busy",
        "/dashboard",
    ):
        status, body, headers = await locked.ask("GET", path)
        assert (status, body["type"]) == (401, "/problems/sign-in"), path
        assert headers["WWW-Authenticate"].startswith("Bearer")
    assert (await locked.ask("GET", "/v1/models"))[0] == 401, "in OpenAI's own words"
    status, body, _ = await locked.start()
    assert status == 401 and locked.store.jobs.page(1) == []
    assert (await locked.ask("GET", "/healthz"))[1] == {"status": "ok"}
    assert "jobs" in (await locked.ask("GET", "/healthz", headers=BEARER))[1]


async def test_a_program_sends_the_token(locked):
    assert (await locked.ask("GET", "/finetune/jobs", headers=BEARER))[0] == 200
    assert (await locked.start(BEARER))[0] == 202
    for wrong in (
        f"Basic {TOKEN}",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ключ",
    ):
        assert (await locked.ask("GET", "/finetune/jobs", headers={"Authorization": wrong}))[
            0
        ] == 401


async def test_a_browser_is_led_to_the_form_and_from_there_to_where_it_wanted(locked):
    status, _, headers = await locked.page("/dashboard/training?state=failed")
    assert (
        status == 303
        and headers["Location"] == f"{SIGN_IN}?to=%2Fdashboard%2Ftraining%3Fstate%3Dfailed"
    )
    status, text, _ = await locked.page(headers["Location"])
    assert (
        status == 200
        and 'value="/dashboard/training?state=failed"' in text
        and 'type="password"' in text
    )
    status, _, headers = await signed_in(locked, to="/dashboard/training?state=failed")
    assert (status, headers["Location"]) == (303, "/dashboard/training?state=failed")
    cookie = headers["Set-Cookie"]
    assert (
        "HttpOnly" in cookie
        and "SameSite=Strict" in cookie
        and "Secure" not in cookie
        and TOKEN not in cookie
    )
    status, text, _ = await locked.page("/dashboard")
    assert status == 200 and "Sign out" in text
    assert (await locked.page(SIGN_IN))[0] == 303, "who is in needs no form"


async def test_who_signs_out_is_out_also_with_the_old_cookie(locked):
    _, _, headers = await signed_in(locked)
    session = re.search(rf"{SESSION_COOKIE}=([^;]+)", headers["Set-Cookie"])[1]
    status, _, headers = await locked.submit("/dashboard/sign-out")
    assert (status, headers["Location"]) == (303, SIGN_IN)
    assert "You are signed out." in (await locked.page(SIGN_IN))[1]
    assert "You are signed out." not in (await locked.page(SIGN_IN))[1]
    status, _, _ = await locked.page(
        "/dashboard", headers={"Cookie": f"{SESSION_COOKIE}={session}"}
    )
    assert status == 303


async def test_over_https_the_cookie_is_for_https_alone(locked):
    own = {"Origin": "https://bot.example.org", "Host": "bot.example.org", "Accept": "text/html"}
    async with locked.session.post(
        SIGN_IN, data={"token": TOKEN}, headers=own, allow_redirects=False
    ) as answer:
        cookie = answer.headers["Set-Cookie"]
        assert (
            answer.status == 303
            and cookie.startswith("__Host-")
            and "Secure" in cookie
            and "Path=/" in cookie
        )
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000"), (
            "it has a name of its own"
        )
    own["Cookie"] = cookie.partition(";")[0].removeprefix("__Host-")
    async with locked.session.get("/dashboard", headers=own, allow_redirects=False) as answer:
        assert answer.status == 303, "a page of a sibling host can have set it"
    own["Cookie"] = cookie.partition(";")[0]
    async with locked.session.get("/dashboard", headers=own, allow_redirects=False) as answer:
        assert answer.status == 200
    async with locked.session.post(
        "/dashboard/sign-out", data={}, headers=own, allow_redirects=False
    ) as answer:
        assert answer.headers["Clear-Site-Data"] == '"cache"'
    async with locked.session.get("/dashboard", headers=own, allow_redirects=False) as answer:
        assert answer.status == 303, "the session has ended on the server too"


async def test_whoever_signs_in_again_leaves_no_session_behind(locked):
    planted = "planted-by-somebody-else"
    locked.session.cookie_jar.update_cookies({SESSION_COOKIE: planted})
    _, _, headers = await signed_in(locked)
    first = headers["Set-Cookie"].partition(";")[0]
    _, _, headers = await signed_in(locked)
    second = headers["Set-Cookie"].partition(";")[0]
    locked.session.cookie_jar.clear()
    assert (await locked.page("/dashboard", headers={"Cookie": second}))[0] == 200
    for cookie in (f"{SESSION_COOKIE}={planted}", first):
        assert (await locked.page("/dashboard", headers={"Cookie": cookie}))[0] == 303


async def test_signing_in_wrong_tokens_and_refusals_are_logged_without_the_token(locked, caplog):
    caplog.set_level("INFO", "bot")
    await signed_in(locked, "guess-guess-guess-guess-guess")
    await signed_in(locked)
    await locked.ask("GET", "/personas", headers={"Host": "elsewhere.example"})
    said = [record.getMessage() for record in caplog.records]
    assert [
        text for text in said if text.startswith("a wrong token") and text.endswith("127.0.0.1")
    ]
    assert [text for text in said if text.startswith("127.0.0.1 has signed in")]
    assert [text for text in said if "refused GET /personas from 127.0.0.1" in text]
    assert "guess-guess" not in caplog.text and TOKEN not in caplog.text


async def test_a_wrong_token_is_reported_and_says_nothing_more(locked):
    status, text, headers = await signed_in(locked, "guess-guess-guess-guess-guess")
    assert status == 401 and "That is not the token." in text and "Set-Cookie" not in headers
    assert 'aria-invalid="true"' in text and "guess-guess" not in text


async def test_guessing_ends_after_a_few_tries_for_a_while(locked, time):
    for _ in range(MAX_FAILED_LOGINS_PER_ADDRESS):
        assert (await signed_in(locked, "x" * 30))[0] == 401
    status, text, headers = await signed_in(locked, "x" * 30)
    assert (
        status == 429
        and int(headers["Retry-After"]) <= FAILED_LOGIN_WINDOW_S
        and "Too many" in text
    )
    assert 'name="token"' in text and 'aria-label="Dashboard"' not in text, (
        "the form, and nothing that leads back to it"
    )
    assert (await locked.ask("GET", "/finetune/jobs", headers={"Authorization": "Bearer x"}))[
        0
    ] == 429
    time.now += FAILED_LOGIN_WINDOW_S
    assert (await signed_in(locked, "x" * 30))[0] == 401


async def test_others_guesses_from_the_same_address_lock_nobody_out(locked):
    for _ in range(MAX_FAILED_LOGINS_PER_ADDRESS + 1):
        status, _, _ = await signed_in(locked, "x" * 30)
    assert status == 429
    assert (await locked.ask("GET", "/finetune/jobs", headers=BEARER))[0] == 200
    assert (await signed_in(locked))[0] == 303


async def test_a_trusted_proxy_is_believed_who_the_client_is_and_nobody_else(tmp_path):
    async def guess(dashboard, forwarded):
        headers = {"Authorization": "Bearer x", "X-Forwarded-For": forwarded}
        return (await dashboard.ask("GET", "/finetune/jobs", headers=headers))[0]

    proxies = tuple(map(ip_network, ("127.0.0.1", "10.0.0.0/8")))
    async with dashboard_in(tmp_path / "behind", Authenticator(TOKEN, proxies=proxies)) as behind:
        for n in range(MAX_FAILED_LOGINS_PER_ADDRESS):
            assert await guess(behind, f"198.51.100.{n}, 203.0.113.7, 10.1.2.3") == 401, (
                "what it claims is not believed"
            )
        assert await guess(behind, "203.0.113.7, 10.1.2.3") == 429
        assert await guess(behind, "203.0.113.8, 10.1.2.3") == 401, "another client"
        assert await guess(behind, "") == 401 and await guess(behind, "nonsense") == 401
    async with dashboard_in(tmp_path / "alone", Authenticator(TOKEN)) as alone:
        statuses = [
            await guess(alone, f"203.0.113.{n}") for n in range(MAX_FAILED_LOGINS_PER_ADDRESS + 1)
        ]
    assert statuses[-1] == 429, "the header of anyone else is ignored"


async def test_whoever_is_signed_in_stays_so_while_others_guess(locked):
    await signed_in(locked)
    for _ in range(MAX_FAILED_LOGINS_PER_ADDRESS + 1):
        await locked.submit(SIGN_IN, token="x" * 30)
    assert (await locked.page("/dashboard"))[0] == 200


def test_in_all_too_there_is_a_bound():
    guesses = FailedLogins()
    for n in range(MAX_FAILED_LOGINS):
        guesses.wrong(f"10.0.1.{n}", 100.0 + n / 100)
    assert guesses.wait_s("10.9.9.9", 101.0) == pytest.approx(FAILED_LOGIN_WINDOW_S - 1)
    assert guesses.wait_s("10.9.9.9", 100.0 + FAILED_LOGIN_WINDOW_S) == 0


async def test_sessions_end_when_they_are_not_used_and_after_a_week(locked, time):
    await signed_in(locked)
    time.now += SESSION_IDLE_TIMEOUT_S - 1
    assert (await locked.page("/dashboard"))[0] == 200
    time.now += SESSION_IDLE_TIMEOUT_S + 1
    assert (await locked.page("/dashboard"))[0] == 303
    await signed_in(locked)
    for _ in range(int(MAX_SESSION_AGE_S / (SESSION_IDLE_TIMEOUT_S - 1)) + 1):
        time.now += SESSION_IDLE_TIMEOUT_S - 1
        status = (await locked.page("/dashboard"))[0]
    assert status == 303


def test_sessions_are_not_kept_without_end():
    door = Authenticator(TOKEN)
    ids = {
        door.begin(make_mocked_request("POST", SIGN_IN), is_secure=False)
        for _ in range(MAX_SESSIONS + 5)
    }
    assert len(ids) == MAX_SESSIONS + 5 and len(door._sessions) == MAX_SESSIONS
    assert not ids & set(door._sessions), "an id itself is kept nowhere"


HOSTS = {
    401: [
        "bot.example.org",
        "BOT.example.org:443",
        "192.168.1.5:8420",
        "[fe80::1]:8420",
        "localhost",
    ],
    403: ["evil.example.org", "bot.example.org.evil.com", "0.0.0.0:8420", "[::]", "", "a b"],
}


async def test_only_own_names_and_addresses_are_answered(locked):
    for host, status in [(host, status) for status, hosts in HOSTS.items() for host in hosts]:
        assert (await locked.ask("GET", "/finetune/jobs", headers={"Host": host}))[0] == status, (
            host
        )


async def test_a_page_of_the_named_host_is_ours_and_of_another_is_not(locked):
    own = {**BEARER, "Host": "bot.example.org", "Origin": "https://bot.example.org"}
    assert (await locked.start(own))[0] == 202
    assert (await locked.start({**own, "Origin": "https://evil.example.org"}))[0] == 403


async def test_on_loopback_a_token_that_is_set_is_demanded_too(tmp_path):
    async with dashboard_in(tmp_path, Authenticator(TOKEN)) as dashboard:
        assert (await dashboard.ask("GET", "/finetune/jobs"))[0] == 401
        assert (await dashboard.ask("GET", "/finetune/jobs", headers={"Host": "192.168.1.5"}))[
            0
        ] == 403


async def test_without_a_token_nobody_signs_in(dashboard):
    status, _, headers = await dashboard.page(SIGN_IN)
    assert (status, headers["Location"]) == (303, "/dashboard")
    assert "Sign out" not in (await dashboard.page("/dashboard"))[1]


async def test_the_form_leads_to_pages_of_ours_alone(locked):
    for to in [
        "https://evil.example.org",
        "//evil.example.org",
        "/dashboardx",
        "/dashboard\\x",
        "/x",
        "/dashboard\r\nA: b",
    ]:
        assert (await signed_in(locked, to=to))[2]["Location"] == "/dashboard", to


async def test_files_of_the_form_need_no_token(locked):
    async with locked.session.get("/dashboard/static/base.css") as answer:
        assert answer.status == 200
