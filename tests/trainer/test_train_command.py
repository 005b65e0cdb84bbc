"""`python -m trainer train`: a job folder of a command line's words, run, stopped, gone on with,
shown.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from personas.home.adapters import verify_adapter
from personas.home.holdout_index import HoldoutIndex, holdout_file
from personas.home.job_folder import material_digest
from personas.home.job_material import ShippedData
from personas.home.pseudonyms import HomeKey
from personas.schemas.training_events import Epoch, Evaluation, Phase, Progress, ScoreCardEvent
from tests.full_disk import files_of_at_most
from tests.samples import SCORECARD
from tests.trainer.job_folders import (
    ADA,
    dialogues,
    export,
    message,
    shipping_little,
    sign,
    stopping,
    talks,
)
from trainer.cli.progress_view import EventPrinter
from trainer.cli.train_command import _result_lines
from trainer.process.run_control import RunCancelled
from trainer.run import run_job

pytestmark = pytest.mark.usefixtures("blank_charts")

SMALL = (
    *("--set", "lora_r=4", "--set", "num_train_epochs=2", "--set", "lora_alpha=8"),
    *("--threads", "1", "--card", "losses"),
)


@pytest.fixture
def here(command, tmp_path):
    """Ada's card and a signed log of hers; `train` in this process stops before it would run."""
    Path("ada.toml").write_text(ADA, encoding="utf-8")
    Path("talk.json").write_text(export(talks(16)), encoding="utf-8")
    sign(tmp_path / "talk.json")
    return tmp_path


@pytest.fixture
def make(here, command):
    """Makes the folder of a run: its path."""

    def made(*words, fails=""):
        code, out, errors = command("train", *words, "--make-only")
        assert (code, fails in errors) == (1 if fails else 0, True), errors
        return Path(out.strip())

    return made


def request_of(folder):
    return json.loads((folder / "request.json").read_text())


# --------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("recipe", ["Nope", ""])
def test_a_recipe_that_is_not_there_is_reported_with_the_known(here, command, recipe):
    for words in (("train",), ("train", "--dry-run"), ("plan",), ("recipes",)):
        named = (recipe,) if words == ("recipes",) else ("--persona", "oda", "--recipe", recipe)
        code, _, errors = command(*words, *named)
        assert (
            code == 1
            and f"There is no recipe {recipe!r}." in errors
            and "Known: auto, card, demo-cpu" in errors
        )


def test_what_a_request_cannot_hold_is_reported_in_one_line(here, command):
    code, _, errors = command("train", "--persona", "oda", "--base-model", "x/" * 300, "--dry-run")
    assert code == 1 and "base_model: " in errors and "512 characters" in errors
    assert "\n" not in errors.strip()


def test_the_folder_holds_all_that_the_bots_would(make, tiny_base):
    folder = make(
        "--persona",
        "ada.toml",
        "--dataset",
        "talk.json",
        "--base-model",
        tiny_base.source,
        *SMALL[:6],
    )
    spec = request_of(folder)
    materials = {it["kind"]: it for it in spec["materials"]}
    assert (
        set(materials) == {"card", "log", "general", "general-training"}
        and (folder / "keys.json").exists()
    )
    for material in spec["materials"]:
        assert material["sha256"] == material_digest(folder / "material" / material["path"])
    assert (materials["log"]["right"], materials["log"]["stated_by"]) == (
        "own-writing",
        "the tests",
    )
    assert spec["request"]["persona"] == "ada" and spec["request"]["hyperparameters"]["lora_r"] == 4
    assert folder.parent == Path("home").absolute() / "runs" and folder.name.startswith(
        "ada-demo-cpu-"
    )
    assert spec["job_id"] == spec["version"] == f"run-{folder.name.rpartition('-')[2]}"
    assert not list(folder.parent.glob(".*"))


