"""Job folders: each thing that can be wrong with one is said by name."""

import json

import pytest

from personas.errors import MaterialError, RequestError, UnderstudyError
from personas.home.job_folder import _copy_material, material_digest, read_spec
from personas.home.job_material import SourceMaterial
from personas.home.rights import RightsStatement
from tests.trainer.job_folders import (
    described,
    dialogue_job,
    dialogues,
    export,
    message,
    persona_job,
    write_request,
)
from trainer.dataset.job_inputs import read_job_inputs, read_job_talk
from trainer.recipe.recipe_file import recipe_names, requested_recipe
from trainer.train.job import prepare_job_without_torch


def read(folder):
    spec = read_spec(folder)
    return read_job_talk(read_job_inputs(folder, spec), requested_recipe(spec.request))


def change(folder, **fields):
    """Change fields of the request's first material."""
    path = folder / "request.json"
    request = json.loads(path.read_text())
    request["materials"][0] |= fields
    path.write_text(json.dumps(request))


def test_a_persona_job_holds_its_persona_its_talk_and_its_lore(tmp_path):
    folder = persona_job(tmp_path, "embedded")
    content = read_job_inputs(folder, read_spec(folder))
    talk = read(folder)
    assert content.persona.name == "Ada"
    assert len(talk.conversations) == 16 and len(talk.general) == 3
    assert content.lore.search("ada", "tell me of the bell")[0].source == "ada/clock.md"
    said = prepare_job_without_torch(folder).data.train_prompt_replies
    assert said and "mira_wet" not in str(said)


def test_a_link_out_of_a_material_is_refused(tmp_path):
    """A folder of the hub's cache is such links: copied without them, it would be empty."""
    (tmp_path / "set").mkdir()
    (tmp_path / "far.jsonl").write_text("{}")
    (tmp_path / "set" / "near.jsonl").write_text("{}")
    (tmp_path / "set" / "again.jsonl").symlink_to("near.jsonl")
    stated = RightsStatement("own-writing", "Mina Vale", "2026-11-20", "I wrote it.")
    copies = ((tmp_path / "set", "named/set"),)
    material = SourceMaterial("messages", "named/set", "set", stated, "", copies)
    copied = _copy_material(material, tmp_path / "material")
    assert (
        copied.path == "named/set"
        and (tmp_path / "material" / "named" / "set" / "again.jsonl").is_file()
    )
    (tmp_path / "set" / "far.jsonl").symlink_to(tmp_path / "far.jsonl")
    with pytest.raises(MaterialError, match=r"far\.jsonl in set .*out of the folder"):
        _copy_material(material, tmp_path / "other")


def test_a_dialogue_job_holds_its_dialogues(tmp_path):
    folder = dialogue_job(tmp_path, "embedded")
    content = read_job_inputs(folder, read_spec(folder))
    assert (
        content.persona is None and content.lore is None and len(read(folder).conversations) == 12
    )


def test_messages_may_be_in_any_format_and_what_is_broken_is_counted(tmp_path):
    folder = dialogue_job(tmp_path, "embedded")
    rows = [{"instruction": f"What is {n}?", "input": "", "output": f"{n}."} for n in range(4)]
    path = next((folder / "material").glob("talk*"))
    path.write_text(json.dumps([*rows, {"instruction": "?", "input": "", "output": ""}, 7]))
    change(folder, sha256=material_digest(path))
    content = read(folder)
    assert len(content.conversations) == 4
    assert [it.reason for it in content.rejected] == [
        "no answer",
        "a number where an object was expected",
    ]


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda f: (f / "request.json").unlink(), RequestError, "request.json cannot be read"),
        (lambda f: (f / "request.json").write_text("{"), RequestError, "not valid JSON"),
        (lambda f: (f / "request.json").write_text("{}"), RequestError, "job_id: Field required"),
        (
            lambda f: change(f, right="discord-api"),
            MaterialError,
            "ada.toml came through Discord's API",
        ),
        (lambda f: change(f, path="../request.json"), MaterialError, "leads out of its folder"),
        (lambda f: change(f, path="gone.toml"), MaterialError, "gone.toml cannot be read"),
        (
            lambda f: (f / "material" / "talk.json").write_text("{}"),
            MaterialError,
            "talk.json has changed",
        ),
        (
            lambda f: (f / "material" / "lore" / "ada" / "more.md").touch(),
            MaterialError,
            "lore has changed",
        ),
        (lambda f: change(f, kind="lore"), MaterialError, "has no card of 'ada' .cards: none."),
    ],
)
def test_what_is_wrong_with_a_job_is_said(tmp_path, spoil, error, said):
    folder = persona_job(tmp_path, "embedded")
    spoil(folder)
    with pytest.raises(error, match=said):
        read(folder)


