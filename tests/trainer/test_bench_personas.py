"""The benchmark of personas: stopped and started again, held-out exchanges, folds, tables, blind
replies.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.personas import subjects
from benchmarks.personas.__main__ import Benchmark, make_benchmark, make_parser
from benchmarks.personas.cells import AskedReply, Cell, find_cell, read_cells
from benchmarks.personas.measuring import QUICK, mean_by_reply
from benchmarks.personas.report import blind_sheet, format_report
from personas.errors import RequestError, UnderstudyError
from personas.home.job_folder import read_spec
from personas.schemas.formatting import UNKNOWN_VALUE
from personas.schemas.scorecard import IN_CHARACTER, VOICE, Interval
from tests.trainer.lore_server import home as ada_home
from tests.trainer.lore_server import serving
from tests.trainer.scripted_teacher import reply_about
from trainer.dataset.job_inputs import questions_to_write, read_job_inputs
from trainer.dataset.synthetic import reply_backends
from trainer.evaluate.generation import evaluation_prompts, voice_classifier
from trainer.evaluate.generation.reply_tasks import ReplyValue
from trainer.evaluate.measurement_cache import CACHE_FILE
from trainer.recipe.recipe_file import load_recipe

pytestmark = pytest.mark.usefixtures("blank_charts")

SETTINGS = (
    "written_replies=12 written_drafts=1 lora_r=4 num_train_epochs=1 max_steps=2 max_length=600 "
    "heldout_share=0.25 general_share=0 card_deadline_minutes=0 lore_share=0"
).split()


class StoppedError(Exception):
    pass


def in_character(body):
    """A reply in Mizzle's style."""
    return reply_about(body, "oh... you ask of {words}. the {noun} {verb} by my {other}...")


@pytest.fixture
def quickly(tiny_base, tmp_path, monkeypatch, one_thread):
    """Options of a benchmark over a tiny model, with a few short replies."""
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)
    monkeypatch.setattr(subjects, "FOLDS", 2)
    monkeypatch.setitem(evaluation_prompts.MAX_PROMPTS_BY_TASK, evaluation_prompts.HELDOUT_TASK, 4)
    monkeypatch.setattr(voice_classifier, "MAX_CLASS_TEXTS", 20)
    monkeypatch.setenv("MAX_NEW_TOKENS", "6")
    monkeypatch.setenv("REPLY_CANDIDATES", "1")

    def options(*words):
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        places = ("--out", str(tmp_path / "runs"), "--file", str(tmp_path / "cells.json"))
        base = ("--base-model", tiny_base.source)
        return make_parser().parse_args(["--quick", *base, *places, *settings, *words])

    return options


def interrupted(benchmark, at, nth):
    """The benchmark, stopped the nth time that it reports `at`."""
    left = nth

    def report(text):
        nonlocal left
        left -= text == at
        if not left:
            raise StoppedError

    return replace(benchmark, measuring=replace(benchmark.measuring, report=report))


@pytest.mark.slow
async def test_a_stopped_benchmark_goes_on_and_trains_on_nothing_that_measures(quickly, tmp_path):
    steps = []
    async with serving(in_character) as endpoint:
        teacher = ("--teacher", endpoint.url, "--teacher-model", "t", "--teacher-licence", "MIT")
        options = quickly(*teacher)
        benchmark = make_benchmark(options)
        measuring = replace(benchmark.measuring, between=lambda: steps.append(1))
        benchmark = replace(benchmark, measuring=measuring)

        async def measure(at="", nth=1):
            bench = interrupted(benchmark, at, nth)
            return await asyncio.to_thread(bench.run, ["mizzle"], ["base", "teacher"])

        with pytest.raises(StoppedError):
            await measure("the replies are judged")
        assert steps and not options.file.exists()
        steps.clear()
        with pytest.raises(StoppedError):  # in the second cell, after its training
            await measure("general dialogue", nth=2)
        assert not steps, "what the first cell needs was generated before"
        assert [cell.way for cell in read_cells(options.file)] == ["base"]
        asked = len(endpoint.bodies)
        cells, failures = await measure()
        assert [cell.way for cell in cells] == ["base", "teacher"] and not failures
        assert [cell.teacher for cell in cells] == ["", "t"]
        assert len(endpoint.bodies) == asked, "nothing is written or trained again"
        steps.clear()
        assert (await measure())[0] == cells and not steps
    _check_held_out(benchmark, endpoint)
    _check_report(cells)
    stale = replace(cells[0], key="of other exchanges")
    options.file.write_text("{")
    with pytest.raises(RequestError, match="cannot be read"):
        read_cells(options.file)
    assert find_cell([stale], cells[0]) is None


class CountingMeter:
    """Measures nothing, and counts what it is asked for."""

    extent = QUICK

    def __init__(self):
        self.measured = []

    def measure(self, cell, subject, job, adapter):
        self.measured.append((cell.way, adapter))
        return replace(cell, general_loss=1.5)


