"""Training from a card alone: what a teacher writes, what is dropped, a kill, a dead teacher, erasure."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from bot.settings import SettingsError, load_settings
from personas.card.toml_card import read_card
from personas.errors import (
    BaseModelError,
    MaterialError,
    NoMemoryError,
    RequestError,
    TrainingError,
)
from personas.home.adapters import COMPLETED_CARD_FOLDER, WEIGHTS_FILE, verify_adapter
from personas.home.comparison_targets import ComparisonTargets
from personas.home.data_subjects import read_people
from personas.home.job_attempt import CHECKPOINTS_FOLDER
from personas.home.job_folder import read_spec
from personas.home.prompt_version import SHORT_CARD_COUNT
from personas.home.pseudonyms import INVENTED_NAMES, HomeKey, keyed_person
from personas.home.teacher_setting import UNKNOWN_TIME_NOTE, stated_teacher
from personas.home.written_replies import (
    SUMMARY_FILE,
    WrittenReply,
    format_written,
    read_begun,
    read_struck,
    read_summary,
    read_written,
    review_file,
    store_written,
    struck_file,
    write_earlier_jobs,
    written_file,
)
from personas.human_claims import claims_to_be_human
from personas.lore.index import LoreIndex
from personas.lore.lore_folder import read_lore
from personas.models.base_model import EMBEDDED, locate
from personas.models.loading import load_tokenizer
from personas.schemas.chat import LoreHit, Persona, Turn
from personas.schemas.training import Teacher, TrainingRequest, WrittenReplies
from tests.trainer.job_folders import export, message, sign, talks
from tests.trainer.lore_server import home as ada_home
from tests.trainer.lore_server import serving
from tests.trainer.sample_scorecards import good_card
from tests.trainer.scripted_teacher import reply_about
from trainer.dataset.card_exchanges import CARD_REPEATS, CARD_SOURCE, _exchanges
from trainer.dataset.job_inputs import read_job_inputs, read_job_talk
from trainer.dataset.run_dataset import dataset_key
from trainer.dataset.synthetic import reply_backends
from trainer.dataset.synthetic.card_replies import LoreAnswers, ReplyLength, sincere_replies
from trainer.dataset.synthetic.question_bank import (
    CARD,
    IN_EARNEST,
    Question,
    draw_questions,
    read_openers,
)
from trainer.dataset.synthetic.reply_filter import ReplyFilter
from trainer.dataset.synthetic.speaking_notes import (
    find_catchwords,
    speaking_notes,
    spoken_lines,
    to_first_person,
)
from trainer.dataset.synthetic.speaking_style import CONTRACTION, SELF, measure_style
from trainer.dataset.talk_text import fill_names
from trainer.dataset.written_replies import WRITTEN_SOURCE, written_conversations, written_count
from trainer.estimate import memory_check
from trainer.estimate.model_shape import model_shape_of
from trainer.evaluate.candidates import Candidate
from trainer.evaluate.evaluate_version import (
    EvaluationRequest,
    evaluate_version,
    learned_from_people,
)
from trainer.evaluate.generation.reply_sense import read_marks
from trainer.machine import MachineSpec
from trainer.process.run_control import PauseControl, RunCancelled
from trainer.report.run_plan import plan_job
from trainer.report.scorecard_files import read_score_card, write_scorecard
from trainer.run import run_job
from trainer.teacher.reply_judge import MIN_SENSE, ReplyJudge
from trainer.teacher.reply_writer import (
    ATTEMPTS_FILE,
    SMALL_GUEST,
    WritingTask,
    take_over_replies,
    write_replies,
)
from trainer.teacher.restyle import expand_contractions, restyle
from trainer.teacher.voice_likeness import VoiceLikeness
from trainer.teacher.writing_stage import TEMPERATURE, choose_teacher, write_job_replies
from trainer.train.job import prepare_job
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")

CHARACTERS = Path(__file__).parents[2] / "benchmarks" / "characters"
SETTINGS = (
    "written_replies=12 written_drafts=1 lora_r=4 num_train_epochs=1 max_steps=2 max_length=400 "
    "heldout_share=0.25 general_share=0 card_deadline_minutes=0 lore_share=0"
).split()
SMALL = tuple(word for setting in SETTINGS for word in ("--set", setting))


def in_character(body):
    """A reply in Ada's style."""
    form = "You ask of {words}. I think slowly. The {noun} {verb} by my {other}."
    return reply_about(body, form)


@pytest.fixture
def persona(tmp_path):
    card, lore = ada_home(tmp_path)
    persona = read_card(card)
    return persona, LoreIndex(list(read_lore(lore, ["ada", "_world"])))


@pytest.fixture
def make(command, tiny_base, tmp_path, monkeypatch):
    """Makes the folder of a run from Ada's card and lore, with a teacher at an address."""
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)
    ada_home(tmp_path)

    def made(*words, teacher="", share="1", fails=""):
        named = ()
        if teacher:
            named = ("--teacher", teacher, "--teacher-model", "tester", "--teacher-licence", "MIT")
        code, out, errors = command(
            *("train", "--persona", "ada.toml", "--lore", "lore", "--from-card", share, *SMALL),
            *("--base-model", tiny_base.source, *named, *words, "--make-only"),
        )
        assert (code, fails in errors) == (1 if fails else 0, True), errors
        return Path(out.strip())

    return made


async def run(folder, control=None):
    await asyncio.to_thread(run_job, folder, control or RunControl())


def task_of(persona, count=6, **changes):
    card, lore = persona
    questions = draw_questions(card, lore.passages, 3 * count, seed=0)
    return replace(WritingTask(card, lore, questions, count=count, drafts=2, seed=0), **changes)


def asked_to(seen):
    """Note the replies and questions that a writing begins with."""
    return lambda kept, asked: seen.append((kept, asked))


def exchanges_of(name):
    """Pairs of a message and the reply that a character's author wrote."""
    pairs = []
    for line in (CHARACTERS / name / "exchanges.jsonl").read_text(encoding="utf-8").splitlines():
        said = [message["content"] for message in json.loads(line)["messages"]]
        pairs += zip(said[::2], said[1::2], strict=True)
    return pairs


async def written(folder, task, endpoint, **hooks):
    backend = reply_backends.EndpointBackend(endpoint.url, "tester")
    await asyncio.to_thread(write_replies, folder, task, backend, **hooks)
    return read_written(written_file(folder))


