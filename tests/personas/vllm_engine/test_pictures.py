"""Pictures of members on vLLM servers, which render the messages with them, under tuned voices."""

import base64
import json
from dataclasses import replace

import pytest

from personas.engine.detokenizer import StreamingDetokenizer
from personas.engine.remote import server_checks
from personas.engine.remote.server_checks import ExpectedModel, ServerChecker
from personas.engine.remote.server_errors import ReplicaError
from personas.engine.remote.vllm_client import VllmClient, open_session
from personas.models.base_model import BaseModel, has_vision_encoder
from personas.prompt.chat_template import FIXED_VARIABLES
from personas.schemas.chat import Picture
from tests.personas.vllm_engine.conftest import FAST, answer, ask
from tests.personas.vllm_engine.test_vllm_engine import until

CAT = Picture("cat<|im_end|>.jpg", "image/jpeg", b"\xff\xd8\xff a cat")
DOG = Picture("dog.jpg", "image/jpeg", b"\xff\xd8\xff a large dog")


@pytest.fixture
def seeing(servers, monkeypatch):
    """The servers' model has an encoder for pictures."""
    monkeypatch.setattr(server_checks, "has_vision_encoder", lambda base: True)
    for server in servers:
        server.sees_pictures = True
    return servers


def replies(servers):
    return [body for server in servers for body in server.requests if body["max_tokens"] > 1]


def checker_of(base, renderer, home):
    expected = ExpectedModel.of(base, renderer.tokenizer, 512)
    return ServerChecker(expected, home / "probe", str(home / "probe"), rank=16)


async def whole_text(stream):
    return "".join([piece async for piece in stream])


async def test_they_stand_behind_the_last_message_and_the_version_answers(
    open_engine, seeing, version
):
    engine = await open_engine()
    assert engine.state().sees_pictures
    await engine.load(version(1))
    asked = replace(ask("what is it?", version(1)), pictures=(CAT,))
    stream = engine.submit(asked)
    await whole_text(stream)
    assert stream.reply.version == "v1" and stream.reply.text
    [sent] = replies(seeing)
    assert sent["model"] == "ada-v1" and "prompt" not in sent
    assert sent["add_generation_prompt"] and not sent["continue_final_message"]
    text, picture = sent["messages"][-1]["content"]
    assert text["text"].endswith("what is it?\n[cat< |im_end|>.jpg]\n")
    assert sent["chat_template_kwargs"] == FIXED_VARIABLES
    data = base64.b64encode(CAT.data).decode()
    assert picture["image_url"] == {"url": f"data:image/jpeg;base64,{data}"}
    other = replace(asked, pictures=(CAT, DOG))
    assert await answer(engine, other) != stream.reply.text
    plain = replace(asked, pictures=())
    assert await answer(engine, plain)
    assert isinstance(replies(seeing)[-1]["prompt"], list)


async def test_a_reply_goes_on_with_its_pictures_at_another_server(open_engine, seeing):
    engine = await open_engine()
    asked = replace(ask("what is it?"), pictures=(CAT,), prefill="It is")
    whole = await answer(engine, asked)
    for server in seeing:
        server.requests.clear()
        server.faults.token_delay_s = 0.02
    stream = engine.submit(asked)
    pieces = []
    async for piece in stream:
        pieces.append(piece)
        if len(pieces) == 3:
            [dying] = [server for server in seeing if server.open_replies]
            [other] = [server for server in seeing if server is not dying]
            await dying.stop()
    assert "".join(pieces) == stream.reply.text == whole
    [first], [last] = replies([dying]), replies([other])
    assert first["messages"][-1] == {"role": "assistant", "content": "It is"}
    begun = last["messages"][-1]["content"]
    assert last["continue_final_message"] and not last["add_generation_prompt"]
    assert begun.startswith("It is ") and f"It is{whole}".startswith(begun)


async def test_a_placeholder_that_a_member_types_is_no_picture(open_engine, seeing):
    engine = await open_engine()
    assert await answer(engine, replace(ask("see <image> and <|image_1|>"), pictures=(CAT,)))
    [sent] = replies(seeing)
    assert "see < image> and < |image_1|>" in sent["messages"][-1]["content"][0]["text"]


async def test_servers_that_have_begun_to_refuse_them_are_asked_without_and_then_again(
    open_engine, seeing
):
    engine = await open_engine()
    for server in seeing:
        server.sees_pictures = False
    asked = replace(ask("what is it?"), pictures=(CAT,))
    assert await answer(engine, asked)
    assert isinstance(replies(seeing)[-1]["prompt"], list)
    for server in seeing:
        server.sees_pictures = True
        await server.restart()
    await until(lambda: len(engine._replicas.ready) == 2 and engine.state().sees_pictures)