def test_cells_are_stored_as_they_are_measured_and_a_failure_leaves_the_others(
    quickly, monkeypatch
):
    options = quickly("--personas", "mizzle", "--ways", "card", "base")
    meter = CountingMeter()
    benchmark = replace(make_benchmark(options), measuring=meter)

    def fail(self, folder):
        raise UnderstudyError("The teacher is silent.", "Ask another.")

    monkeypatch.setattr(Benchmark, "_train", fail)
    cells, (failure,) = benchmark.run(options.personas, options.ways)
    assert failure.startswith("mizzle, card: The teacher is silent.")
    assert cells == read_cells(options.file) and [cell.way for cell in cells] == ["base"]
    monkeypatch.setattr(Benchmark, "_train", lambda self, folder: (None, folder))
    monkeypatch.setattr("benchmarks.personas.__main__._run_seconds", lambda adapter: 60.0)
    cells, failures = benchmark.run(options.personas, options.ways)
    assert [way for way, _ in meter.measured] == ["base", "card"] and not failures
    assert cells == read_cells(options.file) and cells[1].training_s == 60
    other = quickly("--set", "lora_alpha=9")
    other = replace(make_benchmark(other), measuring=meter)
    other.run(["mizzle"], ["base", "card"])
    assert [way for way, _ in meter.measured] == ["base", "card"] * 2
    assert len(read_cells(options.file)) == 2, "in the place of those with other settings"


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_and_ends_as_a_whole_one(tiny_base, tmp_path):
    environment = {**os.environ, "MAX_NEW_TOKENS": "6", "REPLY_CANDIDATES": "1"}

    def command(name):
        return [
            *(sys.executable, "-m", "benchmarks.personas", "--quick", "--personas", "mizzle"),
            *("--ways", "base", "--base-model", tiny_base.source),
            *("--out", str(tmp_path / name), "--file", str(tmp_path / f"{name}.json")),
        ]

    killed = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL)
    cache = tmp_path / "killed" / "home" / CACHE_FILE
    wait_until = time.monotonic() + 120
    while not cache.exists() and time.monotonic() < wait_until:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert cache.exists() and not (tmp_path / "killed.json").exists()
    for name in ("killed", "whole"):
        done = subprocess.run(command(name), env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "| mizzle | base |" in done.stdout, done.stderr
    (resumed,), (whole,) = (read_cells(tmp_path / f"{name}.json") for name in ("killed", "whole"))
    counts = [
        {name: len(values) for name, values in cell.values.items()} for cell in (resumed, whole)
    ]
    assert counts[0] == counts[1] and resumed.key == whole.key
    assert [reply.message for reply in resumed.replies] == [
        reply.message for reply in whole.replies
    ]
    assert resumed.general_loss == pytest.approx(whole.general_loss, rel=1e-3)


def _check_held_out(benchmark, endpoint):
    """The teacher was asked nothing that measures, and the guard sees what is trained on."""
    subject = subjects.prepare_subject("mizzle", benchmark.training)
    measuring = {pair.message for pair in subject.data.heldout_prompt_replies}
    assert len({pair.talk for pair in subject.data.heldout_prompt_replies}) == 40
    measuring |= {question.text for question in subject.questions}
    said = [body["messages"][-1]["content"] for body in endpoint.bodies]
    assert said and not [text for text in said if any(text.endswith(own) for own in measuring)]
    with pytest.raises(UnderstudyError, match="replies that measure mizzle are trained on"):
        subject.require_untrained(subject.job.data)
    parts = [part for part, _ in subject.folds]
    assert len(parts) == 2 and not parts[0] & parts[1] and len(parts[0] | parts[1]) == 40
    replies = {pair.reply: pair.talk for pair in subject.data.heldout_prompt_replies}
    for part, voices in subject.folds:
        own = voices["mizzle"]
        assert {replies[text] for text in own.heldout} == part
        assert {replies[text] for text in own.trained} == (parts[0] | parts[1]) - part


def _check_report(cells):
    base, taught = cells
    assert len(base.values[VOICE]) == 4 == len(base.replies)
    assert len(base.ceiling[VOICE]) == len(set(base.ceiling[VOICE])) > 40
    assert base.general_change is None and taught.general_change and taught.training_s > 0
    text = format_report(cells)
    assert "**all" not in text
    for shown in ("*floor*", "| mizzle | base |", "| mizzle | teacher |", "*ceiling*"):
        assert shown in text
    (row,) = (line for line in text.splitlines() if line.startswith("| mizzle | base |"))
    assert UNKNOWN_VALUE not in row
    sheet, key = blind_sheet(cells)
    for reply in (*base.replies, *taught.replies):
        assert " ".join(reply.text.split()) in sheet
    assert key.count("base") == key.count("teacher") == 4


def test_no_question_like_a_held_out_one_is_asked(command, tmp_path, monkeypatch, tiny_base):
    monkeypatch.chdir(tmp_path)
    ada_home(tmp_path)
    recipe = load_recipe("card")

    def questions(*words):
        options = ("--persona", "ada.toml", "--lore", "lore", "--from-card", "1", *words)
        base = ("--base-model", tiny_base.source)
        code, out, errors = command("train", *options, *base, "--make-only")
        assert not code, errors
        folder = Path(out.strip())
        inputs = read_job_inputs(folder, read_spec(folder))
        return [drawn.text for drawn in questions_to_write(inputs, inputs.persona, [], recipe)[1]]

    drawn = questions()
    held_out = [drawn[0].upper(), f"{drawn[1]} please"]
    rows = []
    for text in held_out:
        said = [("user", text), ("assistant", "I wind it.")]
        messages = [{"role": role, "content": content} for role, content in said]
        rows.append(json.dumps({"persona": "ada", "messages": messages}))
    (tmp_path / "measure.jsonl").write_text("\n".join(rows), encoding="utf-8")
    left = questions("--held-out", "measure.jsonl", "--right", "own-writing")
    assert not {*drawn[:2]} & {*left} and len({*drawn[2:50]} - {*left}) <= 2
    code, _, errors = command(
        *("train", "--persona", "oda", "--held-out", "measure.jsonl", "--make-only")
    )
    assert code == 1 and "Add --from-card" in errors


def _cell(persona, way, hits, texts=30, change=None):
    values = []
    for number in range(texts):
        unit = f"talk {number}"
        values.append(ReplyValue(unit, "heldout", number, seed=0, value=float(number < hits)))
    return Cell(
        base_model="tiny",
        teacher="",
        persona=persona,
        way=way,
        quick=False,
        key="",
        general_loss=2.0,
        general_change=change and Interval(estimate=change, low=change, high=change),
        values={VOICE: values},
        ceiling={VOICE: values},
        floor={IN_CHARACTER: values},
        replies=tuple(AskedReply(n, 0, f"what is {n}", f"{way} {n}") for n in range(texts)),
    )


def test_differences_are_paired_and_their_mean_is_over_personas():
    cells = [
        _cell("oda", "base", 0), _cell("oda", "card", 15, change=0.02), _cell("oda", "log", 30),
        _cell("edie", "base", 15), _cell("edie", "card", 30, change=0.04),
    ]  # fmt: skip
    text = format_report(cells)
    assert "general loss has no floor or ceiling" in text
    rows = {tuple(line.split(" | ")[:2]): line for line in text.splitlines() if line[:1] == "|"}
    assert "| +50 [" in rows["| edie", "card"] and "| +100 [" in rows["| oda", "log"]
    assert "| +50 [" in rows["| **all 2**", "card"] and "+3 [" in rows["| **all 2**", "card"]
    assert ("| **all 2**", "log") not in rows and "2.000" in text and "+2.0 [+2.0" in text


def test_twenty_replies_of_each_way_are_shown_without_their_sources():
    cells = [
        _cell(persona, way, 1)
        for persona, ways in {"oda": ("base", "card", "log"), "edie": ("base", "card")}.items()
        for way in ways
    ]
    sheet, key = blind_sheet(cells)
    assert "Key" not in sheet
    shown = [line for line in sheet.splitlines() if line[1:3] == ". "]
    assert sum("log " in line for line in shown) == 20 <= sum("base " in line for line in shown)
    lines = [line for line in key.split("\n\n") if ": " in line]
    assert len(lines) == sheet.count("## ") == 30
    letters = {line.split(": ")[1].split(" ")[1].strip(",") for line in lines}
    assert len(letters) > 1, "no way is always first"


def test_the_judgements_of_all_folds_are_one_value():
    value = ReplyValue("talk 1", "pressure", 3, seed=0, value=1.0)
    other = replace(value, seed=1)
    values = [value, replace(value, value=0.0), other]
    assert mean_by_reply(values) == [replace(value, value=0.5), other]


def test_a_model_writes_for_itself_unless_another_is_to_teach(quickly, monkeypatch):
    options = quickly("--teacher", "qwen3-0.6b")
    benchmark = make_benchmark(options)
    assert benchmark.training.teacher == (
        "--teacher",
        "qwen3-0.6b",
        "--teacher-licence",
        "Apache-2.0",
    )
    monkeypatch.setenv("TEACHER", "qwen3-0.6b")
    subject = subjects.prepare_subject("mizzle", make_benchmark(quickly()).training)
    assert subject.ways == ("base", "card", "teacher")
    teachers = [read_spec(subject.make_run(way)).request.teacher for way in ("card", "teacher")]
    assert teachers[0] is None and teachers[1].model == "qwen3-0.6b"
    monkeypatch.delenv("TEACHER")
    subject = subjects.prepare_subject("mizzle", make_benchmark(quickly()).training)
    assert subject.ways == ("base", "card")