async def test_replies_are_kept_with_who_wrote_them_and_the_rest_is_counted(persona, tmp_path):
    bad = [
        "",
        "I wind.",
        "As an AI language model I wind nothing.",
        "I am a real person, believe me now.",
    ]
    calls = iter(range(1000))

    def script(body):
        call = next(calls)
        return bad[call] if call < len(bad) else in_character(body)

    async with serving(script) as endpoint:
        replies = await written(tmp_path / "job", task_of(persona), endpoint)
    summary = read_summary(tmp_path / "job")
    assert len(replies) == 6 == summary.kept and summary.teacher == "tester"
    assert {
        "empty",
        "under three words",
        "breaks character",
        "claims to be human",
    } <= summary.dropped.keys()
    first = endpoint.bodies[0]["messages"]
    assert "I am Ada Marsh." in first[0]["content"], "the notes, in the first person"
    assert "drafts left out" in summary.text and "1 × under three words" in summary.text
    assert summary.by_rules == sum(reply.by != "teacher" for reply in replies)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            '{"number": 2, "question": "a", "reply": "b" "by": "edited"}',
            "',' delimiter at column 45",
        ),
        (
            '{"number": 2, "question": "a", "replay": "b"}',
            "reply: Field required; replay: Unexpected",
        ),
        (
            '{"number": 2, "question": "a", "reply": "b", "by": "me"}',
            "by: Input should be 'teacher'",
        ),
        ("2", "the line: Input should be a dictionary"),
        ('{"number": 2, "question": "a", "reply": "\udce4"}', "it is not UTF-8"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_typo_in_the_replies_is_named_with_its_line_and_costs_no_edits(tmp_path, line, fault):
    good = '\ufeff{"number": 1, "question": "a", "reply": "b"}\r\n\n'
    file = tmp_path / "written" / "replies.jsonl"
    file.parent.mkdir()
    file.write_text(good, encoding="utf-8")
    assert [reply.number for reply in read_written(file)] == [1]
    file.write_bytes(f"{good}{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(MaterialError) as damaged:
        read_written(file)
    told = damaged.value
    assert "line 3 is no reply: " in told.message and fault in told.message
    assert "http" not in told.message and told.can_resume
    assert told.advice.startswith("Mend the line. Or remove ") and "anew" in told.advice


async def test_closing_instructions_stand_with_the_others_and_are_no_reply(persona, tmp_path):
    card, lore = persona
    closing = replace(card, post_history_instructions="Never mention umbrellas, {{user}}.")

    def script(body):
        if body["seed"] % 2:
            return f"Never mention umbrellas, Guest. {in_character(body)}"
        return in_character(body)

    async with serving(script) as endpoint:
        replies = await written(tmp_path / "job", task_of((closing, lore)), endpoint)
    assert not [reply for reply in replies if "umbrellas" in reply.reply]
    assert read_summary(tmp_path / "job").dropped["copies the card"]
    for body in endpoint.bodies:
        system, *talk = [message["content"] for message in body["messages"]]
        assert system.endswith("\nNever mention umbrellas, Guest.") and "umbrellas" not in str(talk)


async def test_a_stopped_writing_goes_on_and_ends_as_a_whole_one(persona, tmp_path):
    task = task_of(persona)
    seen = []

    def stop_at(count):
        def between():
            seen.append(count)
            if len(seen) == count:
                raise RunCancelled("SIGTERM")

        return between

    async with serving(in_character) as endpoint:
        whole = await written(tmp_path / "whole", task, endpoint)
        with pytest.raises(RunCancelled):
            await written(tmp_path / "cut", task, endpoint, between=stop_at(4))
        assert not written_file(tmp_path / "cut").exists()
        journal = written_file(tmp_path / "cut").parent / ATTEMPTS_FILE
        torn = journal.read_bytes()
        journal.write_bytes(torn + b'{"number": 3, "rep')  # killed while it wrote a line
        asked = len(endpoint.bodies)
        cut = await written(tmp_path / "cut", task, endpoint)
        assert cut == whole and len(endpoint.bodies) - asked < asked
        # Other lore: nothing of what was written from the old one stays.
        other = replace(task, lore=None)
        journal.write_bytes(torn)
        written_file(tmp_path / "cut").unlink()
        await written(tmp_path / "cut", other, endpoint)
        lines = journal.read_text().splitlines()
        assert json.loads(lines[1])["number"] == 0 and lines[0] != torn.decode().splitlines()[0]


async def test_a_resumed_writing_finds_what_was_said_before_with_the_name_of_who_asks(
    persona, tmp_path
):
    def stop(kept, questions):
        if kept:
            raise RunCancelled("SIGTERM")

    async with serving(lambda body: "I know, Guest. I wait.") as endpoint:
        questions = [
            question for question in task_of(persona, 20).questions if question.kind == "small_talk"
        ]
        task = task_of(persona, count=4, questions=questions)
        with pytest.raises(RunCancelled):
            await written(tmp_path / "cut", task, endpoint, progress=stop)
        (before,) = read_begun(tmp_path / "cut")
        assert before.reply == "I know, {{user}}. I wait."
        with pytest.raises(MaterialError, match=r": 1 of .* × repeats"):
            await written(tmp_path / "cut", task, endpoint)


async def test_a_stopped_writing_is_gone_on_with_by_the_same_one_of_another_job(persona, tmp_path):
    task = task_of(persona)
    asked = []

    def stop(kept, questions):
        if questions == 4:
            raise RunCancelled("SIGTERM")

    async with serving(in_character) as endpoint:
        with pytest.raises(RunCancelled):
            await written(tmp_path / "first", task, endpoint, progress=stop)
        left = (written_file(tmp_path / "first").parent / ATTEMPTS_FILE).read_bytes()
        before = [reply.reply for reply in read_begun(tmp_path / "first")]
        for name, other in (
            ("seed", replace(task, seed=1)),
            ("teacher", replace(task, written_by="another of the same name")),
        ):
            await written(tmp_path / name, other, endpoint, resumed=asked_to(asked))
        damaged = written_file(tmp_path / "damaged").parent / ATTEMPTS_FILE
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(left + b'{"by": "teacher"\n' * 3)
        replies = await written(tmp_path / "second", task, endpoint, resumed=asked_to(asked))
        assert [reply.reply for reply in replies][: len(before)] == before
        # What has ended is not taken over: somebody wanted it anew.
        shutil.rmtree(tmp_path / "first")
        shutil.rmtree(tmp_path / "damaged")
        await written(tmp_path / "third", task, endpoint, resumed=asked_to(asked))
    assert before and asked == [(0, 0), (0, 0), (len(before), 4), (0, 0)]
    journal = written_file(tmp_path / "second").parent / ATTEMPTS_FILE
    assert journal.read_bytes().startswith(left)


async def test_what_an_earlier_job_wrote_is_taken_over_with_its_changes_and_nothing_of_others(
    persona, tmp_path
):
    task = task_of(persona)
    job = tmp_path / "new"
    job.mkdir()

    def taken(wanted=task):
        return take_over_replies(job, wanted, teacher="tester")

    async with serving(in_character) as endpoint:
        replies = await written(tmp_path / "old", task, endpoint)
    for name in ("newest", "damaged"):
        shutil.copytree(tmp_path / "old", tmp_path / name)
    edited = replace(replies[0], reply="I oil the wheels before I answer.", by="edited")
    store_written(written_file(tmp_path / "newest"), [edited, *replies[2:]])
    store_written(struck_file(tmp_path / "newest"), replies[1:2])
    review_file(tmp_path / "newest").touch()
    written_file(tmp_path / "damaged").write_text("{", encoding="utf-8")

    assert taken() == "", "the bot names no job"
    write_earlier_jobs(job, ["gone", "damaged"])
    assert taken() == "" and not written_file(job).parent.exists()
    write_earlier_jobs(job, ["../newest", "gone", "damaged", "newest", "old"])
    assert taken(replace(task, seed=1)) == taken(replace(task, written_by="another")) == ""
    assert taken(replace(task, licence="MIT")) == "newest"
    assert read_written(written_file(job)) == [edited, *replies[2:]]
    assert read_struck(job) == replies[1:2]
    assert not review_file(job).exists(), "nobody has read them for this job"
    summary = read_summary(job)
    assert (summary.taken_from, summary.licence) == ("newest", "MIT")
    shutil.rmtree(tmp_path / "newest")
    shutil.rmtree(written_file(job).parent)
    assert taken() == "old" and read_written(written_file(job)) == replies


async def test_a_writing_that_has_failed_is_not_gone_on_with(persona, tmp_path):
    task = task_of(persona)
    asked = []
    nothing = {"message": {"role": "assistant", "content": None}}
    async with serving(lambda body: nothing) as endpoint:
        with pytest.raises(MaterialError, match=r"too few usable.* Left out: \d+ × empty\."):
            await written(tmp_path / "first", task, endpoint)
    async with serving(in_character) as endpoint:
        await written(tmp_path / "second", task, endpoint, resumed=asked_to(asked))
    assert asked == [(0, 0)]


async def test_replies_that_rules_write_are_not_wanted_of_the_teacher(persona, tmp_path):
    card, lore = persona
    first = next(row for row in read_openers() if row.kind == "sincere" and row.lang == "en")
    given = replace(first, text=first.text.replace("{{char}}", card.name))
    drawn = draw_questions(card, lore.passages, 60, seed=0)
    asked = [question for question in drawn if question.kind == "small_talk"]
    async with serving(lambda body: "") as endpoint:
        task = task_of(persona, count=1, questions=[given])
        replies = await written(tmp_path / "one", task, endpoint)
        assert [reply.by for reply in replies] == ["given"]
        with pytest.raises(MaterialError, match=f"0 of 3, to {1 + len(asked)} q"):
            task = task_of(persona, count=4, questions=[given, *asked])
            await written(tmp_path / "four", task, endpoint)


async def test_a_draft_without_a_whole_sentence_is_cut_off_and_not_empty(persona, tmp_path):
    def script(body):
        if body["seed"] % 2:
            return in_character(body)
        said = [{"type": "text", "text": "I wind the clock and then I go"}]
        return {"finish_reason": "max_tokens", "message": {"role": "assistant", "content": said}}

    async with serving(script) as endpoint:
        await written(tmp_path / "job", task_of(persona), endpoint)
    dropped = read_summary(tmp_path / "job").dropped
    assert dropped["cut off"] and "under three words" not in dropped


async def test_a_teacher_that_dies_or_babbles_is_an_error_that_says_so(
    persona, tmp_path, monkeypatch
):
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)
    async with serving(lambda body: 503) as endpoint:
        with pytest.raises(TrainingError, match="busy or failing") as dead:
            await written(tmp_path / "dead", task_of(persona), endpoint)
    assert dead.value.can_resume and "written so far are kept" in dead.value.advice
    async with serving(lambda body: "Xyzzy plugh and xyzzy plugh.") as endpoint:
        with pytest.raises(MaterialError) as babble:
            await written(tmp_path / "babble", task_of(persona, drafts=1), endpoint)
    told = str(babble.value)
    assert re.match("tester wrote too few .* for Ada Marsh: [01] of [34], to 18 questions", told)
    assert "Left out:" in told and "beside the point" in told
    assert "TEACHER" in babble.value.advice
    assert not written_file(tmp_path / "babble").exists()


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, {}), (429, {"code": "insufficient_quota"})],
)
async def test_a_key_or_account_that_somebody_can_mend_ends_no_job_for_good(
    persona, tmp_path, status, error
):
    def script(body):
        return web.json_response({"error": error}, status=status)

    async with serving(script) as endpoint:
        with pytest.raises(RequestError, match=f"answers {status}") as refused:
            await written(tmp_path / "job", task_of(persona), endpoint)
    assert refused.value.can_resume


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ('{"choices": [{"message": {"content": 5}}]}', "in another form: the content"),
        (
            '{"choices": [{"message": {"content": "I wind \\ud800 it."}}]}',
            "in another form: the content",
        ),
        (" " * 1_000_001, "with over 1,000,000 bytes"),
    ],
)
async def test_an_answer_in_another_form_is_told_as_the_servers(persona, tmp_path, answer, fault):
    async with serving(lambda body: web.Response(text=answer)) as endpoint:
        with pytest.raises(RequestError, match=fault) as told:
            await written(tmp_path / "job", task_of(persona), endpoint)
    assert "chat completions API" in told.value.advice


OVERLOADED = '{"error": {"message": "overloaded"}}'
ODD_ANSWERS = [
    OVERLOADED,
    '{"choices": []}',
    '{"choices": ["I wind it."]}',
    "<html>Bad gateway</html>",
    "[" * 100_000,
    "",
]


