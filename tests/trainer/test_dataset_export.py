"""Exports: other tools' formats as their makers publish them."""

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest

from personas.errors import MaterialError, RequestError
from personas.home.rights import read_statement
from trainer.dataset.dataset_export import export_dataset

# https://platform.openai.com/docs/guides/supervised-fine-tuning: each line is an object with
# `messages`, each of them with a role and a content, at least one of them the assistant's; `name`
# and `weight` are the only other keys.
OPENAI_LINE = {
    "type": "object",
    "required": ["messages"],
    "additionalProperties": False,
    "properties": {
        "messages": {
            "type": "array",
            "minItems": 2,
            "contains": {"properties": {"role": {"const": "assistant"}}},
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "additionalProperties": False,
                "properties": {
                    "role": {"enum": ["system", "user", "assistant"]},
                    "content": {"type": "string", "minLength": 1},
                    "name": {"type": "string"},
                    "weight": {"enum": [0, 1]},
                },
            },
        }
    },
}
SAMPLES = [
    [
        ("system", "You are Ada."),
        ("user", "Guest: who?"),
        ("assistant", "Ada."),
        ("user", "Corin: 你好 👋"),
        ("assistant", "Hm."),
    ],
    [("user", "one"), ("assistant", "two")],
]


@pytest.fixture
def built(tmp_path):
    """A data set's folder, as far as an export reads it."""
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "stats.json").write_text("{}")
    lines = [
        json.dumps(
            {"messages": [{"role": role, "content": text} for role, text in sample], "tokens": 9}
        )
        for sample in SAMPLES
    ]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "eval.jsonl").write_text(lines[1] + "\n", encoding="utf-8")
    return folder


def test_openai_lines_are_valid(built, tmp_path):
    assert export_dataset(built, "openai", tmp_path / "deep" / "out.jsonl").samples == 2
    lines = (tmp_path / "deep" / "out.jsonl").read_text(encoding="utf-8").splitlines()
    validator = jsonschema_rs.validator_for(OPENAI_LINE)
    for line in lines:
        validator.validate(json.loads(line))
    assert [(m["role"], m["content"]) for m in json.loads(lines[0])["messages"]] == SAMPLES[0]
    assert (
        export_dataset(built, "openai", tmp_path / "deep" / "out.jsonl", held_out=True).samples == 1
    )


def test_sharegpt_and_alpaca(built, tmp_path):
    export_dataset(built, "sharegpt", tmp_path / "s.json")
    talks = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert [[(m["from"], m["value"]) for m in one["conversations"]] for one in talks][1] == [
        ("human", "one"),
        ("gpt", "two"),
    ]
    assert talks[0]["conversations"][0] == {"from": "system", "value": "You are Ada."}
    export_dataset(built, "alpaca", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [
        {
            "instruction": "Corin: 你好 👋", "input": "", "output": "Hm.", "system": "You are Ada.",
            "history": [["Guest: who?", "Ada."]],
        },
        {"instruction": "one", "input": "", "output": "two", "system": "", "history": []},
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["openai", "sharegpt", "alpaca"])
def test_what_is_exported_can_be_read_again(built, tmp_path, target):
    from trainer.sources.reader import read_source
    from trainer.sources.source_format import ReadOptions

    export_dataset(built, target, tmp_path / "out.json")
    again = list(read_source(tmp_path / "out.json", ReadOptions()))
    assert [c.messages[-1].text for c in again] == ["Hm.", "two"]
    assert [len(c.messages) for c in again] == [4, 2]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"messages": []}', '{"messages": [{"role": "user", "content": "x"}]}', "3"]
)
def test_damage_is_named_and_leaves_nothing(built, tmp_path, line):
    (built / "train.jsonl").write_text(line + "\n")
    with pytest.raises(MaterialError, match=r"train\.jsonl, line 1 "):
        export_dataset(built, "sharegpt", tmp_path / "out.json")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["built"]


