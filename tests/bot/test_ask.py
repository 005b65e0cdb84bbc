"""`model_inference`: which version answers, two asked one question, and what it prints for people
and programs.
"""

import io
import json
import shutil
import sys
from dataclasses import replace

import pytest

from bot.cli import ask as one_question
from bot.store import Store
from personas.home.job_material import ShippedData
from tests.bot.version_rows import install
from tests.tiny_models import (
    make_adapter,
    make_dialogue_adapter,
    manifest_over,
    write_adapter,
)

ASKED = "Who keeps the lamp at night?"


@pytest.fixture
def ask(tmp_path, tiny_base, monkeypatch, capsys):
    """Runs the command in this process over a home in which Ballast has v1 (live) and v2; exit
    code, output, errors.
    """
    home = tmp_path / "home"
    for seed, version in enumerate(("v1", "v2")):
        make_adapter(home, tiny_base, "ballast", version, seed)
    with Store.open(home / "understudy.sqlite") as store:
        install(store), install(store)
        store.versions.promote("ballast", "v1", 1, 2.0)
    env = tmp_path / ".env"
    env.write_text(
        f"BASE_MODEL={json.dumps(tiny_base.source)}\nUNDERSTUDY_HOME={json.dumps(str(home))}\nTEMPERATURE=0\n"
    )
    monkeypatch.setenv("MAX_NEW_TOKENS", "8")
    monkeypatch.delenv("UNDERSTUDY_HOME", raising=False)

    def run(*words, piped=b""):
        monkeypatch.setattr(sys, "argv", ["model_inference", "--env", str(env), *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
        try:
            code = one_question.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_a_persona_is_named_by_id_or_name_and_the_question_is_piped_or_given(ask):
    given = ask("--persona", "thrip", "Good evening?")
    assert given[0] == 0 and given[1].strip(), given[2]
    assert ask("--persona", "Sir Aurelio Thrip", piped=b"Good evening?\n")[:2] == given[:2]
    another = ask("Good evening?")
    assert another[0] == 0 and another[1] != given[1]


def answers(ask, *words):
    code, out, err = ask(*words, "--json", ASKED)
    assert code == 0, err
    result = json.loads(out)
    assert result["question"] == ASKED
    return result["answers"]


def test_the_live_version_answers_unless_another_or_none_is_named(ask):
    (live,), (named,), (bare,) = (
        answers(ask, "--persona", "ballast", *words)
        for words in ((), ("--version", "v2"), ("--base-only",))
    )
    assert (live["version"], named["version"], bare["version"]) == ("v1", "v2", None)
    assert len({live["text"], named["text"], bare["text"]}) == 3 and {
        live["persona"],
        bare["persona"],
    } == {"ballast"}
    assert live["new_tokens"] <= 8 and "logprobs" not in live


def test_before_a_bot_has_run_the_shipped_adapter_answers(ask, tiny_base, tmp_path, monkeypatch):
    write_adapter(tmp_path / "ships" / "oda", tiny_base, manifest_over(tiny_base, "oda", "run"), 1)
    shipped = replace(ShippedData.from_source_tree(), adapters=tmp_path / "ships")
    monkeypatch.setattr(ShippedData, "from_source_tree", lambda: shipped)
    [before] = answers(ask, "--persona", "oda")  # in a home where a bot has run, and installed none
    assert before["version"] is None
    (tmp_path / "home" / "understudy.sqlite").unlink()
    [spoken], [bare] = (answers(ask, "--persona", "oda", *more) for more in ((), ("--base-only",)))
    assert spoken["version"] == "shipped" and bare["version"] is None
    assert spoken["text"] != bare["text"] == before["text"]
    assert answers(ask, "--persona", "thrip")[0]["version"] is None


def test_an_adapter_without_a_persona_answers_alone_and_with_any_card(ask, tmp_path, tiny_base):
    folder = make_dialogue_adapter(tmp_path / "home", tiny_base, "manners", 5)
    (alone,), (by_name,), (base,) = (
        answers(ask, *words)
        for words in (("--adapter", str(folder)), ("--adapter", "dialogue/manners"), ())
    )
    assert alone["text"] == by_name["text"] != base["text"]
    assert (alone["persona"], alone["version"], base["version"]) == (None, "v1", None)
    (card,) = answers(ask, "--adapter", str(folder), "--persona", "ballast")
    assert card["persona"] == "ballast" and card["text"] != alone["text"]
    code, out, _ = ask("--compare", "dialogue/manners", "ballast@dialogue/manners", ASKED)
    assert code == 0 and [part.split("\n")[0] for part in out.split("── ")[1:]] == [
        "dialogue/manners", "Ballast (dialogue/manners)"
    ]  # fmt: skip


def test_an_adapter_that_cannot_be_used_is_refused_before_the_model_is_loaded(
    ask, tmp_path, tiny_base
):
    folder = make_dialogue_adapter(tmp_path / "home", tiny_base, "manners", 5)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, changes, words in (
        (
            "elsewhere",
            {"base_model": "big/model", "base_model_hash": "0"},
            "Ask with BASE_MODEL=big/model.",
        ),
        ("audited", {"audit": True}, "was trained for an audit"),
        ("damaged", {"checksums": {}}, "a file that is not in its manifest"),
    ):
        other = shutil.copytree(folder, tmp_path / name)
        (other / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        code, out, err = ask("--adapter", str(other), ASKED)
        assert code == 1 and words in err and not out and len(err.splitlines()) == 1
    code, _, err = ask("--adapter", str(tmp_path / "elsewhere" / "manifest.json"), ASKED)
    assert code == 1 and "There is no adapter" in err
    code, _, err = ask("--adapter", "dialogue/none", ASKED)
    assert code == 1 and "no adapter dialogue/none" in err and "one of: dialogue/man" in err
    assert ask("--adapter", str(folder), "--version", "v1", "--persona", "oda", ASKED)[0] == 2


def test_two_are_asked_the_same_question(ask):
    code, out, err = ask("--compare", "ballast@v2", "Oda Marrow", ASKED)
    assert code == 0, err
    first, second = out.split("── ")[1:]
    assert first.startswith("Ballast (v2)\n") and second.startswith("Oda Marrow (base model)\n")
    assert first.partition("\n")[2].strip() and second.partition("\n")[2].strip()
    one, other = answers(ask, "--compare", "ballast@v2", "ballast@base")
    assert (one["version"], other["version"]) == ("v2", None)
    assert one["text"] == answers(ask, "--persona", "ballast", "--version", "v2")[0]["text"], (
        "as if it were asked alone"
    )


def test_what_cannot_be_asked_is_reported_before_a_model_is_loaded(ask, monkeypatch):
    monkeypatch.setattr(one_question, "LLMEngine", None)  # nothing gets so far
    for words, code, said in (
        (("--persona", "ballast", "--version", "v9"), 1, "no version v9. Installed: v1, v2"),
        (("--compare", "ballast", "nobody"), 1, "There is no persona 'nobody'"),
        (("--compare", "ballast", "oda", "--persona", "oda"), 2, "leave out --persona"),
        (("--version", "v1"), 2, "add --persona"),
        (("--persona", "ballast", "--version", "v1", "--base-only"), 2, "not allowed with"),
    ):
        found, out, err = ask(*words, ASKED)
        assert found == code and out == "" and said in err
    code, _, err = ask("--persona", "ballast")
    assert code == 2 and "no question" in err


def test_a_question_that_the_model_cannot_read_whole_is_shortened_and_says_so(ask):
    code, out, err = ask("--persona", "ballast", "why " * 3000)
    assert code == 0 and out.strip() and "its middle was left out" in err


def test_a_reply_of_this_machine_says_that_the_bots_servers_did_not_make_it(ask, monkeypatch):
    monkeypatch.setenv("ENGINE", "vllm")
    monkeypatch.setenv("ENGINE_URLS", "http://127.0.0.1:9")
    code, out, err = ask("--persona", "ballast", ASKED)
    assert code == 0 and out.strip(), err
    assert "ENGINE=vllm" in err and "this machine" in err