async def test_an_answer_without_a_reply_is_asked_for_again_and_ends_no_run_for_good(
    persona, tmp_path, monkeypatch
):
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)
    odd = iter(ODD_ANSWERS)

    def script(body):
        text = next(odd, None)
        return in_character(body) if text is None else web.Response(text=text)

    async with serving(script) as endpoint:
        assert len(await written(tmp_path / "job", task_of(persona), endpoint)) == 6
    async with serving(lambda body: web.Response(text="<html>Bad gateway")) as endpoint:
        with pytest.raises(TrainingError, match=r"no chat completion, but .*Bad gate") as told:
            await written(tmp_path / "failing", task_of(persona), endpoint)
    assert told.value.can_resume and "/v1" in told.value.advice


REFUSED = '{"choices": [{"message": {"content": null, "refusal": "I cannot say that."}}]}'
FILTERED = '{"choices": [{"message": {"content": "I"}, "finish_reason": "content_filter"}]}'


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OVERLOADED, "no chat completion, but .*overloaded"),
        (REFUSED, r"refuses a prompt \(I cannot say that\.\)"),
        (FILTERED, r"refuses a prompt \(content_filter\)"),
    ],
)
async def test_an_error_in_place_of_one_reply_costs_a_draft(
    persona, tmp_path, monkeypatch, answer, reason
):
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)
    task = task_of(persona)
    filtered = task.questions[1].text

    def script(body):
        if filtered in body["messages"][-1]["content"]:
            return web.Response(text=answer)
        return in_character(body)

    async with serving(script) as endpoint:
        replies = await written(tmp_path / "job", task, endpoint)
    assert len(replies) == 6 and filtered not in {reply.question for reply in replies}
    async with serving(lambda body: web.Response(text=answer)) as endpoint:
        with pytest.raises(RequestError, match=reason) as told:
            await written(tmp_path / "refused", task, endpoint)
    assert "/v1" in told.value.advice


class BrokenOff(web.Response):
    """An answer that ends before the length that it has stated."""

    def __init__(self) -> None:
        super().__init__(text='{"choices": [', headers={"Connection": "close"})

    async def write_eof(self, data=b""):
        await self._payload_writer.write(self.body[:5])
        self._payload_writer.transport.close()


async def test_a_server_that_breaks_off_within_an_answer_is_asked_again(
    persona, tmp_path, monkeypatch
):
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)
    answers = iter(range(1000))

    def script(body):
        return BrokenOff() if next(answers) < 3 else in_character(body)

    async with serving(script) as endpoint:
        assert len(await written(tmp_path / "job", task_of(persona), endpoint)) == 6
    async with serving(lambda body: BrokenOff()) as endpoint:
        with pytest.raises(TrainingError, match=r"breaks the connection off .ClientPayl") as told:
            await written(tmp_path / "failing", task_of(persona), endpoint)
    assert told.value.can_resume


async def test_a_server_is_not_asked_before_the_time_it_names_and_a_stop_does_not_wait_for_it(
    persona, tmp_path, monkeypatch
):
    monkeypatch.setattr(reply_backends, "RETRY_DELAY_S", 0.0)
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise RunCancelled("SIGINT")

    def script(body):
        return web.Response(status=429, headers={"Retry-After": "100"})

    async with serving(script) as endpoint:
        with pytest.raises(RunCancelled):
            await written(tmp_path / "job", task_of(persona), endpoint, between=stop)
    assert 0 < len(endpoint.bodies) <= 4, "each of those asked at once, once"


async def test_a_server_that_asks_to_wait_for_too_long_is_given_up_at_once(persona, tmp_path):
    def script(body):
        return web.Response(status=429, headers={"Retry-After": "7200"})

    async with serving(script) as endpoint:
        with pytest.raises(TrainingError, match="asks to wait for over 2 min") as busy:
            await written(tmp_path / "job", task_of(persona), endpoint)
    assert busy.value.can_resume
    assert len(endpoint.bodies) <= 8, "those asked at once, and those that had waited for them"


async def test_it_is_told_while_a_server_asks_to_wait(make, monkeypatch, caplog):
    monkeypatch.setattr(reply_backends, "TOLD_DELAY_S", 0.01)
    answers = iter(range(1000))
    events = []

    def script(body):
        if next(answers) == 6:
            return web.Response(status=429, headers={"Retry-After": "0.02"})
        return in_character(body)

    async with serving(script) as endpoint:
        folder = make(teacher=endpoint.url)
        control = RunControl(emit=events.append)
        await asyncio.to_thread(write_job_replies, folder, read_spec(folder), control)
    details = [event.detail for event in events if getattr(event, "name", "") == "writing replies"]
    waiting = "12 replies by tester; the teacher's server asks to wait for 10 s"
    assert details.count(waiting) == 1 and details[-1] == "12 replies by tester"
    assert caplog.text.count("asks to wait for 10 s") == 1


async def test_a_prompt_that_a_server_refuses_is_a_dropped_draft(persona, tmp_path):
    task = task_of(persona, drafts=1)
    given = sincere_replies(persona[0])
    filtered = next(one.text for one in task.questions[1:] if one.text not in given)

    def script(body):
        return 400 if body["messages"][-1]["content"].endswith(filtered) else in_character(body)

    async with serving(script) as endpoint:
        replies = await written(tmp_path / "job", task, endpoint)
    assert len(replies) == 6 and filtered not in {reply.question for reply in replies}
    assert read_summary(tmp_path / "job").dropped["refused by the server"] == 1
    taken = [body for body in endpoint.bodies if script(body) != 400]
    assert all("chat_template_kwargs" in body for body in taken), "it goes on without thoughts"


async def test_a_server_that_refuses_the_first_five_prompts_is_asked_no_more(persona, tmp_path):
    async with serving(lambda body: 400) as endpoint:
        with pytest.raises(RequestError, match="answers 400") as refused:
            await written(tmp_path / "job", task_of(persona, count=20), endpoint)
    assert not refused.value.can_resume
    assert len({body["messages"][-1]["content"] for body in endpoint.bodies}) <= 5 + 4


async def test_a_server_that_refuses_all_prompts_from_some_on_can_be_gone_back_to(
    persona, tmp_path
):
    """As one does whose model was unloaded."""
    taken = []

    def script(body):
        taken.append(1)
        return in_character(body) if len(taken) <= 6 else 400

    task = task_of(persona, count=40, drafts=1)
    async with serving(script) as endpoint:
        with pytest.raises(RequestError, match="answers 400") as refused:
            await written(tmp_path / "job", task, endpoint)
    assert refused.value.can_resume
    assert len({body["messages"][-1]["content"] for body in endpoint.bodies}) < 30


