"""The description of the REST interface: that it is whole, and that what is answered is what it
says.
"""

import asyncio
import itertools
import os
import re
from urllib.parse import urlsplit

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bot.platform.web_kit.openapi import (
    ApiRoutes,
    BodySpec,
    ResponseSpec,
    build_document,
    enum_parameter,
    integer_parameter,
    operation_spec,
)
from bot.platform.web_kit.problems import PROBLEMS
from bot.store import Channel
from bot.web_server import ROUTES
from tests.bot.version_rows import install

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
PATIENCE_S = 20
STARTING_OR_BUSY = 503
CASES = int(os.environ.get("OPENAPI_CASES", "2000"))
"""Requests that the slow test makes up at least; 10,000 in a night (docs/fuzzing.md)."""


def is_page(path):
    return path == "/" or path.startswith("/dashboard")


def test_every_route_that_is_no_page_says_what_it_takes_and_answers():
    interface = [
        (f"{method} {path}", handler) for method, path, handler in ROUTES if not is_page(path)
    ]
    assert [name for name, handler in interface if not operation_spec(handler)] == []
    assert [path for _, path, handler in ROUTES if is_page(path) and operation_spec(handler)] == []


def test_no_two_routes_stand_in_each_others_way():
    named = [(method, re.sub(r"{.*?}", "{}", path)) for method, path, _ in ROUTES]
    assert sorted(named) == sorted(set(named))


def test_every_operation_has_a_summary_answers_and_a_name_of_its_own():
    made = build_document(ROUTES)
    operations = [one for path in made["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for one in operations:
        assert one["summary"] and len(one["summary"]) < 80, one["operationId"]
        assert [status for status in one["responses"] if status < "400"], one["operationId"]
        assert all(answer["description"] for answer in one["responses"].values()), one[
            "operationId"
        ]
        assert all(
            given.get("description") or given["in"] == "path" for given in one.get("parameters", ())
        )


def test_what_any_request_can_be_refused_with_is_said_of_each_in_its_shape():
    for path, operations in build_document(ROUTES)["paths"].items():
        media = "application/json" if path.startswith("/v1/") else "application/problem+json"
        for one in operations.values():
            for status in ("401", "403", "414", "429", "500", "503"):
                assert list(one["responses"][status]["content"]) == [media], (
                    one["operationId"],
                    status,
                )


def test_schemas_are_schemas_and_every_reference_leads_somewhere():
    made = build_document(ROUTES)
    for schema in made["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
    known = {f"#/components/schemas/{name}" for name in made["components"]["schemas"]}
    assert set(re.findall(r"'(#/[^']*)'", str(made))) <= known


async def test_the_description_is_served(dashboard):
    status, body, _ = await dashboard.ask("GET", "/openapi.json")
    assert status == 200 and body == build_document(ROUTES) and body["openapi"] == "3.1.0"
    start = body["paths"]["/finetune/start-training"]["post"]
    schema = start["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/TrainingRequest"}
    assert {"202", "400", "401", "403", "409", "413", "415", "422", "500", "503"} <= set(
        start["responses"]
    )
    assert "Idempotency-Key" in [one["name"] for one in start["parameters"]]


def test_a_handler_is_described_by_what_it_is_given():
    routes = ApiRoutes("t")

    @routes.operation(
        r"PUT /things/{thing_id:\d+}/look", "Look",
        {200: ResponseSpec("Found.", {"type": "string"}), 404: "Gone."},
        query={"limit": integer_parameter(1, 5, "How many."), "kind": enum_parameter(["a", "b"], "Which.")},
        body=BodySpec({"type": "object"}, {"a": 1}),
    )  # fmt: skip
    async def look(request):
        """What is looked at."""

    made = build_document(routes)["paths"]["/things/{thing_id}/look"]["put"]
    assert (
        made["operationId"] == "put_things_thing_id_look"
        and made["description"] == "What is looked at."
    )
    assert made["requestBody"]["content"]["application/json"] == {
        "schema": {"type": "object"},
        "example": {"a": 1},
    }
    assert [(one["name"], one["in"], one["required"]) for one in made["parameters"]] == [
        ("thing_id", "path", True), ("limit", "query", False), ("kind", "query", False),
    ]  # fmt: skip
    assert made["responses"]["200"]["content"] == {
        "application/json": {"schema": {"type": "string"}}
    }
    gone = made["responses"]["404"]
    assert gone["description"] == "Gone." and list(gone["content"]) == ["application/problem+json"]
    assert made["responses"]["401"]["description"] == f"{PROBLEMS['sign-in'][1]}."


# ---------------------------------------------------------------------- tried with made-up requests


async def furnished(dashboard):
    """Something of everything; gives what stands for the places in paths."""
    dashboard.store.guilds.record_present([9], 1)
    dashboard.store.channels.assign(Channel(9, 5, "oda", "mentions", 1, 1.0))
    for _ in range(2):
        install(dashboard.store, "oda", guild=9)
    dashboard.store.versions.promote("oda", "v1", 1, 2.0)
    job_id = (await dashboard.start())[1]["job_id"]
    return {
        "job_id": job_id,
        "persona_id": "oda",
        "version": "v2",
        "slug": "busy",
        "model": "oda@v1",
    }


def tried(url, known, examples, modes, round_number=0):
    """Ask for everything in the description. In a thread: the server runs beside it. Each round
    asks otherwise.
    """
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    asked = 0
    faults = []
    for result in schema.get_all_operations():
        operation = result.ok()
        named = {one.name for one in operation.path_parameters}
        for mode in modes:
            for places in {
                frozenset(),
                frozenset(named & set(known)) if named <= set(known) else frozenset(),
            }:
                given_path = (
                    {"path_parameters": {name: known[name] for name in places}} if places else {}
                )
                try:
                    asked += try_operation(operation, mode, examples, url, given_path, round_number)
                except FailureGroup as fault:
                    faults.append(f"{operation.label}: {fault}")
    assert not faults, "\n\n".join(faults)
    return asked


def try_operation(operation, mode, examples, url, places, round_number):
    count = 0

    @seed(round_number)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode, **places))
    def ask(case):
        nonlocal count
        count += 1
        answer = case.call(base_url=url, timeout=PATIENCE_S)
        assert urlsplit(answer.request.url).netloc == urlsplit(url).netloc
        case.validate_response(
            answer, checks=CHECKS if answer.status_code != STARTING_OR_BUSY else CHECKS[1:]
        )

    try:
        ask()
    except Unsatisfiable:  # where nothing is asked, nothing can be asked wrongly
        assert mode is GenerationMode.NEGATIVE
    return count


async def test_made_up_requests_are_answered_as_the_description_says(dashboard):
    known = await furnished(dashboard)
    operations = sum(len(path) for path in build_document(ROUTES)["paths"].values())
    asked = await asyncio.to_thread(tried, dashboard.url, known, 3, (GenerationMode.POSITIVE,))
    assert asked >= operations
    assert dashboard.store.jobs.get(known["job_id"]) is not None


@pytest.mark.slow
async def test_many_made_up_requests_good_and_bad_find_no_fault(dashboard):
    known = await furnished(dashboard)
    asked = 0
    rounds = itertools.count(1)
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    while asked < CASES:
        asked += await asyncio.to_thread(tried, dashboard.url, known, 10, modes, next(rounds))
    print(f"{asked:,} requests")
    assert dashboard.store.jobs.get(known["job_id"]) is not None
