"""Every refusal that the description tells of is really given: each operation is provoked to each
of them.
"""

import hashlib
import io
import itertools
import json
import re
import time
from types import SimpleNamespace

import pytest

from bot.platform.web_kit.auth import Authenticator
from bot.platform.web_kit.openapi import build_document
from bot.web_server import ROUTES
from tests.bot.web.conftest import dashboard_in

JSON = {"Content-Type": "application/json"}
LARGE = json.dumps({"x": "y" * 9 * 2**20}).encode()
OPENAI = "POST /v1/chat/completions"
"""It is refused in OpenAI's words and with OpenAI's statuses."""
OPERATIONS = [
    (method.upper(), path, one)
    for path, methods in build_document(ROUTES)["paths"].items()
    for method, one in methods.items()
]
keys = itertools.count()


def filled(path, value="nothing-of-this-name"):
    """The path with something in its places that there is not."""
    return re.sub(r"{\w+}", value, path)


def takes_json(operation):
    return "application/json" in operation.get("requestBody", {}).get("content", {})


def takes_key(operation):
    return any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ()))


async def status(dashboard, method, path, **more):
    async with dashboard.session.request(method, path, **more) as answer:
        return answer.status


@pytest.fixture
async def locked(tmp_path):
    async with dashboard_in(
        tmp_path / "locked", Authenticator("correct-horse-battery-staple")
    ) as made:
        yield made


def described(status):
    """The operations whose description has this status."""
    return [one for one in OPERATIONS if str(status) in one[2]["responses"]]


async def given(dashboard, wanted, **more):
    """What each operation that describes a status answers, where it is not that status."""
    found = {}
    for method, path, _ in described(wanted):
        answered = await status(dashboard, method, filled(path), **more)
        if answered != wanted:
            found[f"{method} {path}"] = answered
    return found


async def test_who_has_no_token_is_refused_by_all_but_the_question_whether_it_is_well(locked):
    assert await given(locked, 401) == {"GET /healthz": 200}


async def test_another_host_is_refused_by_all(dashboard):
    assert await given(dashboard, 403, headers={"Host": "example.org"}) == {}


async def test_before_the_bot_is_in_all_that_need_it_say_so(dashboard):
    dashboard.front.close()
    found = await given(dashboard, 503)
    alone = {"GET /openapi.json": 200, "GET /problems/{slug}": 404}
    with_body = {name for name, answered in found.items() if answered in (400, 415)}
    assert {name: found[name] for name in found if name not in with_body} == alone
    for name in with_body:
        method, path = name.split()
        assert await status(dashboard, method, filled(path), data=b"{}", headers=JSON) in (
            422,
            503,
        ), name


async def test_a_fault_inside_is_reported_by_all_that_read_the_home(dashboard, monkeypatch):
    monkeypatch.setattr(dashboard.front._context, "services", SimpleNamespace(home=None))
    found = await given(dashboard, 500)
    with_body = {f"{method} {path}" for method, path, one in OPERATIONS if takes_json(one)}
    assert {answered for name, answered in found.items() if name in with_body} <= {400, 415, 422}
    assert {answered for name, answered in found.items() if name not in with_body} <= {
        200,
        404,
        415,
    }
    assert found["GET /openapi.json"] == 200 and len(found) < len(OPERATIONS) / 2


@pytest.mark.parametrize(
    ("sent", "wanted"), [(b"{", 400), (b"[]", 422), (LARGE, 413)], ids=["broken", "list", "large"]
)
async def test_a_body_that_cannot_be_is_refused_by_all_that_take_one(dashboard, sent, wanted):
    found = {}
    for method, path, one in OPERATIONS:
        if takes_json(one) and one["requestBody"]["required"]:
            answered = await status(
                dashboard, method, filled(path), data=io.BytesIO(sent), headers=JSON
            )
            if answered not in (wanted, 404):  # what is not there may be told first
                found[f"{method} {path}"] = answered
            assert str(answered) in one["responses"], f"{method} {path}"
    assert found in ({}, {OPENAI: 400})


async def test_another_type_than_json_is_refused_by_all_that_take_json(dashboard):
    for method, path, one in OPERATIONS:
        if takes_json(one) and one["requestBody"]["required"]:
            answered = await status(
                dashboard, method, filled(path), data=b"x", headers={"Content-Type": "text/plain"}
            )
            expected = (400,) if f"{method} {path}" == OPENAI else (404, 415)
            assert answered in expected and str(answered) in one["responses"], f"{method} {path}"


async def test_a_query_for_what_there_is_not_is_refused_by_all_that_take_one(dashboard):
    found = {}
    for method, path, one in OPERATIONS:
        if any(parameter["in"] == "query" for parameter in one.get("parameters", ())):
            answered = await status(
                dashboard,
                method,
                f"{filled(path)}?nonsense=1",
                headers={"Accept": "application/json"},
            )
            if answered not in (400, 404):
                found[f"{method} {path}"] = answered
    assert found == {}


async def test_keys_are_heeded_by_all_that_take_them(dashboard):
    for method, path, one in OPERATIONS:
        if not takes_key(one):
            continue
        assert (
            await status(dashboard, method, filled(path), headers={"Idempotency-Key": "two words"})
            == 400
        ), path
        if path != "/finetune/start-training":  # there the job is what is remembered
            key = f"used-{next(keys)}"
            dashboard.store.idempotency_keys.begin(
                hashlib.sha256(key.encode()).digest(), b"another request", time.time()
            )
            sent = {"headers": {**JSON, "Idempotency-Key": key}, "data": b"{}"}
            assert await status(dashboard, method, filled(path), **sent) == 409, path


async def test_what_is_not_there_is_reported_by_all_that_have_a_place_for_a_name(dashboard):
    found = {}
    for method, path, one in described(404):
        if "{" not in path:
            continue
        sent = {"data": b"{}", "headers": JSON} if takes_json(one) else {}
        answered = await status(dashboard, method, filled(path), **sent)
        if answered != 404:
            found[f"{method} {path}"] = answered
        assert str(answered) in one["responses"], f"{method} {path}: {answered}"
    # What is asked may be looked at before whom it is asked of; so may the kind that a name's
    # ending tells.
    assert {name: answered for name, answered in found.items() if answered not in (415, 422)} == {}
