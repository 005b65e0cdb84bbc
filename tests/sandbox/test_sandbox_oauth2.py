"""The sandbox's OAuth2, asked as an application asks Discord."""

import base64
import hashlib
import re
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import pytest

from sandbox import ChannelSeed, GuildSeed, MemberSeed, Permission, RoleSeed, Sandbox
from sandbox.oauth2 import CODE_LIFETIME_S
from sandbox.sandbox_errors import SandboxRefusal

SEED = GuildSeed(
    name="Quay",
    channels=(ChannelSeed("pier"),),
    members=(MemberSeed("Olga", owner=True), MemberSeed("Mora", ("Moderator",))),
    roles=(RoleSeed("Moderator", int(Permission.MANAGE_GUILD)),),
    bot_name="Probe",
)
VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)
BACK = "http://127.0.0.1:9/back"


class Application:
    """An application with the bot's id."""

    def __init__(self, sandbox, session):
        self.sandbox, self.session = sandbox, session
        self.auth = {
            "Authorization": "Basic "
            + base64.b64encode(f"{sandbox.bot_id}:secret".encode()).decode()
        }

    def request(self, **changes):
        asked = {
            "client_id": str(self.sandbox.bot_id), "redirect_uri": BACK, "response_type": "code",
            "scope": "identify guilds", "state": "s<1>", "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        } | changes  # fmt: skip
        return {name: value for name, value in asked.items() if value is not None}

    async def page(self, **changes):
        address = f"{self.sandbox.url}/oauth2/authorize?{urlencode(self.request(**changes))}"
        async with self.session.get(address) as answer:
            return answer.status, await answer.text()

    async def back(self, user, headers=None, **changes):
        """The query with which the browser comes back."""
        async with self.session.post(
            f"{self.sandbox.url}/oauth2/authorize",
            data=self.request(**changes) | {"user": user},
            headers=headers or {},
            allow_redirects=False,
        ) as answer:
            if answer.status != 302:
                return answer.status
            return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))

    async def ask(self, method, path, **more):
        async with self.session.request(
            method, f"{self.sandbox.url}/api/v10{path}", **more
        ) as answer:
            return answer.status, await answer.json()

    async def exchange(self, code, headers=None, **changes):
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": BACK,
            "code_verifier": VERIFIER,
        } | changes  # fmt: skip
        return await self.ask("POST", "/oauth2/token", data=form, headers=headers or self.auth)


@pytest.fixture
async def application():
    sandbox = Sandbox(SEED)
    await sandbox.start()
    async with aiohttp.ClientSession() as session:
        yield Application(sandbox, session)
    await sandbox.stop()


async def test_a_member_is_chosen_and_named_to_the_application(application):
    status, page = await application.page()
    assert status == 200 and "s&lt;1&gt;" in page
    user = re.search(r'value="(\d+)">Mora<', page)[1]
    came = await application.back(user)
    assert came["state"] == "s<1>"
    status, token = await application.exchange(came["code"])
    assert status == 200 and token["token_type"] == "Bearer" and token["scope"] == "identify guilds"
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    assert (await application.ask("GET", "/users/@me", headers=bearer))[1]["id"] == user
    _, guilds = await application.ask("GET", "/users/@me/guilds", headers=bearer)
    assert [guild["name"] for guild in guilds] == ["Quay"] and not guilds[0]["owner"]
    assert int(guilds[0]["permissions"]) & Permission.MANAGE_GUILD
    form = {"token": token["access_token"]}
    assert await application.ask(
        "POST", "/oauth2/token/revoke", data=form, headers=application.auth
    ) == (200, {})
    assert (await application.ask("GET", "/users/@me", headers=bearer))[0] == 401
    bot = {"Authorization": f"Bot {application.sandbox.token}"}
    assert (await application.ask("GET", "/users/@me", headers=bot))[1]["bot"], "as before"
    assert (await application.ask("GET", "/users/@me/guilds", headers=bot))[0] == 401


async def test_a_code_is_good_once_soon_and_with_its_verifier(application):
    user = application.sandbox.member("Mora").id
    refused = (400, {"error": "invalid_grant"})
    code = (await application.back(user))["code"]
    assert (await application.exchange(code))[0] == 200
    assert await application.exchange(code) == refused
    code = (await application.back(user))["code"]
    assert await application.exchange(code, code_verifier="w" * 43) == refused
    code = (await application.back(user))["code"]
    assert await application.exchange(code, redirect_uri=f"{BACK}/x") == refused
    code = (await application.back(user))["code"]
    application.sandbox.advance(CODE_LIFETIME_S + 1)
    assert await application.exchange(code) == refused


async def test_wrong_applications_are_refused(application):
    for changes in (
        {"client_id": "1"},
        {"redirect_uri": "https://evil.example.org/back"},
        {"redirect_uri": "http://127.0.0.1@evil.example.org/back"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": None},
        {"response_type": "token"},
        {"scope": "identify bot"},
        {"code_challenge_method": "plain"},
    ):
        assert (await application.page(**changes))[0] == 400, changes
        assert await application.back("1", **changes) == 400, changes
    assert await application.back("1", {"Origin": "https://evil.example.org"}) == 403
    code = (await application.back(application.sandbox.member("Mora").id))["code"]
    assert (await application.exchange(code, {"Authorization": "Basic eA=="}))[0] == 401
    application.sandbox.oauth2.client_secret = "another"
    assert await application.exchange(code) == (401, {"error": "invalid_client"})


async def test_whoever_cancels_or_is_nobody_gives_no_code(application):
    for user in ("", "1"):
        came = await application.back(user)
        assert came["error"] == "access_denied" and "code" not in came


async def test_roles_change_while_it_runs(application):
    sandbox = application.sandbox
    mora = sandbox.member("Mora").id
    sandbox.set_roles(mora, ())
    assert not int(sandbox.oauth2.guilds_of(mora)[0]["permissions"]) & Permission.MANAGE_GUILD
    sandbox.set_roles(mora, ("Moderator",))
    assert int(sandbox.oauth2.guilds_of(mora)[0]["permissions"]) & Permission.MANAGE_GUILD
    with pytest.raises(SandboxRefusal):
        sandbox.set_roles(mora, ("King",))