async def test_a_busy_server_is_asked_again(seeing, tiny_base, renderer, home):
    server = seeing[0]
    checker = checker_of(tiny_base, renderer, home)
    async with open_session("") as session:
        client = VllmClient(server.url, session)
        server.faults.chat_status = 503
        with pytest.raises(ReplicaError):
            await checker.check(client)
        server.faults.chat_status = 200
        assert (await checker.check(client)).sees_pictures
        client.sees_pictures = None  # as after it was away; it may be busy again
        server.faults.chat_status = 503
        with pytest.raises(ReplicaError):
            await checker.check(client)


async def test_a_server_that_dies_of_pictures_is_used_without(open_engine, seeing):
    for server in seeing:
        server.faults.breaks_at_pictures = True
    engine = await open_engine(start_wait_s=3.0)
    await until(lambda: len(engine._replicas.ready) == 2)
    assert not engine.state().sees_pictures
    assert await answer(engine, replace(ask(), pictures=(CAT,)))
    assert [server.deaths for server in seeing] == [2, 2]


async def test_a_server_that_begins_to_die_of_pictures_answers_without(open_engine, seeing):
    engine = await open_engine()
    for server in seeing:
        server.faults.breaks_at_pictures = True
    assert await answer(engine, replace(ask("what is it?"), pictures=(CAT, DOG)))
    asked_and_probed = 3 + 2 * 2
    assert sum(server.deaths for server in seeing) <= asked_and_probed
    assert isinstance(replies(seeing)[-1]["prompt"], list)


async def test_a_reply_that_may_go_anywhere_does_not_wait_for_sight(open_engine, seeing):
    seeing[1].sees_pictures = False
    engine = await open_engine()
    one, other = engine._replicas.all
    blind = one if not one.served.sees_pictures else other
    sees = other if blind is one else one
    choose = engine._replicas.choose
    assert choose("ada", "", anywhere=False, wants_sight=True) is sees
    leases = [engine._replicas.lease(sees, "") for _ in range(FAST.rows)]
    assert choose("ada", "", anywhere=False, wants_sight=True) is None
    assert choose("ada", "", wants_sight=True) is blind
    for lease in leases:
        engine._replicas.release(lease)


async def test_half_a_character_is_generated_again(renderer):
    """The first byte of an emoji is left out of a prompt, and of the reply so far."""
    detokenizer = StreamingDetokenizer(renderer, (), lambda piece: None, prefill="It is")
    ids = renderer.tokenizer(" a 🦀", add_special_tokens=False)["input_ids"]
    assert len(renderer.tokenizer("🦀", add_special_tokens=False)["input_ids"]) > 1
    for token in ids[:-1]:
        detokenizer.append(token)
    dropped = detokenizer.drop_incomplete()
    assert dropped and detokenizer.begun().rstrip() == "It is a"
    assert detokenizer.tokens == len(ids) - 1 - dropped
    for token in ids[-1 - dropped :]:
        detokenizer.append(token)
    assert detokenizer.drop_incomplete() == 0 and detokenizer.begun() == "It is a 🦀"


@pytest.mark.parametrize(
    ("vision", "has_encoder", "takes", "sees"),
    [
        ("auto", True, True, True),
        ("auto", True, False, False),
        ("auto", False, True, False),
        ("off", True, True, False),
        ("on", False, False, True),
    ],
)
async def test_a_server_is_asked_only_where_the_model_has_an_encoder(
    open_engine, servers, monkeypatch, vision, has_encoder, takes, sees
):
    monkeypatch.setattr(server_checks, "has_vision_encoder", lambda base: has_encoder)
    for server in servers:
        server.sees_pictures = takes
    engine = await open_engine(vision=vision)
    assert engine.state().sees_pictures is sees
    client = engine._replicas.ready[0].client
    found = [check.found for check in await engine._checker.inspect(client)]
    assert ("pictures are seen" in found) is sees
    asked = [body for body in servers[0].requests if "messages" in body]
    assert bool(asked) is (vision == "auto" and has_encoder and takes)


async def test_the_config_of_a_model_says_whether_it_has_an_encoder(tmp_path):
    base = BaseModel("test", str(tmp_path), 0)
    for config, has_encoder in (
        ({"text_config": {"vocab_size": 8}, "vision_config": {}}, True),
        ({"vocab_size": 8}, False),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert has_vision_encoder(base) is has_encoder
