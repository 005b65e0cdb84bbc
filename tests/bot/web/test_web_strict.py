"""JSON bodies are taken as they are written, and what is wrong with them is said in plain words."""

import json

import pytest
from pydantic import ValidationError

from bot.platform.web_kit.problems import Problem
from bot.platform.web_kit.validation import parse_body
from personas.schemas.base import explain_validation_error
from personas.schemas.training import TrainingRequest
from tests.bot.web.test_web_openai import put_version

CHAT = {"model": "oda", "messages": [{"role": "user", "content": "Is the ferry late?"}]}
START = {"job_name": "harbour", "task_type": "dialogue", "dataset": "general-dialogue"}
PLAIN = {"Content-Type": "application/json"}


async def chat(dashboard, **fields):
    status, result, _ = await dashboard.ask("POST", "/v1/chat/completions", json=CHAT | fields)
    return status, result.get("error", {})


async def test_openais_clients_are_reported_which_type_is_wanted(dashboard):
    for field, value, wanted in [
        ("max_tokens", "5", "a whole number from -1"),
        ("max_tokens", 5.0, "a whole number from -1"),
        ("max_tokens", True, "a whole number from -1"),
        ("temperature", "1", "a number from 0 to 2"),
        ("temperature", True, "a number from 0 to 2"),
        ("stream", "yes", "true or false"),
        ("stream", 1, "true or false"),
        (
            "stop",
            ["x"] * 17,
            "text of at most 256 characters or a list of at most 16, each text of at most",
        ),
        ("stop", 5, "text of at most 256 characters or a list of at most 16"),
    ]:
        status, error = await chat(dashboard, **{field: value})
        assert (
            status == 400
            and error["param"] == field
            and error["message"].startswith(f"{field} must be {wanted}")
        ), field


async def test_a_whole_number_is_a_number_too(dashboard):
    assert (await chat(dashboard, temperature=1, top_p=1))[0] == 200
    assert (
        await dashboard.start(hyperparameters={"num_train_epochs": 1, "target_modules": ["q_proj"]})
    )[0] == 202


async def test_a_message_without_words_is_nothing_to_answer(dashboard):
    for content in ["", "   ", "\n", [{"type": "text", "text": " "}]]:
        status, error = await chat(dashboard, messages=[{"role": "user", "content": content}])
        assert status == 400 and "nothing to answer" in error["message"], content


async def test_the_gate_is_not_passed_by_a_word(dashboard):
    put_version(dashboard.store, "oda", "v1")
    status, result, _ = await dashboard.ask(
        "POST", "/personas/oda/versions/v1/promote", json={"anyway": "yes"}
    )
    assert status == 422 and dashboard.store.versions.live("oda", 0) is None
    assert result["errors"] == [
        {"field": "anyway", "pointer": "#/anyway", "detail": "must be true or false", "allowed": "true or false",
         "got": "'yes'"}
    ]  # fmt: skip


async def test_what_is_wrong_is_said_in_plain_words(dashboard):
    for path, body, detail in [
        ("/dashboard/tokens", {"texts": {"a": 5}}, "must be text"),
        (
            "/dashboard/personas/oda/preview/events",
            {"message": "\t"},
            "must be some text of at most",
        ),
        (
            "/finetune/start-training",
            START | {"hyperparameters": {"lora_r": "8"}},
            "whole number from 1 to",
        ),
        (
            "/finetune/start-training",
            START | {"task_type": "odd"},
            "must be one of persona, dialogue, preference",
        ),
    ]:
        status, result, _ = await dashboard.ask("POST", path, json=body)
        assert status == 422 and detail in result["errors"][0]["detail"], detail
        assert len(result["errors"]) == 1 and result["errors"][0]["allowed"], detail


async def test_a_body_that_is_no_json_is_reported_why(dashboard):
    for data, why in [
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number of too many digits"),
        (b'{"a":' * 10_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8 from byte 7 on"),
        (b"", "Expecting value"),
    ]:
        for path in ("/finetune/plan", "/v1/chat/completions"):
            status, result, _ = await dashboard.ask("POST", path, data=data, headers=PLAIN)
            assert status == 400 and why in json.dumps(result), why


async def test_a_persona_that_there_is_not_is_named_by_its_field(dashboard):
    status, result, _ = await dashboard.start(task_type=None, dataset=None, persona="nobody")
    assert status == 422 and [error["field"] for error in result["errors"]] == ["persona"]
    assert result["errors"][0]["detail"].startswith("There is no persona 'nobody'.")


@pytest.mark.parametrize("text", ["nan", "inf", "2"])
def test_a_form_s_number_out_of_range_is_said_in_plain_words(text):
    body = {"job_name": "a", "persona": "oda", "lore_pairs": text}
    with pytest.raises(Problem) as wrong:
        parse_body(TrainingRequest, body, is_form=True)
    assert wrong.value.errors[0]["detail"] == "must be a number from 0 to 1"


def test_fields_that_contradict_each_other_are_named_without_the_whole_request():
    with pytest.raises(ValidationError) as wrong:
        TrainingRequest.model_validate(START | {"lore_pairs": 0.5})
    words = explain_validation_error(wrong.value).message
    assert "takes no lore_pairs" in words and "(got" not in words


def test_a_default_that_waits_for_a_wrong_field_is_not_reported_as_wrong_itself():
    with pytest.raises(ValidationError) as wrong:
        TrainingRequest.model_validate(START | {"task_type": "odd"})
    assert "task_type" in str(explain_validation_error(wrong.value)) and "recipe" not in str(
        explain_validation_error(wrong.value)
    )


async def test_a_files_name_is_reported_as_it_is(dashboard):
    path = "/dashboard/data/uploads/true.jsonl"
    async with dashboard.session.put(path, data=b'{"messages": []}\n') as answer:
        assert answer.status == 201
    fields = {"name": "harbour", "source": "uploads/true.jsonl"}
    status, page, _ = await dashboard.submit("/dashboard/data/build", **fields)
    assert status == 422 and "true.jsonl" in page and "True.jsonl" not in page


async def test_a_parameter_that_is_given_twice_is_refused(dashboard):
    status, body, _ = await dashboard.ask("GET", "/finetune/jobs?limit=5&limit=50")
    assert (status, body["type"]) == (400, "/problems/bad-query") and "twice" in body["detail"]