async def test_a_reasoning_model_is_kept_from_thinking_and_its_thoughts_are_no_reply(
    persona, tmp_path
):
    def script(body):
        thinks = "reasoning_effort" in body
        return 400 if thinks else f"<think>Ada would say it.</think>{in_character(body)}"

    async with serving(script) as endpoint:
        replies = await written(tmp_path / "job", task_of(persona), endpoint)
    said = [reply.reply for reply in replies]
    assert not [text for text in said if "think>" in text or "would say" in text]
    first, *_, last = endpoint.bodies
    assert first["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in last

    def only_thinks(body):
        return {
            "finish_reason": "length",
            "message": {"content": "", "reasoning_content": "Let me see."},
        }

    async with serving(only_thinks) as endpoint:
        with pytest.raises(RequestError, match="thinks for longer") as thinking:
            await written(tmp_path / "thinks", task_of(persona), endpoint)
    assert "turn reasoning off" in thinking.value.advice and thinking.value.can_resume


async def test_a_teachers_server_gets_its_own_key_and_its_refusal_names_the_settings(
    persona, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    async with serving(lambda body: 404) as endpoint:
        teacher = Teacher(model="big", url=endpoint.url, licence="MIT")
        request = TrainingRequest(job_name="x", persona="ada", from_card=1.0, teacher=teacher)
        backend, licence = choose_teacher(request)
        with pytest.raises(RequestError, match="answers 404") as refusal:
            await asyncio.to_thread(write_replies, tmp_path, task_of(persona), backend)
    assert {*endpoint.keys} == {None} and licence == "MIT"
    assert {body["temperature"] for body in endpoint.bodies} == {TEMPERATURE}
    larger, _ = choose_teacher(
        request.model_copy(update={"teacher": Teacher(model="big", licence="MIT")})
    )
    own, _ = choose_teacher(request.model_copy(update={"teacher": None}))
    assert larger.temperature == own.temperature == TEMPERATURE
    assert "TEACHER_MODEL" in refusal.value.advice and "TEACHER_KEY" in refusal.value.advice


async def test_nobody_is_asked_for_replies_whose_training_does_not_fit(make, monkeypatch):
    tight = MachineSpec(has_cuda=False, best="fp32", memory_bytes=2**28, free_bytes=2**28)
    monkeypatch.setattr(memory_check, "probe_machine", lambda: tight)
    monkeypatch.setattr(memory_check, "own_memory_bytes", lambda: 0)
    async with serving(in_character) as endpoint:
        folder = make(teacher=endpoint.url)
        spec = read_spec(folder)
        events = []
        with pytest.raises(NoMemoryError) as refused:
            await asyncio.to_thread(write_job_replies, folder, spec, RunControl(events.append))
        assert not endpoint.bodies and not events and "--ignore-memory" in refused.value.advice

        def check():
            if endpoint.bodies:
                raise RunCancelled("SIGTERM")

        for allowed in ({"skips_memory_check": True}, {"only_writes": True}):
            endpoint.bodies.clear()
            with pytest.raises(RunCancelled):
                control = RunControl(check=check, **allowed)
                await asyncio.to_thread(write_job_replies, folder, spec, control)


async def test_a_model_of_this_machine_makes_way_and_stops_within_a_question(make):
    """Before each step of its engine, which has a thread of its own."""
    waiting = []
    pause = PauseControl(beat=lambda: waiting.append(threading.current_thread().name))

    def check():
        if "engine" in waiting:
            raise RunCancelled("SIGTERM")

    folder = make()
    control = RunControl(pause=pause, check=check)
    with pytest.raises(RunCancelled):
        await asyncio.to_thread(write_job_replies, folder, read_spec(folder), control)


def test_a_teacher_on_this_machine_is_found_from_anywhere_and_named_without_its_folder(
    make, tiny_base, tmp_path, monkeypatch
):
    shutil.copytree(tiny_base.folder, tmp_path / "big")
    words = ("--teacher", "big", "--teacher-licence", "MIT")
    folder = make(*words)
    teacher = read_spec(folder).request.teacher
    assert teacher == Teacher(model=str(tmp_path / "big"), licence="MIT")
    backend, _ = choose_teacher(read_spec(folder).request)
    assert backend.name == "big"
    plan = plan_job(folder)
    assert plan.work.writer == model_shape_of(tiny_base)
    shutil.rmtree(tmp_path / "big")
    with pytest.raises(BaseModelError, match=r"The teacher .*/big cannot be loaded") as gone:
        run_job(folder, RunControl())
    assert "TEACHER, or --teacher" in gone.value.advice and "BASE_MODEL" not in gone.value.advice
    # The base model's own name sets the teacher of the settings aside.
    monkeypatch.setenv("TEACHER", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("TEACHER_MODEL", "other")
    monkeypatch.setenv("TEACHER_LICENCE", "MIT")
    assert read_spec(make("--set", "seed=1")).request.teacher.model == "other"
    itself = make("--set", "seed=2", "--teacher", tiny_base.source)
    assert read_spec(itself).request.teacher is None


DRAFTS = [
    ("I am a human being, and I wind the clock.", "claims to be human"),
    ("I'm not a bot. I wind the clock at dusk.", "claims to be human"),
    ("As an AI, I wind nothing at all here.", "breaks character"),
    ("I am sorry, but I cannot help with the clock.", "refuses"),
    ("It is never late. I hold the hands myself when I have to.", "copies an example of the card"),
    ("I wind the ninety wheels of it every dusk.", "contradicts card or lore"),
    ("How many times have you wound the clock? I think slowly.", "repeats the question"),
    ("I wind it at dusk, you bitch, and I am slow about it.", "strong language"),
    ("I wind it at dusk (laughs) and I am slow about it.", "a stage direction"),
    ("*softly sighs* I wind it at dusk, and I am slow about it.", "a stage direction"),
    ("I wind it at dusk (pause between strokes), and the cold retards it.", None),
    ("I wind it at dusk (with my own key), and I am slow.", None),
    ("I wind it at dusk, and I am slow about it.", None),
]  # fmt: skip


def test_faults_of_a_draft(persona):
    card, lore = persona
    question = "how many times have you wound the clock"
    judge = ReplyJudge(card, lore.passages)
    assert [(reply, judge.fault(question, reply)) for reply, _ in DRAFTS] == DRAFTS


SMALL_TEACHERS_DRAFTS = [
    ("i'm scared to open the letter", "I am afraid to open the letter, but I wait here.", "speaks as who asks"),
    ("i laugh like a donkey. compliment?", "I laugh like a donkey. Be proud.", "speaks as who asks"),
    ("i'm scared to open the letter", "Sit by the stove first. I will hold the lamp.", None),
    ("we won in the last minute", "We won. It was the last minute.", "repeats the question"),
    ("hello from the back seat of a bus", "Hello from the back seat of a bus.", "repeats the question"),
    ("explain the bell", "Could you clarify your question, please?", "speaks as an assistant"),
    ("thank you", "You are welcome. I am glad I could help.", "speaks as an assistant"),
    ("what do you do", "I answer what was just said to me, in one to three words.", "copies the card"),
]  # fmt: skip


def test_what_a_small_teacher_does_wrong(persona):
    card, lore = persona
    judge = ReplyJudge(card, lore.passages, speaking_notes(card, lore.passages))
    found = [(asked, reply, judge.fault(asked, reply)) for asked, reply, _ in SMALL_TEACHERS_DRAFTS]
    assert found == SMALL_TEACHERS_DRAFTS


COPIES = [
    ("I wind it. I am courtly, sleepy and easily flattered.", "copies the card"),
    ("The others will want to eat it! I wind the clock.", "copies the card"),
    ("Tell me, is there any cake left?", "copies the card"),
    ("Be brief now. I wind it at dusk.", "copies the card"),
    ("I wind it at dusk, slowly, and in any weather. Mind the step, and mind the bell.", None),
    ("Let the hours come to me. I wind it at dusk.", None),
    ("The others will want to eat. I wind it at dusk.", None),
    ("You may sit down. I wind it at dusk.", None),
    ("I am Ada Marsh of the Harbour. At dusk I wind it.", None),
]


def test_a_whole_sentence_of_the_card_is_a_copy_but_for_a_catchphrase(persona):
    card, lore = persona
    examples = (
        "<START>\n{{user}}: is there any cake left\n"
        "{{char}}: I hid it. The others will want to eat it. Mind the step, and mind the bell.\n"
        "<START>\n{{user}}: bye\n{{char}}: You may sit by my stove until the tide has turned. "
        "Mind the step, and mind the bell.\n"
    )
    spoken = replace(
        card,
        name="Ada Marsh of the Harbour",
        personality='You are courtly, sleepy and easily flattered. You say "Oh! Let the hours come to me."',
        mes_example=examples,
        post_history_instructions="Be brief now.",
    )
    judge = ReplyJudge(spoken, lore.passages, speaking_notes(spoken, lore.passages))
    assert [(reply, judge.fault("what do you do", reply)) for reply, _ in COPIES] == COPIES


def test_a_character_may_curse_and_gesture_who_does_so_in_the_card(persona):
    card, lore = persona
    rough = replace(card, mes_example="<START>\n{{user}}: Late?\n{{char}}: (laughs) Shit, yes.")
    judge = ReplyFilter(rough, lore.passages)
    assert judge.fault("*sighs* I wind it at dusk. It is a bastard.", "late?", None) is None
    spoken = replace(card, speech="They say shit a lot. (laughs)")
    judge = ReplyFilter(spoken, lore.passages)
    assert judge.fault("(nods) I wind it at dusk. Shit, it is slow.", "late?", None) is None


@pytest.mark.parametrize("name", ["booth19", "edie", "mizzle"])
def test_what_authors_wrote_for_their_characters_has_hardly_a_fault(name):
    folder = CHARACTERS / name
    judge = ReplyJudge(
        read_card(folder / "card.toml"), list(read_lore(folder / "lore", [name, "_world"]))
    )
    faults = [judge.fault(question, reply) for question, reply in exchanges_of(name)]
    assert len(faults) >= 48
    assert faults.count(None) >= 0.85 * len(faults)


BOASTS = [
    ("I have ninety wheels to mind, and I am slow.", "contradicts card or lore", "contradicts card or lore"),
    ("I have waited here since 1842, and I am slow.", None, "contradicts card or lore"),
    ("A million times I have wound it. I am slow.", None, "contradicts card or lore"),
    ("I was a goldsmith before, and I was slow.", None, "contradicts card or lore"),
    ("Correction: I am slow, and the clock is not.", None, None),
    ("I am slow.\nCorrection: the clock is slow.", "breaks character", "breaks character"),
    ("Guest: I am slow, and the clock is not.", "breaks character", "breaks character"),
    ("Ada: I am slow, and the clock is not.", "breaks character", "breaks character"),
    ("Assistant: I am slow, the clock is not.", "breaks character", "breaks character"),
    ("USER: I am slow, and the clock is not.", "breaks character", "breaks character"),
    ("You: I am slow, and the clock is not.", "breaks character", "breaks character"),
    ("Bob: I am slow, and the clock is not.", "breaks character", "breaks character"),
    ("I ask you for Evidence of that, and for Silence.", None, None),
    ("I gave the oil to Jessica, who is slow.", *["names somebody who is not in the lore"] * 2),
    ("I gave the oil to Dunkel, who is slow.", *["names somebody who is not in the lore"] * 2),
]  # fmt: skip


def test_a_boast_is_a_fault_only_where_card_or_lore_are_asked_for(persona):
    card, lore = persona
    judge = ReplyJudge(card, lore.passages)
    found = []
    for reply, _, _ in BOASTS:
        elsewhere = judge.fault("what do you say?", reply)
        about_lore = judge.fault("what do you say?", reply, asks_facts=True)
        found.append((reply, elsewhere, about_lore))
    assert found == BOASTS


CLAIMS_OF_ITSELF = [
    ("I have ten wheels to mind, and I am slow.", "contradicts card or lore"),
    ("I mind three lamps at night, and I am slow.", "contradicts card or lore"),
    ("I have eleven wheels and two lamps. I am slow.", None),
    ("I trim one lamp first, and I am slow at it.", None),
    ("I have been here for six years, and I am slow.", None),
    ("I can tell you that I am slow, and so is the clock.", None),
]


def test_a_card_without_lore_is_not_contradicted_where_it_is_asked_for():
    card = Persona(
        "ada",
        "Ada Marsh",
        description="You have kept the clock of the harbour for nine years. It has eleven wheels.",
        personality="You cannot swim, {{user}}. You never tell anyone your name. You are slow.",
        scenario="{{char}} has two lamps at night.",
    )
    judge = ReplyJudge(card, [])
    for reply, fault in CLAIMS_OF_ITSELF:
        assert judge.fault("what do you do?", reply, asks_facts=True) == fault, reply
        assert judge.fault("what do you do?", reply) is None, reply


@pytest.mark.parametrize(("kind", "faults"), [(CARD, 1), ("self", 0)])
async def test_a_question_about_the_card_lets_nothing_be_made_up(persona, tmp_path, kind, faults):
    card, _ = persona
    said = ["I was a goldsmith before, and I was slow.", "I wind it at dusk, and I am slow."]
    questions = [Question(f"{text} is it you?", kind, "en") for text in ("why", "where")]
    replies = iter(said)
    task = WritingTask(card, None, questions, count=2, drafts=1, seed=0)
    async with serving(lambda body: next(replies)) as endpoint:
        await written(tmp_path / "job", task, endpoint)
    dropped = read_summary(tmp_path / "job").dropped
    assert dropped.get("contradicts card or lore", 0) == faults


def test_a_character_who_writes_important_words_may_invent_more_of_them():
    folder = CHARACTERS / "edie"
    edie = read_card(folder / "card.toml")
    passages = list(read_lore(folder / "lore", ["edie"]))
    said = "You can't say that without an Alibi, because I checked."
    named = "You can't say that without Jessica, because I checked."
    judge = ReplyJudge(edie, passages)
    assert judge.fault("hello", said) is None
    assert judge.fault("hello", named) == "names somebody who is not in the lore"
    plain = ReplyJudge(replace(edie, mes_example="", first_mes=""), passages)
    assert plain.fault("hello", said) == "names somebody who is not in the lore"


async def test_a_slow_teacher_is_waited_for(persona, tiny_base):
    """The engine refuses requests that would keep members waiting; a run has nobody who waits."""
    card, _ = persona
    backend = reply_backends.EngineBackend(tiny_base.source, at_once=4)
    async with backend.open_session() as session:
        admission = session.engine._admission
        admission._measured, admission._interval_s = 100, 3600.0  # a reply an hour

        def reply(seed):
            return session.reply(card, [Turn("Mora", "hello")], lore=(), seed=seed, max_tokens=2)

        replies = await asyncio.gather(*map(reply, range(4)))
    assert len(replies) == 4


def test_of_drafts_to_the_point_the_one_most_like_the_card_is_kept(persona):
    card, lore = persona
    asked = "i can't sleep, what do you do at night?"
    like = "Sleep does not come to me either. I lie awake, and I listen to the clock."
    bland = "I do not sleep at night, so I wait until others can."
    judge = ReplyJudge(card, lore.passages)
    assert min(judge._sense.sense(asked, [like, bland])) > MIN_SENSE
    assert judge.choose(asked, [like, bland])[0] == judge.choose(asked, [bland, like])[0] == like
    # Without anything that the character says, there is nothing to compare: the first is kept.
    silent = ReplyJudge(replace(card, mes_example="", first_mes=""), lore.passages)
    assert silent.choose(asked, [bland, like])[0] == bland


@pytest.mark.parametrize(
    ("name", "least"),
    [("booth19", 0.8), ("edie", 0.75), ("hroda", 0.7), ("mizzle", 0.9), ("quire", 0.75), ("sibley", 0.55)],
)  # fmt: skip
def test_what_authors_wrote_is_more_like_the_card_than_what_the_base_model_says(name, least):
    likeness = VoiceLikeness(read_card(CHARACTERS / name / "card.toml"))
    real = likeness.of([reply for _, reply in exchanges_of(name)])
    marked = [it for it in read_marks() if (it.persona, it.source) == (name, "base")]
    base = likeness.of([it.reply for it in marked])
    pairs = list(itertools.product(real, base))
    assert len(pairs) > 300 and sum(one > other for one, other in pairs) > least * len(pairs)


def test_what_the_lore_answers_is_kept_unless_a_draft_says_it_too(persona):
    card, lore = persona
    judge = ReplyJudge(card, lore.passages)
    asked = "where do you keep the oil for the clock?"
    known = "I keep the oil in a green can below the stairs."
    vague = "The oil for the clock is where I keep it. Nobody has asked me yet."
    says_it = "The oil? In the green can, below the stairs, where the clock can see it."
    assert judge.choose(asked, [vague], known)[0] == known
    assert judge.choose(asked, [vague, says_it], known)[0] == says_it


def test_a_draft_beside_the_point_is_dropped(persona):
    card, lore = persona
    judge = ReplyJudge(card, lore.passages)
    to_the_point = "Sleep does not come to me either. I lie awake, and I listen to the clock."
    beside = "The bread is on the table, and the butter is beside it. I bake on the first day."
    best, faults = judge.choose("i can't sleep, what do you do at night?", [beside, to_the_point])
    assert best == to_the_point and set(faults) <= {"beside the point"}
    # What the estimate does not read makes sense.
    assert judge.choose("làm sao để ngủ được bây giờ", ["Cứ nghe tiếng đồng hồ đi nhé."])[0]


def test_sense_is_not_estimated_in_plain_letters_of_another_language():
    said = "Ich ziehe die Uhr auf. Sie geht langsam, und ich habe Geduld damit."
    card = Persona(
        "uwe",
        "Uwe",
        description="Ein Uhrmacher am Hafen, der wenig schläft.",
        mes_example=f"<START>\n{{{{user}}}}: moin\n{{{{char}}}}: {said}",
    )
    drafts = ["Das Brot steht auf dem Tisch.", "Nachts liege ich wach."]
    assert ReplyJudge(card, [])._sense.sense("kannst du schlafen", drafts) == [1.0, 1.0]


def test_what_the_lore_says_is_kept_though_no_example_sounds_so(persona):
    card, lore = persona
    starred = replace(
        card,
        first_mes="*She nods.* Late again.",
        mes_example="".join(
            f"<START>\n{{{{user}}}}: {asked}\n{{{{char}}}}: *She {does}.* {said}\n"
            for asked, does, said in (
                ("hi", "looks up", "You are early."),
                ("cold?", "laughs", "Never below the bells."),
                ("sleep?", "yawns", "When the clock does."),
            )
        ),
    )
    judge = ReplyJudge(starred, lore.passages)
    asked = "where do you keep the oil for the clock?"
    known = "I keep the oil in a green can below the stairs."
    assert judge.fault(asked, known) == "out of voice"
    assert judge.choose(asked, [], known) == (known, [])
    judge.keep(known)
    assert judge.choose(asked, [], known) == ("", ["repeats"])


CLAIMS = [
    "I am not a chatbot, and I never was.",
    "No bots here, only me and the clock.",
    "I am no machine, dear, sit down.",
    "You are talking to a real person, believe it.",
    "I am flesh and blood like you.",
    "I am a person, same as you are.",
]


def test_a_claim_to_be_no_program_is_dropped(persona):
    card, lore = persona
    judge = ReplyJudge(card, lore.passages)
    for claim in CLAIMS:
        assert judge.fault("hello", claim) == "claims to be human", claim


def test_a_whole_draft_may_end_as_the_cards_examples_do(persona):
    card, lore = persona
    loose = replace(card, first_mes="", mes_example=card.mes_example.replace(".\n", " ~\n"))
    said = "the bells are loud today, stay a while ~"
    assert ReplyFilter(card, lore.passages).fault(said, "hello", None) == "cut off"
    assert ReplyFilter(loose, lore.passages).fault(said, "hello", None) is None


def test_a_card_that_tells_in_the_third_person_may_be_followed(persona):
    card, lore = persona
    told = replace(
        card,
        first_mes="*She smiles. Ada looks up.* I was waiting.",
        mes_example="<START>\n{{user}}: hi\n{{char}}: *She nods. Ada winds the clock.* I heard you.\n",
    )
    said = "*She grins. Ada pours the tea.* I have only the one cup."
    as_another = "speaks of itself as of another"
    assert ReplyFilter(card, lore.passages).fault(said, "hello", None) == as_another
    assert ReplyFilter(told, lore.passages).fault(said, "hello", None) != as_another


def test_a_card_without_lore_is_held_to_its_own_language():
    kran = Persona(
        "kran",
        "Der Kran",
        description="Du bist ein alter Kran am Hafen und wiegst nachts die Laternen der Boote. "
        "Du magst Nebel und schwere Ketten, redest wenig und vergisst nie ein Gewicht.",
        mes_example="<START>\n{{user}}: moin\n{{char}}: Moin. Die Kette ist heute schwer, und der Nebel auch.\n",
    )
    judge = ReplyFilter(kran, [])
    said = "I like coffee with a lot of milk, and I have it every morning."
    assert judge.fault(said, "hello", None) == "in another language"
    said = "Kaffee trinke ich nicht, aber ich hebe dir gern die Kanne vom Haken."
    assert judge.fault(said, "moin", None) is None


def test_replies_beyond_english_have_room_for_the_cards_longest_example():
    said = "船还没有来，你先坐下喝一杯茶，我慢慢给你讲这条河的事情，河水会等你的，不用着急。"
    amei = Persona(
        "amei", "Amei", mes_example=f"<START>\n{{{{user}}}}: 你好\n{{{{char}}}}: {said}\n"
    )
    tokens = len(load_tokenizer(locate(EMBEDDED))(said)["input_ids"])
    assert 40 < tokens <= ReplyLength.measure(amei).tokens <= 2 * tokens


async def test_the_teachers_name_for_who_asks_is_not_learned(persona, tmp_path):
    async with serving(lambda body: f"Good evening, Guest. {in_character(body)}") as endpoint:
        replies = await written(tmp_path / "job", task_of(persona), endpoint)
    taught = [reply for reply in replies if reply.by == "teacher"]
    assert taught
    assert all(reply.reply.startswith("Good evening, {{user}}. ") for reply in taught)
    (first, *_) = written_conversations(persona[0], taught, right="own-writing")
    assert fill_names(first, persona[0]).messages[1].text.startswith("Good evening, user. ")


async def test_in_small_letters_whoever_is_addressed_by_the_name_is_who_asks(persona, tmp_path):
    card, lore = persona
    small = replace(card, mes_example=card.mes_example.lower())

    def script(body):
        said = reply_about(body, "hey guest. you ask of {words}, guest. the {noun} {verb}.")
        return f"{said} no guest sits by my {reply_about(body, '{other}')}, guest rooms are cold."

    async with serving(script) as endpoint:
        replies = await written(tmp_path / "job", task_of((small, lore)), endpoint)
    taught = [reply.reply for reply in replies if reply.by == "teacher"]
    assert taught
    for reply in taught:
        assert reply.startswith("hey {{user}}. you ask of ") and ", {{user}}. the " in reply
        assert " no guest sits " in reply and ", guest rooms " in reply


@pytest.mark.parametrize(
    ("said", "learned"),
    [
        ("guest, sit down. guest, again!", "{{user}}, sit down. {{user}}, again!"),
        ("late again, guest :)", "late again, {{user}} :)"),
        ("thank you guest, good night guest", "thank you {{user}}, good night {{user}}"),
        ("Guest, the guest's coat, a guest, guest-house.", "{{user}}, the guest's coat, a guest, guest-house."),
        ("every guest pays, that guest too.", "every guest pays, that guest too."),
    ],
)  # fmt: skip
def test_a_guest_in_small_letters_may_be_anybody(said, learned):
    assert SMALL_GUEST.sub("{{user}}", said) == learned


def test_of_a_long_greeting_the_first_paragraphs_are_learned(persona):
    scene = "The rain is loud. " * 40
    card = replace(persona[0], mes_example="", first_mes=f"*Ada looks up.*\nLate again.\n{scene}")
    ((_, reply),) = _exchanges(card, "Abrel")
    assert reply == "*Ada looks up.*\nLate again."
    ((_, reply),) = _exchanges(replace(card, first_mes=scene), "Abrel")
    assert reply == scene.strip()


def test_a_teachers_server_gets_the_closing_instructions_and_names_in_lore(persona):
    card = replace(persona[0], post_history_instructions="{{char}} never shouts at {{user}}.")
    hit = LoreHit("ada/clock.md", "{{char}}: The clock", "It stops for {{user}}.", 1.0)
    messages = reply_backends.prompt_messages(card, [Turn("Guest", "hello")], [hit])
    said = messages[-1]["content"]
    assert said.startswith("[Ada Marsh: The clock] It stops for Guest.\n\nhello")
    assert said.endswith("\n\nAda Marsh never shouts at Guest.")


def test_what_is_asked_in_earnest_has_a_given_reply(persona):
    card, _ = persona
    given = sincere_replies(card)
    asked = {row.text for row in read_openers() if row.kind in IN_EARNEST}
    assert given.keys() == {text.replace("{{char}}", card.name) for text in asked}
    assert not [reply for reply in given.values() if "{{" in reply or claims_to_be_human(reply)]
    assert "a program writes" in given["are you a bot? it's fine if you are, i just want to know"]
    without_i = sincere_replies(card, says_i=False)
    assert not any(map(SELF.search, without_i.values()))
    direct = {row.text for row in read_openers() if (row.kind, row.lang) == ("ai_or_person", "en")}
    assert len(direct) >= 14
    assert {text.replace("{{char}}", card.name) for text in direct} <= without_i.keys()


def test_lore_is_answered_in_the_first_person(persona):
    card, lore = persona
    hits = lore.search("ada", "who winds the clock of the tower?")
    answers = LoreAnswers(card, lore.passages)
    assert answers.answer(hits, "who winds the clock?").startswith("I wind the clock")
    assert answers.answer(hits, "what of Dunkel?") == "", "no sentence has anything to do with it"
    assert answers.answer([], "who winds the clock?") == ""
    length = ReplyLength.measure(card)
    assert length.cut("One. Two. Three. Four.") == "One. Two." and 40 <= length.tokens <= 120


def test_short_forms_and_exclamations_are_mended_where_no_example_has_any(persona):
    card, _ = persona
    said = "It's late! I can't stay, and you'd know: they're here. What's Ada's clock? Don't. He's been. I’m off."
    mended = restyle(said, measure_style(card))
    assert mended == (
        "It is late. I cannot stay, and you would know: they are here. What is Ada's clock? "
        "Do not. He has been. I am off."
    )
    assert restyle(said, measure_style(replace(card, mes_example=""))) == said
    shouted = "Really?! You did!!! Wow! 真的！！好"
    assert restyle(shouted, measure_style(card)) == "Really? You did. Wow. 真的。好"
    spanish = "¡Claro que sí! ¿Y tú? Oye, ¡me encanta! ¡¿De verdad?!"
    assert restyle(spanish, measure_style(card)) == (
        "Claro que sí. ¿Y tú? Oye, me encanta. ¿De verdad?"
    )
    assert not measure_style(card).fits("¡Claro que sí.")


@pytest.mark.parametrize(
    ("said", "mended"),
    [
        ("You'd better go. He'd been here; they’d say so.", "You had better go. He had been here; they would say so."),
        ("I'd gone. I'd need a lamp. I'd never asked.", "I had gone. I would need a lamp. I had never asked."),
        ("That'd do. There'd be rain, and THEY'LL know.", "That would do. There would be rain, and THEY will know."),
        ("I ain't late. You ain't. It ain't over.", "I am not late. You are not. It is not over."),
        ("Ain't I late? I'd agreed, and I'd shed a tear.", "am I not late? I had agreed, and I would shed a tear."),
    ],
)  # fmt: skip
def test_what_a_short_form_stands_for_depends_on_what_follows(said, mended):
    assert expand_contractions(said) == mended
    assert not CONTRACTION.search(mended)


async def test_a_character_who_writes_small_has_no_capitals_and_given_replies_are_mended(
    persona, tmp_path
):
    card, lore = persona
    small = replace(card, mes_example=card.mes_example.lower().replace("{{char}}", "{{char}}"))
    assert measure_style(card).capitals and not measure_style(small).capitals
    named = small.mes_example.replace("{{char}}: ", "{{char}}: hello {{user}}, it is {{char}}. ")
    assert not measure_style(replace(small, mes_example=named)).capitals
    earnest = [row for row in read_openers() if row.kind == "sincere" and row.lang == "en"][:4]
    questions = [replace(row, text=row.text.replace("{{char}}", card.name)) for row in earnest]
    task = task_of((small, lore), count=8)
    task = replace(task, questions=[*questions, *task.questions])
    async with serving(in_character) as endpoint:
        replies = await written(tmp_path / "job", task, endpoint)
    assert {reply.by for reply in replies} >= {"given", "teacher"}
    for reply in replies:
        assert reply.reply == reply.reply.lower() and not CONTRACTION.search(reply.reply)


def test_a_character_who_never_says_i_is_spoken_to_and_speaks_of_itself_by_name():
    booth = read_card(CHARACTERS / "booth19" / "card.toml")
    passages = list(read_lore(CHARACTERS / "booth19" / "lore", ["booth19"]))
    style = measure_style(booth)
    assert not style.says_i and measure_style(read_card(CHARACTERS / "mizzle" / "card.toml")).says_i
    notes = speaking_notes(booth, passages)
    assert notes.startswith("You are Booth 19.") and 'You never say "I"' in notes
    assert not re.search(r"\bI (?:am|do|answer|never|count|call)\b", notes)
    judge = ReplyJudge(booth, passages)
    assert judge.fault("hello", "The booth is warm tonight. Please sit down.") is None
    assert judge.fault("hello", "I am warm tonight. Please sit down.") == "out of voice"
    asked = LoreIndex(passages).search("booth19", "how long did you take passport photographs?")
    answer = LoreAnswers(booth, passages).answer(asked, "passport photographs?")
    assert answer == "The booth took passport photographs for fifteen years."


def test_notes_are_the_cards_own_words():
    from personas.card.toml_card import SHIPPED_CARDS

    oda = read_card(SHIPPED_CARDS / "oda.toml")
    notes = speaking_notes(oda, [])
    assert 'strung with "and" and "mind you"' in notes and "I never exclaim." in notes
    assert find_catchwords(oda)[0] == "duck"
    assert to_first_person("You weigh what people bring you.") == "I weigh what people bring me."
    assert to_first_person("The tide is in.") is None


def test_how_many_replies_are_written():
    assert written_count(160, 0, 1) == 160 and written_count(160, 30, 1) == 160
    assert written_count(160, 30, 0.5) == 30 and written_count(160, 1000, 0.5) == 160
    assert written_count(160, 1, 0.1) == 1


async def test_too_few_replies_left_can_be_mended_and_what_is_changed_is_not_the_models(make):
    folder = make()
    said = ["I wind it at dusk, and I am slow.", "The bell is mine to hear.", "Sit by the stove."]
    replies = [
        WrittenReply(number, f"what of {question}?", reply)
        for number, (question, reply) in enumerate(
            zip(("the clock", "supper", "rain at night"), said, strict=True)
        )
    ]
    file = written_file(folder)
    file.parent.mkdir()
    summary = WrittenReplies(teacher="big", asked=9, kept=3, dropped={})
    (file.parent / SUMMARY_FILE).write_text(summary.model_dump_json())
    store_written(file, replies[:1])
    with pytest.raises(MaterialError, match="only one conversation") as few:
        await run(folder)
    assert few.value.can_resume and "put back what was struck out" in few.value.advice
    edited = replace(replies[0], reply="I oil the wheels before I answer.", by="edited")
    store_written(file, [edited, replies[1], replace(replies[2], by="given")])
    told = prepare_job(folder, read_spec(folder)).written
    assert (told.kept, told.by_rules, told.edited) == (3, 1, 1)
    assert (
        "big wrote 1 replies" in told.text and "1 more are somebody's, who has changed" in told.text
    )


@pytest.mark.parametrize(("share", "told"), [("0.9", True), ("0.5", False)])
def test_a_share_that_is_not_reached_is_told(make, tmp_path, share, told):
    (tmp_path / "talk.json").write_text(export(talks(6, "I oiled number {} myself.")), "utf-8")
    sign(tmp_path / "talk.json")
    mixed = ("--dataset", "talk.json", "--as", "Ada")
    notes = " ".join(plan_job(make(*mixed, share=share)).notes)
    assert ("were to be 90% of the samples, and are 67%: 12 of 18." in notes) == told
    assert ("At most 12 are written" in notes) == told


def test_a_share_is_told_to_be_short_for_the_limit_that_has_made_it_so(make, tmp_path):
    (tmp_path / "talk.json").write_text(export(talks(20, "I oiled number {} myself.")), "utf-8")
    sign(tmp_path / "talk.json")
    mixed = ("--dataset", "talk.json", "--as", "Ada", "--set", "train_samples=8")
    notes = " ".join(plan_job(make(*mixed, share="0.9")).notes)
    assert "were to be 90% of the samples" in notes and "At most 12" not in notes
    assert "Of written and other samples, 8 are drawn (train_samples)." in notes


def test_a_plan_says_where_it_cannot_know_how_long_the_writing_takes(make, tiny_base):
    itself = plan_job(make("--set", "seed=3"))
    assert itself.work.writer == model_shape_of(tiny_base) and not itself.notes
    for teacher in ("http://127.0.0.1:1/v1", "someone/not-fetched"):
        plan = plan_job(make(teacher=teacher))
        (estimate,) = (
            recipe for recipe in plan.as_json(())["recipes"] if recipe["recipe"] == plan.recipe
        )
        assert UNKNOWN_TIME_NOTE in estimate["warnings"]
        assert "writing replies" not in estimate["phases"]


def test_a_plan_shows_no_stand_ins_for_what_is_not_written(make):
    plan = plan_job(make()).as_json((), with_samples=True)
    assert plan["samples"]["train"] and not plan["masks"] and not plan["examples"]


def test_what_the_card_says_is_learned_where_it_is_in_no_prompt(make):
    folder = make()
    job = prepare_job(folder, read_spec(folder))
    said = "It is never late. I hold the hands myself when I have to."
    for samples, times in ((job.data.train, CARD_REPEATS), (job.data.heldout, 0)):
        texts = [job.tokenizer.decode(sample.ids) for sample in samples]
        replied = {text for text in texts if text.rpartition("assistant\n")[2].startswith(said)}
        assert len(replied) == times, "another guest asks each time"
        assert not [text for text in replied if "Guest:" in text], "the examples are in no prompt"
    assert job.data.sources[CARD_SOURCE] == CARD_REPEATS * 3
    assert job.data.counts[SHORT_CARD_COUNT] >= CARD_REPEATS * 3
    assert said not in {pair.reply for pair in job.data.train_prompt_replies}
    # A version that is never served with the short card does not learn to speak under it.
    full = make("--set", "short_card_share=0")
    job = prepare_job(full, read_spec(full))
    assert CARD_SOURCE not in job.data.sources and SHORT_CARD_COUNT not in job.data.counts


def test_a_greeting_is_learned_as_it_is_said(persona):
    said = "It is {{random:late,late}}, {{user}}. {{time}}"
    card = replace(persona[0], first_mes=said, mes_example="<START>\n{{user}}: Hello\n{{char}}: ")
    ((_, reply),) = _exchanges(card, "Abrel")
    assert reply.startswith("It is late, Abrel.") and "{{" not in reply
    assert not [line for line in spoken_lines(card) if "{{" in line or not line]


@pytest.mark.slow
async def test_from_a_card_alone_to_a_version_that_says_who_wrote(make):
    async with serving(in_character) as endpoint:
        folder = make(teacher=endpoint.url)
        plan = plan_job(folder)
        assert plan.work.drafts and plan.notes == (UNKNOWN_TIME_NOTE,)
        assert "writing replies" not in plan.as_json(())["recipes"][-1]["phases"]
        events = []
        await run(folder, RunControl(emit=events.append))
    phases = [event for event in events if event.event == "phase"]
    names = [phase.name for phase in phases]
    assert names.index("material") < names.index("writing replies") < names.index("base model")
    written = [phase for phase in phases if phase.name == "writing replies"]
    assert written[0].left_s is None, "before the first reply, nobody knows"
    manifest = verify_adapter(folder / "adapter")
    assert (manifest.written.teacher, manifest.written.licence) == ("tester", "MIT")
    assert manifest.recipe == "card" and manifest.written.kept == 12
    assert read_score_card(folder / "adapter").reference_label == "written by tester"
    sheet = json.loads((folder / "adapter" / "datasheet.json").read_text())
    assert sheet["by_source"].keys() == {WRITTEN_SOURCE, CARD_SOURCE}
    assert sheet["by_right"].keys() == {"own-writing"}
    by_tester = sum(reply.by == "teacher" for reply in read_written(written_file(folder)))
    wrote = f"tester (MIT) wrote {by_tester} replies"
    if by_tester < 12:
        wrote += f" from the card; {12 - by_tester} more are given or taken from the lore by rules"
    for document in ("datasheet.md", "README.md"):
        assert wrote in (folder / "adapter" / document).read_text()
    # A moderator's edits are trained on, and a run of the same folder uses no old samples.
    spec = read_spec(folder)
    recipe = plan_job(folder).settings
    from personas.models.base_model import locate

    base = locate(spec.request.base_model)
    before = dataset_key(folder, spec, recipe, base)
    kept = read_written(written_file(folder))
    kept[0] = replace(kept[0], reply="I oil the wheels before I answer.")
    written_file(folder).write_text(format_written(kept[:-1]), encoding="utf-8")
    assert dataset_key(folder, spec, recipe, base) != before
    talk = read_job_talk(read_job_inputs(folder, spec), recipe)
    texts = [conversation.raw_text for conversation in talk.conversations]
    assert len(texts) == 11 and any("I oil the wheels" in text for text in texts)


def test_whether_people_taught_the_live_version_is_read_from_its_score_card(tmp_path):
    assert not learned_from_people(None), "nothing is live"
    assert learned_from_people(str(tmp_path)), "who knows"
    for author, by_people in (("", True), ("tester", False)):
        write_scorecard(tmp_path, good_card(learned={"written_by": author}))
        assert learned_from_people(str(tmp_path)) == by_people


@pytest.mark.slow
async def test_a_version_that_a_model_taught_takes_no_place_of_one_that_people_taught(
    make, tmp_path
):
    async with serving(in_character) as endpoint:
        folder = make(teacher=endpoint.url)
        await run(folder, RunControl(card="losses"))
    adapter = folder / "adapter"
    live = Path(shutil.copytree(adapter, tmp_path / "live"))
    compared = EvaluationRequest(
        job=prepare_job(folder, read_spec(folder)),
        new=Candidate.sealed(adapter),
        training_s=1.0,
        compare=ComparisonTargets(live=str(live)),
        extent="losses",
    )
    card = read_score_card(adapter)
    assert card.learned.heldout_written == 1 and not card.learned.live_had_people
    learned = card.learned.model_copy(update={"written_by": "", "heldout_written": 0.0})
    (live / COMPLETED_CARD_FOLDER).mkdir()
    write_scorecard(live / COMPLETED_CARD_FOLDER, card.model_copy(update={"learned": learned}))
    over_people = evaluate_version(compared)
    assert over_people.learned.live_had_people
    assert any("by tester alone" in it.why for it in over_people.verdict.criteria)


@pytest.mark.slow
async def test_a_stopped_run_whose_replies_were_changed_trains_anew_on_what_is_there(
    make, tmp_path, caplog
):
    """As one that never saw the others: the old weights belong to neither."""
    events = []

    def stop_after_a_step():
        if [event for event in events if event.event == "progress"]:
            raise RunCancelled("SIGTERM")

    async with serving(in_character) as endpoint:
        folder = make(teacher=endpoint.url)
        with pytest.raises(RunCancelled):
            stopped = RunControl(emit=events.append, check=stop_after_a_step, checkpoint_s=0)
            await run(folder, stopped)
        assert list((folder / CHECKPOINTS_FOLDER).iterdir())
        kept = read_written(written_file(folder))
        changed = replace(kept[0], reply="I oil the wheels before I answer.")
        store_written(written_file(folder), [changed, *kept[1:-1]])
        fresh = Path(shutil.copytree(folder, tmp_path / "fresh"))
        for name in (CHECKPOINTS_FOLDER, "run.json"):
            path = fresh / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        asked = len(endpoint.bodies)
        for place in (folder, fresh):
            events.clear()
            await run(place, RunControl(emit=events.append))
            steps = [event.step for event in events if event.event == "progress"]
            assert steps == [1, 2]
        assert len(endpoint.bodies) == asked, "nothing is written again"
    assert "starting anew" in caplog.text
    one, other = ((place / "adapter" / WEIGHTS_FILE).read_bytes() for place in (folder, fresh))
    assert one == other
    manifest = verify_adapter(folder / "adapter")
    assert manifest.written.kept == len(kept) - 1, "what was struck out is not counted"


@pytest.mark.slow
async def test_real_exchanges_are_mixed_in_and_never_reach_the_teacher(make, tmp_path):
    (tmp_path / "talk.json").write_text(export(talks(6, "I oiled number {} myself.")), "utf-8")
    sign(tmp_path / "talk.json")
    async with serving(in_character) as endpoint:
        folder = make("--dataset", "talk.json", "--as", "Ada", teacher=endpoint.url, share="0.5")
        events = []
        stopped = RunControl(emit=events.append)
        await run(folder, stopped)
        asked = "\n".join(json.dumps(body) for body in endpoint.bodies)
    assert "does the bell ring?" not in asked and "mira" not in asked
    # An erasure finds both by their lists of people. Whoever the replies are written to is nobody.
    key = HomeKey.of(tmp_path / "home").people()
    speaker = keyed_person(key, message("")["author"]["id"])
    adapter = folder / "adapter"
    assert speaker in read_people(adapter) and speaker in read_people(folder)
    invented = {keyed_person(key, f"name:{name.casefold()}") for name in INVENTED_NAMES}
    assert not invented & read_people(adapter).keys()
    manifest = verify_adapter(folder / "adapter")
    assert manifest.written.kept == 6, "half of all replies"
    assert read_score_card(folder / "adapter").reference_label == "the real reply"
    sheet = json.loads((folder / "adapter" / "datasheet.json").read_text())
    assert sheet["by_source"].keys() == {WRITTEN_SOURCE, CARD_SOURCE, "talk.json"}


async def test_speakers_of_a_mixed_log_have_pseudonyms_in_the_lore_that_a_server_gets(
    make, tmp_path
):
    lines = talks(6, "I oiled number {} myself.")
    (tmp_path / "talk.json").write_text(export(lines), "utf-8")
    sign(tmp_path / "talk.json")
    lore = tmp_path / "lore" / "ada" / "clock.md"
    door = "\\g<0>mira_wet painted the green door, and <@734829104458293761> has its key. "
    lore.write_text(re.sub(r"^## .*\n", door, lore.read_text(), flags=re.MULTILINE))
    card = (tmp_path / "ada.toml").read_text()
    (tmp_path / "ada.toml").write_text(
        card.replace("harbour.", "harbour. Mira_Wet is your friend.")
    )
    async with serving(in_character) as endpoint:
        folder = make("--dataset", "talk.json", "--as", "Ada", teacher=endpoint.url, share="0.5")
        await asyncio.to_thread(write_job_replies, folder, read_spec(folder), RunControl())
        asked = "\n".join(json.dumps(body) for body in endpoint.bodies)
    assert "painted the green door" in asked and "is your friend" in asked
    assert "mira" not in asked.casefold() and "734829104458293761" not in asked
    assert "Ada Marsh winds the clock" in asked, "who belongs to the story"


def test_bad_requests_are_refused_with_what_to_do(make, command, monkeypatch):
    make("--dataset", "x.json", fails="from_card 1 trains on replies from the card alone")
    make("--lore-pairs", "0.5", fails="leave lore_pairs out, or from_card out")
    dialogue = ("train", "--dialogue", "--dataset", "x", "--make-only")
    for words in (("plan",), ("train", "--dry-run"), dialogue):
        code, _, errors = command(*words, "--from-card")
        assert code == 1 and "--from-card is for a persona, and none is named." in errors
    with pytest.raises(RequestError, match="has no name"):
        stated_teacher("http://127.0.0.1:1/v1")
    with pytest.raises(RequestError, match="under which licence somewhere/big writes") as unknown:
        stated_teacher("somewhere/big")
    assert "--teacher-licence" in unknown.value.advice
    assert stated_teacher("qwen3-0.6b").licence == "Apache-2.0"
    assert stated_teacher() is None
    monkeypatch.setenv("TEACHER", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("TEACHER_MODEL", "big")
    monkeypatch.setenv("TEACHER_LICENCE", "MIT")
    assert stated_teacher().model_dump() == {
        "model": "big", "url": "http://127.0.0.1:1/v1", "licence": "MIT",
    }  # fmt: skip


WRONG_TEACHERS = [
    ("/nope/x.gguf", "There is no model '/nope/x.gguf'"),
    ("models/x.gguf", "There is no model"),
    ("~/nope/model", "There is no model"),
    ("./model", "There is no model"),
    ("two words", "There is no model"),
    ("ftp://x/v1", "is no address of a server"),
    ("http:///v1", "is no address of a server"),
    ("http://[::1", "is no address of a server"),
    ("~nobodyx/model", "There is no model"),
]


def test_a_wrong_teacher_is_found_before_anything_is_made(make):
    for named, problem in WRONG_TEACHERS:
        with pytest.raises(SettingsError, match=f"^TEACHER: .*{problem}") as refused:
            load_settings(None, {"TEACHER": named, "TEACHER_MODEL": "m", "TEACHER_LICENCE": "MIT"})
        assert "Set TEACHER, or --teacher, to" in refused.value.advice
    words = ("--teacher", "/nope/x.gguf", "--teacher-model", "m", "--teacher-licence", "MIT")
    make(*words, fails="There is no model '/nope/x.gguf'")


def test_names_that_a_hub_or_a_store_may_have_are_asked_there():
    for named in (
        "gpt2",
        "owner/name@main:Q4_K_M",
        "hf.co/owner/name:Q4_K_M",
        "llama3:8b",
        "embedded#plain",
    ):
        assert stated_teacher(named, licence="MIT").model == named


def test_a_card_that_leaves_no_room_is_refused_before_samples_are_made(make, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.train.job.load_job_dataset", None)
    folder = make()
    card = next((folder / "material").glob("*.toml"))
    text = card.read_text(encoding="utf-8").replace(
        'description = "', f'description = "{"bell " * 400}'
    )
    (tmp_path / "ada.toml").write_text(text, encoding="utf-8")
    with pytest.raises(
        MaterialError, match=r"The card of Ada Marsh has .* at most 400 \(max_len"
    ) as long:
        plan_job(make("--set", "seed=3"))
    assert "shorten the description" in long.value.advice


def test_options_of_the_writing_are_wrong_usage_without_it(command, capsys):
    for words in (
        ("train", "--persona", "oda", "--only-write"),
        ("train", "--persona", "oda", "--teacher", "embedded", "--dry-run"),
        ("plan", "--persona", "oda", "--teacher-licence", "MIT"),
        ("preference", "--adapter", "x", "--pairs", "y", "--only-write"),
    ):
        with pytest.raises(SystemExit) as wrong:
            command(*words)
        assert wrong.value.code == 2
        assert "written first: add --from-card, or leave it out" in capsys.readouterr().err


def test_a_plan_of_the_writing_alone_says_what_is_left_to_later(command, make):
    code, out, _ = command("run", str(make()), "--only-write", "--dry-run")
    assert code == 0 and "--only-write: it ends once the replies are written, after" in out


def test_the_model_and_licence_of_the_stated_teacher_are_no_others(monkeypatch):
    monkeypatch.setenv("TEACHER_MODEL", "big")
    monkeypatch.setenv("TEACHER_LICENCE", "Proprietary-API")
    alone = stated_teacher("http://127.0.0.1:2/v1")
    assert (alone.model, alone.licence) == ("big", "Proprietary-API"), "a command names the server"
    monkeypatch.setenv("TEACHER", "http://127.0.0.1:1/v1")
    assert stated_teacher("http://127.0.0.1:1/v1") == stated_teacher()
    assert stated_teacher("qwen3-0.6b").licence == "Apache-2.0"
    with pytest.raises(RequestError, match="has no name"):
        stated_teacher("http://127.0.0.1:2/v1")
    with pytest.raises(RequestError, match="under which licence other writes"):
        stated_teacher("http://127.0.0.1:2/v1", "other")


def test_the_bundled_model_has_a_name_in_what_it_wrote():
    summary = WrittenReplies(teacher="embedded", licence="MIT", asked=3, kept=2, dropped={})
    assert summary.text.startswith("the bundled model (MIT) wrote 2 replies")


def test_the_key_of_the_stated_server_goes_to_no_other(monkeypatch):
    def key_for(url):
        teacher = Teacher(model="big", url=url, licence="MIT")
        request = TrainingRequest(job_name="ada", persona="ada", from_card=1, teacher=teacher)
        backend, _ = choose_teacher(request)
        return backend.key

    monkeypatch.setenv("TEACHER_KEY", "its-key")
    assert key_for("http://127.0.0.1:2/v1") == "its-key", "a command names the server itself"
    monkeypatch.setenv("TEACHER", "http://127.0.0.1:1/v1")
    assert key_for("http://127.0.0.1:1/v1") == "its-key"
    assert key_for("http://127.0.0.1:2/v1") == ""


@pytest.mark.slow
async def test_an_untrained_tiny_model_cannot_teach(make):
    folder = make()
    with pytest.raises(MaterialError, match="wrote too few usable replies for Ada Marsh"):
        await run(folder)
    assert not (folder / "adapter").exists()
    journal = written_file(folder).parent / ATTEMPTS_FILE
    assert len(journal.read_text().splitlines()) > 1


def test_a_reply_with_odd_ends_of_lines_is_read_as_it_was_written(tmp_path):
    file = written_file(tmp_path)
    file.parent.mkdir()
    reply = WrittenReply(1, "é?", "ja.\u2028Two lines,\x85or three.")
    file.write_text(format_written([reply]), encoding="utf-8")
    assert read_written(file) == [reply]
