"""A Vietnamese persona from log to reply: read, anonymised, rendered, trained, measured, asked. No
letter is lost.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from personas.card.toml_card import read_card
from personas.home.adapters import verify_adapter
from personas.home.persona_ids import match_personas
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import read_lore
from personas.lore.passages import WORLD
from personas.schemas.chat import Turn
from personas.schemas.training_events import Epoch
from tests.trainer.job_folders import dialogues, write_request
from trainer.run import run_job
from trainer.train.training_run import RunControl

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "vietnamese"
CARD = HERE / "nam-do.toml"
TALK = HERE / "talk.jsonl"
LORE = HERE / "lore"
LINES = [json.loads(line) for line in TALK.read_text(encoding="utf-8").splitlines()]
FEWER = 48
"""Lines for what is trained in a moment."""
PEOPLE = {line["author"] for line in LINES} - {"Bà Năm Đò"}
SAID = {line["text"] for line in LINES if line["author"] == "Bà Năm Đò"}


def apart(text: str) -> str:
    """The same letters with their marks as signs of their own, as macOS writes names of files."""
    return unicodedata.normalize("NFD", text)


def copied(folder: Path, change: Callable[[str], str] = str) -> Path:
    """The log, the card and the lore in another folder, changed; what lay there is written over."""
    for path in (TALK, CARD, HERE / "rights.toml", *LORE.rglob("*.md")):
        target = folder / path.relative_to(HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    return folder


def built(command, folder: Path, out: str) -> tuple[list[dict], dict]:
    """The samples of a data set that is built of a folder, and its figures."""
    words = (
        "--persona",
        folder / CARD.name,
        "--source",
        folder / TALK.name,
        "--lore",
        folder / "lore",
    )
    code, output, errors = command(
        "dataset", "build", *map(str, words), "--set", "max_length=768", "--out", out, "--json"
    )
    assert code == 0, errors
    lines = [
        line
        for name in ("train", "eval")
        for line in Path(out, f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    return list(map(json.loads, lines)), json.loads(output)


def test_the_log_is_reported_as_vietnamese_and_every_line_is_accounted_for(command):
    result = json.loads(command("dataset", "inspect", str(TALK), "--json")[1])
    assert result["rows"] == len(LINES) == 128 and result["languages"] == {"vi": 60}


def test_a_data_set_keeps_every_letter_and_no_name(command, tmp_path):
    samples, result = built(command, HERE, "out")
    texts = [message["content"] for sample in samples for message in sample["messages"]]
    replies = {sample["messages"][-1]["content"] for sample in samples}
    assert len(replies & SAID) > 0.9 * len(replies), "few words are taken for names of people"
    assert not [
        reply for reply in replies if not any(same_but_for_names(reply, said) for said in SAID)
    ]
    assert result["samples"]["train"] + result["samples"]["eval"] == len(samples) > 55
    assert unicodedata.is_normalized("NFC", "".join(texts))
    assert not [name for name in PEOPLE for text in texts if name in text]
    assert any(sample["lore"] for sample in samples)


def same_but_for_names(reply: str, said: str) -> bool:
    """Whether every word is there letter by letter, but for those in whose place a pseudonym
    stands.
    """
    pairs = list(zip(reply.split(), said.split(), strict=False))
    return len(reply.split()) == len(said.split()) and all(
        one == other or one.isascii() for one, other in pairs
    )


@pytest.mark.slow
def test_written_with_marks_apart_it_is_the_same_persona_talk_and_lore(command, tmp_path):
    one, _ = built(command, copied(tmp_path / "hers"), "one")
    other, _ = built(command, copied(tmp_path / "hers", apart), "other")
    assert one == other, "down to the pseudonyms"
    assert read_card(tmp_path / "hers" / CARD.name) == read_card(CARD)


def test_she_is_found_however_her_name_is_typed():
    card = read_card(CARD)
    for typed in ("Bà Năm Đò", apart("bà năm đò"), "BÀ NĂM ĐÒ", apart("  Bà Năm Đò "), "nam-do"):
        assert match_personas([(0, card)], typed) == [(0, card)], typed
    assert match_personas([(0, card)], "Ba Nam Do") == [], "a letter without its marks is another"


def test_a_prompt_is_the_same_tokens_and_a_reply_comes_back_letter_by_letter(renderer):
    persona = read_card(CARD)
    typed = "Bà ơi, cây cầu chừng nào xong vậy?"
    prompts = [renderer.prompt(persona, [Turn("Thảo Vy", text)]) for text in (typed, apart(typed))]
    assert prompts[0] == prompts[1] and typed in prompts[0].text
    for reply in sorted(SAID):
        sample = renderer.sample(persona, [Turn("Vy", "dạ?")], reply)
        learned = [id for id, trained in zip(sample.ids, sample.mask, strict=True) if trained]
        assert renderer.tokenizer.decode(learned[:-1]) == reply


def test_lore_is_found_with_marks_apart():
    lore = LoreIndex(read_lore(LORE, ("nam-do", WORLD)))
    found = lore.search("nam-do", apart("cây cầu khởi công lâu chưa"))
    assert "Cây cầu dở" in found[0].heading


def vietnamese_job(folder: Path, base_model: str) -> Path:
    """A job folder with her card, the beginning of her log, and her lore."""
    material = folder / "material"
    material.mkdir(parents=True)
    shutil.copy(CARD, material)
    lines = TALK.read_text(encoding="utf-8").splitlines(keepends=True)
    (material / TALK.name).write_text("".join(lines[:FEWER]), encoding="utf-8")
    shutil.copytree(LORE, material / "lore")
    (material / "general.jsonl").write_text(dialogues(3), encoding="utf-8")
    kinds = {"card": CARD.name, "log": TALK.name, "lore": "lore", "general": "general.jsonl"}
    settings = {"max_length": 768, "heldout_share": 0.2}
    return write_request(folder, base_model, kinds, persona="nam-do", hyperparameters=settings)


@pytest.mark.slow
def test_a_run_learns_her_voice_and_is_measured(tmp_path, tiny_base):
    received = []
    job = vietnamese_job(tmp_path, tiny_base.source)
    run_job(job, RunControl(received.append))
    manifest = verify_adapter(job / "adapter")
    assert manifest.metrics.loss_tuned < manifest.metrics.loss_base and manifest.persona == "nam-do"
    losses = [event.eval_loss for event in received if isinstance(event, Epoch)]
    assert losses[-1] < losses[0] and manifest.dataset["samples_train"] > 15
    people = (job / "adapter" / "people.json").read_text(encoding="utf-8")
    assert not [name for name in PEOPLE if name in people]


@pytest.mark.slow
def test_the_embedded_model_learns_to_speak_as_she_does(tmp_path):
    """From log to reply by the commands that people type; about two minutes on two cores."""
    environment = {**os.environ, "UNDERSTUDY_HOME": str(tmp_path / "home")}

    def typed(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    data = tmp_path / "data"
    run = tmp_path / "run"
    sources = ("--persona", CARD, "--source", TALK, "--lore", LORE)
    typed("-m", "trainer", "dataset", "build", *sources, "--set", "max_length=768", "--out", data)
    settings = (
        "--set",
        "max_length=768",
        "--set",
        "num_train_epochs=3",
        "--set",
        "train_samples=36",
    )
    typed(
        "-m",
        "trainer",
        "train",
        "--persona",
        CARD,
        "--dataset",
        data,
        *settings,
        "--card",
        "losses",
        "--out",
        run,
    )
    metrics = verify_adapter(run / "adapter").metrics
    assert metrics.loss_tuned < 0.9 * metrics.loss_base, metrics
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "held-out replies, this adapter" in card
    reply = typed(
        "examples/persona_chat.py",
        run / "adapter",
        CARD,
        "bà ơi, qua sông bao nhiêu tiền?",
        "--seed",
        1,
    )
    vowels = set("ăâêôơưđạảấầẩậắằặẻẽếềểệỉịọỏốồổộớờởợụủứừửựỳỵỷỹ")
    assert unicodedata.is_normalized("NFC", reply.strip()) and "�" not in reply
    assert len(vowels & set(reply.lower())) >= 3, reply
