"""Dialogue adapters, which belong to no persona, as models: in the playground, over REST and on
`/v1`.
"""

import json
import re
import shutil

import pytest

from bot.chat.model_names import UnknownModelError, find_model
from personas.engine.llm_engine import LLMEngine
from personas.home.adapters import MANIFEST_FILE, WEIGHTS_FILE, dialogue_adapter_folder
from personas.models.base_model import fingerprint
from personas.schemas.chat import SamplingParams, Turn
from tests.bot.web.conftest import dashboard_in
from tests.bot.web.test_web_openai import chat, put_version, streamed
from tests.bot.web.test_web_playground import PROMPT, begin, ended
from tests.tiny_models import make_dialogue_adapter
from trainer.dataset.sample_renderer import SampleRenderer
from trainer.recipe.recipe_file import load_recipe
from trainer.sources.conversation_builder import RawDialogue, build_conversation
from trainer.sources.source_format import ReadOptions

GREEDY = {"temperature": 0, "max_tokens": 8}


def put_dialogue(home, name="dialogue_v1", folder=None, **manifest):
    """A dialogue adapter for the fake engine, which reads no more than its manifest."""
    folder = folder or dialogue_adapter_folder(home, name)
    folder.mkdir(parents=True)
    fields = {
        "persona": None,
        "version": "v1",
        "job_id": "j",
        "base_model": "embedded",
        "base_model_hash": "served",
    }
    (folder / MANIFEST_FILE).write_text(
        json.dumps({**fields, "created_at": "2026-11-20T00:00:00+00:00", **manifest})
    )
    return folder


@pytest.fixture
async def served(tmp_path):
    """A dashboard that serves the base model `served`, with one dialogue adapter."""
    async with dashboard_in(tmp_path / "home", served_hash="served") as dashboard:
        put_dialogue(dashboard.home)
        yield dashboard


async def test_a_client_finds_it_and_talks_to_it_streamed_and_whole(served):
    _, listed, _ = await served.ask("GET", "/v1/models")
    assert [it["id"] for it in listed["data"]][-2:] == ["dialogue/dialogue_v1", "base"]
    status, one, _ = await served.ask("GET", "/v1/models/dialogue/dialogue_v1")
    assert (
        status == 200
        and one == listed["data"][-2]
        and one["created"] == 1_763_596_800 + 365 * 86_400
    )
    assert one["understudy"] == {"persona": None, "version": "dialogue/dialogue_v1@v1"}

    status, body = await chat(served, model="dialogue/dialogue_v1")
    assert status == 200 and body["model"] == "dialogue/dialogue_v1@v1"
    assert (
        body["understudy"]["version"] == "dialogue/dialogue_v1@v1"
        and body["understudy"]["persona"] is None
    )
    request = served.engine.requests[-1]
    assert request.persona is None and request.lore == ()
    assert request.adapter.folder == dialogue_adapter_folder(served.home, "dialogue_v1")
    chunks, last = await streamed(served, model="dialogue/dialogue_v1@v1")
    assert last == "[DONE]" and {chunk["model"] for chunk in chunks} == {"dialogue/dialogue_v1@v1"}


async def test_a_personas_card_speaks_with_it(served):
    put_version(served.store, "oda", "v1", live=True)
    status, body = await chat(served, model="oda@dialogue/dialogue_v1")
    assert status == 200 and body["model"] == "oda@dialogue/dialogue_v1@v1"
    assert body["choices"][0]["message"]["content"].startswith("Oda Marrow hears")
    request = served.engine.requests[-1]
    assert (request.persona.id, request.adapter.persona_id) == ("oda", "dialogue/dialogue_v1")


async def test_the_playground_has_it_side_by_side_and_in_duets(served):
    put_dialogue(served.home, folder=served.home / "runs" / "by_hand" / "adapter")
    put_dialogue(served.home, folder=served.home / "runs" / "a_personas" / "adapter", persona="oda")
    _, html, _ = await served.page("/dashboard/play")
    assert '<option value="dialogue/dialogue_v1">dialogue/dialogue_v1 (v1)</option>' in html
    assert '<option value="oda@dialogue/by_hand">Oda Marrow (dialogue/by_hand)</option>' in html
    assert "a_personas" not in html
    for models, names in (
        (("dialogue/by_hand", "base"), ["dialogue/by_hand (v1)", "Base model"]),
        (
            ("dialogue/dialogue_v1", "oda@dialogue/by_hand"),
            ["dialogue/dialogue_v1 (v1)", "Oda Marrow (dialogue/by_hand)"],
        ),
    ):
        _, run = await begin(served, models)
        lines = (await ended(served, run))["lines"]
        assert [line["speaker"]["name"] for line in lines] == names
    _, again = await begin(served, (), prompt="And the pilot?", after=run["id"])
    assert len((await ended(served, again))["lines"]) == 2

    status, duet = await begin(served, ("dialogue/by_hand", "oda"), duet="true", turns=2)
    assert status == 303
    assert [line["state"] for line in (await ended(served, duet))["lines"]] == ["done", "done"]
    assert served.engine.requests[-1].turns[-1].name == "by_hand", "Oda sees its name"
    location = (
        await served.submit("/dashboard/play", **{"with": "dialogue/by_hand", "prompt": PROMPT})
    )[2]["Location"]
    assert "dialogue/by_hand (v1)" in (await served.page(location))[1]
    for name, option in (
        ("dialogue/by_hand", "dialogue/by_hand"), ("dialogue/by_hand@v1", "dialogue/by_hand"),
        ("oda@dialogue/by_hand@v1", "oda@dialogue/by_hand"),
    ):  # fmt: skip
        form = (await served.page(f"/dashboard/play?with={name}"))[1]
        assert re.search(rf'<option value="{option}"[^>]*selected', form), (
            "links to the form select it"
        )