def test_material_that_a_job_has_no_use_for_is_refused(tmp_path):
    folder = dialogue_job(tmp_path, "embedded")
    change(folder, kind="lore")
    with pytest.raises(MaterialError, match=r"dialogue job .*kind lore"):
        read(folder)


@pytest.mark.parametrize("kind", ["log", "general"])
def test_what_a_job_cannot_do_without_is_named(tmp_path, kind):
    folder = persona_job(tmp_path, "embedded")
    path = folder / "request.json"
    request = json.loads(path.read_text())
    request["materials"] = [m for m in request["materials"] if m["kind"] != kind]
    path.write_text(json.dumps(request))
    with pytest.raises(MaterialError, match=f"no material of the kind '{kind}'"):
        read(folder)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("talk.json", b"", "talk.json is empty"),
        ("talk.json", export([message("hello")]).encode(), "Ada never speaks"),
        ("ada.toml", b"id = ", "ada.toml is not valid TOML"),
        ("general.jsonl", b"{", "general.jsonl, line 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, file, content, said):
    folder = persona_job(tmp_path, "embedded")
    (folder / "material" / file).write_bytes(content)
    write_request(
        folder,
        "embedded",
        {"card": "ada.toml", "log": "talk.json", "lore": "lore", "general": "general.jsonl"},
        persona="ada",
    )
    with pytest.raises(UnderstudyError, match=said):
        read(folder)


def test_the_persona_is_who_the_request_says_and_no_option_is_named(tmp_path):
    said = [
        message(f"{n} o'clock?" if n % 2 else "It strikes.", ("Wick", "mira_wet")[n % 2], n)
        for n in range(9)
    ]
    log = export(said)
    folder = persona_job(tmp_path, "embedded", log)
    with pytest.raises(MaterialError, match=r"Ada .*talk\.json") as raised:
        read(folder)
    assert (
        "--" not in str(raised.value) and "`persona_names` in catalogue.toml" in raised.value.advice
    )
    path = folder / "request.json"
    spec = json.loads(path.read_text())
    next(item for item in spec["materials"] if item["kind"] == "log")["persona_names"] = ["Wick"]
    path.write_text(json.dumps(spec))
    assert any(m.speaker.is_persona for c in read(folder).conversations for m in c.messages)


def test_a_recipe_takes_the_requests_values_and_names_wrong_ones(tmp_path):
    spec = read_spec(persona_job(tmp_path, "embedded", hyperparameters={"learning_rate": 1e-4}))
    recipe = requested_recipe(spec.request)
    assert (recipe.learning_rate, recipe.lora_r, recipe.lora_dropout) == (1e-4, 4, 0.05)
    assert recipe.hyperparameters["learning_rate"] == 1e-4
    with pytest.raises(RequestError, match=r"'demo-gpu'.*'demo-cpu'"):
        requested_recipe(spec.request.model_copy(update={"recipe": "demo-gpu"}))


def test_every_recipe_is_complete(tmp_path):
    request = read_spec(persona_job(tmp_path, "embedded")).request
    for name in recipe_names():
        requested_recipe(request.model_copy(update={"recipe": name}))


def test_digests_tell_files_and_names_apart(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.md").write_text("text")
    before = material_digest(tmp_path / "a")
    assert described(tmp_path, "lore", "a")["sha256"] == before
    (tmp_path / "a" / "x.md").rename(tmp_path / "a" / "y.md")
    assert material_digest(tmp_path / "a") != before
    (tmp_path / "file").write_text(dialogues(1))
    assert len(material_digest(tmp_path / "file")) == 64