def test_the_same_words_are_the_same_run_and_others_are_another(make, tiny_base):
    words = ("--persona", "ada.toml", "--dataset", "talk.json", "--base-model", tiny_base.source)
    first = make(*words)
    assert make(*words) == first
    assert make(*words, "--set", "seed=1") != first
    Path("talk.json").write_text(export(talks(17)), encoding="utf-8")
    assert make(*words) != first
    out = make(*words, "--out", "my run")
    assert out == Path("my run").absolute() and make(*words, "--out", "my run") == out
    make(
        *words,
        "--out",
        "my run",
        "--set",
        "seed=1",
        fails="holds another run, or one with other settings",
    )


def test_commands_that_come_next_can_be_typed_as_they_stand(make):
    folder = make("--persona", "oda", "--out", "my run")
    base = "/models/my base#plain"
    options = argparse.Namespace(folder=folder, base_model=base, settings=[], only_write=False)
    result = [*_result_lines(options, 1), *_result_lines(options, 0)]
    asks = [
        shlex.split(line.partition("ask it: ")[2]) for line in result if line.startswith("ask it: ")
    ]
    assert asks == [
        [
            f"BASE_MODEL={base}",
            "model_inference",
            "--adapter",
            str(folder / "adapter"),
            "What is rope for?",
        ]
    ]
    commands = [
        shlex.split(line.partition("python -m trainer ")[2])
        for line in result
        if "python -m trainer" in line
    ]
    assert commands == [
        ["run", str(folder)],
        ["mask", str(folder)],
        ["export", "--adapter", str(folder / "adapter"), "--to", "gguf", "--out", "FILE"],
    ]


def test_a_persona_that_ships_takes_its_own_talk_and_lore(make):
    folder = make("--persona", "oda")
    spec = request_of(folder)
    kinds = ["card", "lore", "log", "general-training", "general"]
    assert [it["kind"] for it in spec["materials"]] == kinds
    assert (
        spec["materials"][2]["origin"] == "logs/oda.json"
        and spec["materials"][3]["origin"] == "general-training/dialogue.jsonl"
        and (folder / "material" / "lore" / "oda").is_dir()
    )
    assert spec["request"]["dataset"] is None and spec["request"]["dataset_path"] is None


def test_named_general_dialogue_takes_the_place_of_what_ships_to_be_trained_on(make):
    spec = request_of(make("--persona", "oda", "--general", "general-dialogue"))
    kinds = [it["kind"] for it in spec["materials"]]
    assert kinds == ["card", "lore", "log", "messages", "general"]