def test_only_data_sets_can_be_exported(built, tmp_path):
    with pytest.raises(RequestError, match="contains no data set"):
        export_dataset(tmp_path, "openai", tmp_path / "out.jsonl")
    with pytest.raises(RequestError, match="is a folder"):
        export_dataset(built, "openai", tmp_path)
    (built / "train.jsonl").unlink()
    with pytest.raises(MaterialError, match="cannot be read"):
        export_dataset(built, "openai", tmp_path / "out.jsonl")


def test_a_part_of_a_data_set_is_never_written_over(built, tmp_path):
    before = {path.name: path.read_bytes() for path in built.iterdir()}
    for name in ("train.jsonl", "README.md", "new.jsonl"):
        with pytest.raises(RequestError, match="is inside a data set"):
            export_dataset(built, "openai", built / name)
    with pytest.raises(RequestError, match="is inside a data set"):
        export_dataset(built, "openai", tmp_path / "built" / ".." / "built" / "train.jsonl")
    assert before == {path.name: path.read_bytes() for path in built.iterdir()}


def test_a_files_name_decides_between_lines_and_an_array(built, tmp_path):
    for target in ("sharegpt", "alpaca"):
        export_dataset(built, target, tmp_path / "out.jsonl")
        lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
        export_dataset(built, target, tmp_path / "out.json")
        assert [json.loads(line) for line in lines] == json.loads(
            (tmp_path / "out.json").read_text(encoding="utf-8")
        )


def test_an_export_of_nothing_is_an_error(built, tmp_path):
    (built / "train.jsonl").write_text("")
    with pytest.raises(MaterialError, match=r"train\.jsonl contains no samples"):
        export_dataset(built, "openai", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def rights(folder):
    return tomllib.loads((folder / "rights.toml").read_text(encoding="utf-8"))


def labelled(built, *by_sample):
    lines = [
        json.loads(line)
        for line in (built / "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    of = [line | {"right": right} for line, right in zip(lines, by_sample, strict=True)]
    (built / "train.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in of), encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("by_sample", "right"),
    [
        (("form", "form"), "form"), (("form", "discord-api"), "discord-api"),
        (("licensed:CC0", "form"), "licensed:mixed"), (("discord-api", "licensed:CC0"), "discord-api"),
    ],
)  # fmt: skip
def test_the_right_is_stated_beside_the_file(built, tmp_path, by_sample, right):
    labelled(built, *by_sample)
    export_dataset(built, "sharegpt", tmp_path / 'o "1".json')
    stated = read_statement(tmp_path / 'o "1".json')
    assert (
        stated.right == right
        and "built" in stated.stated_by
        and all(name in stated.why for name in by_sample)
    )


def test_what_was_stated_of_other_files_stays_and_of_this_one_goes(built, tmp_path):
    labelled(built, "discord-api", "form")
    others = '# ours\n["b.json"]\nright = "form"\nstated_by = "Ada [x]"\nwhy = """\n[a]\n"""\nstated_on = 2026-01-02\n'
    false = others.replace("b.json", "a.json").replace("# ours", "").replace("[a]", "made up")
    (tmp_path / "rights.toml").write_text(false + others, encoding="utf-8")
    before = rights(tmp_path)
    export_dataset(built, "alpaca", tmp_path / "a.json")
    export_dataset(built, "alpaca", tmp_path / "a.json")
    after = rights(tmp_path)
    assert after["a.json"]["right"] == "discord-api" and after["b.json"] == before["b.json"]
    assert "# ours" in (tmp_path / "rights.toml").read_text() and set(after) == {"a.json", "b.json"}


def test_where_the_right_cannot_be_stated_nothing_is_exported(built, tmp_path):
    labelled(built, "discord-api", "form")
    (tmp_path / "rights.toml").write_text("[broken", encoding="utf-8")
    with pytest.raises(RequestError, match=r"rights\.toml"):
        export_dataset(built, "openai", tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()