async def test_what_cannot_be_served_is_refused_with_the_reason(served):
    put_dialogue(served.home, "elsewhere", base_model="big/model", base_model_hash="other")
    for name, message in [
        (
            "dialogue/other",
            "'other'. There are: dialogue/dialogue_v1, dialogue/els",
        ),
        ("oda@dialogue/other", "no dialogue adapter 'other'"),
        ("dialogue/../runs", "no dialogue adapter '../runs'"),
        (
            "dialogue/dialogue_v1@v2",
            "'dialogue/dialogue_v1@v2'. There is: dialogue/dialogue_v1@v1",
        ),
        (
            "dialogue/elsewhere",
            "dialogue/elsewhere was made for big/model",
        ),
        ("nobody", "thrip, dialogue/dialogue_v1, and base."),
    ]:
        status, body = await chat(served, model=name)
        assert (
            status == 404
            and body["error"]["code"] == "model_not_found"
            and message in body["error"]["message"]
        ), name
        status, body = await begin(served, (name,))
        assert status == 422 and 'id="models-error"' in body["text"], name
        with pytest.raises(UnknownModelError):
            find_model(served.services.personas, served.services.served_versions, name)
        assert "elsewhere" not in json.dumps((await served.ask("GET", "/v1/models"))[1]), name


async def test_it_really_answers_and_a_damaged_one_is_an_error(tmp_path, tiny_base):
    home = tmp_path / "home"
    folder = make_dialogue_adapter(home, tiny_base, "dialogue_v1", 3)
    engine = LLMEngine(tiny_base, "float32")
    await engine.start()
    try:
        async with dashboard_in(
            home, engine=engine, served_hash=fingerprint(tiny_base)
        ) as dashboard:
            texts = {}
            for name in ("base", "dialogue/dialogue_v1", "oda", "oda@dialogue/dialogue_v1"):
                status, body = await chat(dashboard, model=name, **GREEDY)
                assert status == 200, body
                texts[name] = body["choices"][0]["message"]["content"]
            assert len(set(texts.values())) == 4
            chunks, _ = await streamed(dashboard, model="dialogue/dialogue_v1", **GREEDY)
            pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
            assert "".join(pieces) == texts["dialogue/dialogue_v1"]

            shutil.copytree(folder, bad := dialogue_adapter_folder(home, "damaged"))
            (bad / WEIGHTS_FILE).write_bytes(b"!")
            status, body = await chat(dashboard, model="dialogue/damaged", **GREEDY)
            assert status == 422 and "does not match its checksum" in body["error"]["message"]
            assert str(tmp_path) not in body["error"]["message"]
    finally:
        await engine.close()


async def test_instructions_are_rendered_as_in_training(served, renderer):
    """A system text of the data becomes the card of a training sample; a client's, that of a
    prompt.
    """
    facts = "I keep bees.\nI live by the sea."
    said = ("Who are you?", "Ann.", "Do you like honey?", "Every day.")
    turns = [("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(said)]
    conversation = build_conversation(RawDialogue.of(turns, facts), "1", ReadOptions())
    recipe = load_recipe("s4-persona-chat")
    made = list(SampleRenderer(renderer, None, None, recipe, None).render(conversation, {}))[
        -1
    ].sample

    messages = [{"role": "system", "content": facts}]
    messages += [{"role": role, "content": text} for role, text in turns[:-1]]
    await chat(served, messages, model="dialogue/dialogue_v1")
    request = served.engine.requests[-1]
    prompt = renderer.prompt(
        request.persona, request.turns, request.lore, instructions=request.instructions
    )
    assert prompt.ids == made.ids[: len(prompt.ids)] and not any(made.mask[: len(prompt.ids)])
    assert all(made.mask[len(prompt.ids) :]) and request.sampling.stop == ()
    assert "user:" not in prompt.text
    own = await served.services.request_builder.request_to_model(
        find_model(served.services.personas, served.services.served_versions, "dialogue/dialogue_v1"),
        [Turn("Guest", "Hello")], SamplingParams(),
    )  # fmt: skip
    assert own.persona is None, "without instructions, there is no card"