def test_dialogue_is_measured_on_other_dialogue_where_there_is_any(make):
    Path("chat.jsonl").write_text(dialogues(12))
    spec = request_of(make("--dialogue", "--dataset", "chat.jsonl", "--right", "licensed:CC0"))
    assert spec["request"]["task_type"] == "dialogue" and spec["request"]["persona"] is None
    first = spec["materials"][0]
    stated = (first["kind"], first["right"], first["stated_by"])
    assert stated == ("messages", "licensed:CC0", "stated on the command line")
    own = request_of(make("--dialogue", "--dataset", "general-dialogue"))
    assert [it["origin"] for it in own["materials"]] == ["dialogue.jsonl", "general/dialogue.jsonl"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Name a --persona, or --dialogue"),
        (("--dialogue",), "Name a --persona, or --dialogue"),
        (("--dialogue", "--persona", "oda"), "--dialogue trains no persona"),
        (("--persona", "odda"), "Did you mean 'oda'?"),
        (
            ("--persona", "ada.toml"),
            "no chat log of Ada to learn from. Name a --dataset",
        ),
        (("--persona", "ada.toml", "--dataset", "nowhere"), "no data set 'nowhere'"),
        (("--persona", "ada.toml", "--dataset", "other.json"), "DISCORD_PERMISSION"),
        (
            ("--persona", "ada.toml", "--dataset", "other.json", "--right", "own-writing"),
            "DISCORD_PERMISSION",
        ),
        (
            ("--persona", "ada.toml", "--dataset", "talk.json", "--set", "lora_r=0"),
            "lora_r cannot be '0'",
        ),
        (
            ("--persona", "ada.toml", "--dataset", "talk.json", "--start-from", "chat"),
            "no dialogue adapter 'chat'",
        ),
        (
            ("--persona", "oda", "--start-from", "/nope"),
            "no folder /nope",
        ),
        (
            ("--persona", "oda", "--start-from", "empty"),
            "its folder has manifest.json",
        ),
        (
            ("--persona", "oda", "--dataset", "/nope"),
            "no file or folder /nope",
        ),
        (
            ("--persona", "ada.toml", "--dataset", "talk.json", "--out", "talk.json"),
            "exists and holds no run",
        ),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_made(make, words, said):
    Path("empty").mkdir()
    bot = {"author": {**message("")["author"], "name": "Ada", "isBot": True}}
    Path("other.json").write_text(
        export([line | bot if n % 2 else line for n, line in enumerate(talks(9))])
    )
    make(*words, fails=said)
    assert not list(Path("home").glob("runs/*"))


def test_a_disk_that_is_full_while_a_folder_is_copied_is_said_and_leaves_nothing(make):
    Path("chats").mkdir()
    for name in ("one", "two"):
        Path(f"chats/{name}.jsonl").write_text(dialogues(60))
    with files_of_at_most(4096):
        make(
            "--dialogue",
            "--dataset",
            "chats",
            "--right",
            "own-writing",
            fails="The disk is full. Free some space",
        )
    assert not list(Path("home").glob("runs/*"))


DAMAGES = (
    (
        "stats.json",
        None,
        "The data set built is damaged: it has no stats.json. Build the data set again.",
    ),
    ("people.json", None, "{set} is not a complete data set: it has no people.json"),
    ("people.json", "{", "{set}/people.json cannot be read."),
    ("train.jsonl", "{", "{set}/train.jsonl, line 1 is not a sample"),
    ("heldout.bin", "x", "{set}/heldout.bin "),
)


def test_a_dry_run_names_the_damaged_data_set_where_it_lies(command, here):
    build = ("dataset", "build", "--persona", "ada.toml", "--source", "talk.json", "--out", "built")
    assert command(*build)[0] == 0
    for file, text, said in DAMAGES:
        damaged = here / "built" / file
        whole = damaged.read_bytes()
        damaged.unlink() if text is None else damaged.write_text(text)
        words = ("--persona", "ada.toml", "--dataset", "built", "--dry-run")
        code, _, errors = command("train", *words)
        assert code == 1 and said.format(set=here / "built") in errors, (file, errors)
        assert ".making-" not in errors
        damaged.write_bytes(whole)


def test_a_dry_run_is_a_plan_and_leaves_nothing(command, here, tiny_base):
    words = (
        "--persona",
        "ada.toml",
        "--dataset",
        "talk.json",
        "--base-model",
        tiny_base.source,
        "--dry-run",
    )
    code, out, errors = command("train", *words, "--json")
    result = json.loads(out)
    assert code == 0 and result["persona"] == "ada" and sum(result["samples"].values()) == 16, (
        errors
    )
    assert not list(Path("home").glob("runs/*"))


# ------------------------------------------------------------------------------------------ the run


@pytest.fixture
def train(command, tmp_path, monkeypatch):
    """Runs `train` to its end in this process: exit code, output, errors."""
    little = shipping_little(tmp_path)
    monkeypatch.setattr(ShippedData, "from_source_tree", lambda: little)
    monkeypatch.setattr("trainer.cli.train_command.configure_process", lambda nice, threads: None)
    monkeypatch.setattr("trainer.cli.train_command.claim_stdout", lambda: sys.stdout)
    monkeypatch.setattr("trainer.cli.main.cancel_on_signals", lambda stop: None)
    return lambda *words, **how: command("train", *words, **how)


def test_stopped_and_started_again_it_ends_in_an_adapter_and_says_what_comes_next(
    make, train, tiny_base
):
    words = (
        "--persona",
        "ada.toml",
        "--dataset",
        "talk.json",
        "--base-model",
        tiny_base.source,
        *SMALL,
    )
    with pytest.raises(RunCancelled):
        run_job(make(*words), stopping(1))
    code, out, errors = train(*words, program="/tools/bin/understudy-trainer")
    assert code == 0, errors
    folder = next(Path("home/runs").iterdir()).absolute()
    lines = out.splitlines()
    assert lines[0].startswith(f"{folder}: resuming from its last")
    assert lines[1].startswith(
        f"for a bot with BASE_MODEL={tiny_base.source}: bots with another base"
    )
    assert any(
        re.match(r" *\d+%  training  about .* left  step 4/4  epoch 2\.00  loss ", line)
        for line in lines
    )
    assert any(
        re.match(r"epoch 2 done in 0:\d\d, [\d.]+ samples/s: training loss .* → held-out loss ", it)
        for it in lines
    )
    assert lines[-8].startswith("Training loss ") and lines[-8].endswith(" over 2 epochs.")
    assert [line.split(" | ")[0] for line in lines[-13:-9]] == ["| epoch", "| ---", "| 1", "| 2"]
    assert (
        f"adapter: {folder / 'adapter'}" in lines
        and f"training samples: understudy-trainer mask {folder}" in lines
        and "python -m" not in out
    )
    assert "{" not in out and "Traceback" not in errors
    assert verify_adapter(folder / "adapter").persona == "ada"
    home = Path("home").absolute()
    assert len(HoldoutIndex.read(holdout_file(home, "ada"), HomeKey.of(home).people()))


def test_a_step_is_a_line_that_moves_at_a_terminal_and_one_now_and_then_elsewhere():
    steps = [progress(step) for step in (1, 2, 3)]
    terminal = Terminal()
    pipe = io.StringIO()
    for out, every_s in ((terminal, 0), (pipe, 100)):
        shown = EventPrinter(out, every_s)
        for event in (Phase(name="training", detail="9 replies"), *steps, epoch()):
            shown.write(event.model_dump_json() + "\n")
    assert (
        terminal.getvalue().count("\r\x1b[Ktraining  step ") == 3
        and terminal.getvalue().count("\n") == 2
    )
    assert pipe.getvalue().splitlines() == [
        "training  9 replies",
        "training  step 1/3  stage 1  epoch 0.33  loss 2.1000  1,034 tokens/s  1.92 GB  No "
        "checkpoint.",
        "training  step 3/3  stage 1  epoch 1.00  loss 2.1000  1,034 tokens/s  1.92 GB  No "
        "checkpoint.",
        "stage 1, epoch 1 done in 0:30, 5.2 samples/s: training loss 2.1000",
    ]
    shown.write(Evaluation(step=3, epoch=1.0, train_loss=None, eval_loss=1.5).model_dump_json())
    assert pipe.getvalue().endswith("held out loss 1.5000 after step 3\n")
    for done, words in (((1, 0.1), "0.1"), ((2, 0.25), "1.25"), ((10, 1.0), "10")):
        shown.write(
            epoch()
            .model_copy(update=dict(zip(("epoch", "share"), done, strict=True)))
            .model_dump_json()
        )
        assert f"epoch {words} done in" in pipe.getvalue().splitlines()[-1], (
            "a run may end within an epoch"
        )


def test_the_gates_word_is_shown_with_its_reasons_where_it_was_asked():
    out = io.StringIO()
    shown = EventPrinter(out)
    shown.write(ScoreCardEvent(scorecard=SCORECARD).model_dump_json())
    assert out.getvalue().count("\n") == 1 and "2.0000 now (33.3% lower)" in out.getvalue()
    judged = SCORECARD.model_copy(
        update={"verdict": "hold", "reasons": ("Few replies.",), "advice": ("Give more.",)}
    )
    shown.write(ScoreCardEvent(scorecard=judged).model_dump_json())
    assert out.getvalue().splitlines()[-3:] == [
        "the gate says: hold",
        "  Few replies.",
        "  Give more.",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress(step):
    of = {
        "tokens_per_s": 1034.2,
        "eta_s": 190.0,
        "memory_bytes": 1_920_000_000,
        "trouble": "No checkpoint.",
    }
    return Progress(step=step, of=3, epoch=step / 3, loss=2.1, lr=1e-4, stage=1, **of)


def epoch():
    return Epoch(
        epoch=1, train_loss=2.1, eval_loss=None, seconds=30.0, samples_per_s=5.2, step=3, stage=1
    )
