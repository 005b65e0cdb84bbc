"""Sections on sense: style without topic, lore in other words, long talks, and pressure."""

import itertools
import json
import re
from dataclasses import replace

import pytest

from personas.home.job_folder import read_spec
from personas.schemas.chat import EARLIER_SOURCE, Persona, SamplingParams
from personas.schemas.scorecard import (
    FACTS_TASK,
    FACTS_WITHOUT_LORE_TASK,
    IN_CHARACTER,
    LORE_FOUND,
    LORE_RIGHT,
    LORE_RIGHT_REWORDED,
    LORE_RIGHT_WITHOUT,
    LORE_WRONG,
    LORE_WRONG_REWORDED,
    PRESSURE_TASK,
    REPETITION_AT_TURN,
    REWORDED_TASK,
    VOICE_AT_TURN,
    WRONG_AT_TURN,
)
from personas.shipped_folders import SHIPPED_DATA
from tests.tiny_models import make_adapter
from tests.trainer.job_folders import persona_job
from tests.trainer.test_voice_classifier import said, voices
from trainer.dataset.synthetic.measuring_questions import FACTS_FILE
from trainer.evaluate.candidates import BASE, NEW, Candidate, Candidates
from trainer.evaluate.generation import talks as talks_module
from trainer.evaluate.generation.author_texts import AuthorTexts
from trainer.evaluate.generation.evaluation_prompts import PromptBuilder
from trainer.evaluate.generation.lore_facts import FactQuestion, measure_lore, parse_question
from trainer.evaluate.generation.reply_generator import ReplyGenerator
from trainer.evaluate.generation.reply_tasks import (
    PRESSURE_FILE,
    TALKS_FILE,
    EvaluationPrompt,
    GeneratedReply,
    read_jsonl,
)
from trainer.evaluate.generation.sense_inputs import SenseInputs, SenseLimits
from trainer.evaluate.generation.talks import TALK_TURNS, TalkReply, TalkRun, measure_talks
from trainer.evaluate.generation.text_metrics import repeated_share
from trainer.evaluate.generation.voice_classifier import ContentMask
from trainer.evaluate.generation.voice_sections import (
    VoiceJudge,
    measure_pressure,
    pressure_prompts,
)
from trainer.evaluate.time_budget import TimeBudget
from trainer.train.job import prepare_job

ADA = Persona("ada", "Ada")
TOPICS = (
    "anchor",
    "barrel",
    "cellar",
    "dragon",
    "engine",
    "feather",
    "garden",
    "hammer",
    "island",
    "jacket",
)


def answer(task, number, text, side="new", seed=0, ids=(1,)):
    return GeneratedReply(
        EvaluationPrompt(task, number, ids, "", "Mira"), side, seed, text, 3, True
    )


# -------------------------------------------------------------------------------------------- style


def test_content_words_are_masked_and_those_that_all_authors_use_are_not():
    mask = ContentMask(
        [["The duck is in the soup, my lamb."], ["Is the crane in the fog? The hook is."]]
    )
    assert mask("The gull is in the soup.") == "The ■ is in the ■."
    assert mask("4 ducks: my lamb!") == "■ ■: ■ ■!", "a character's own words are masked too"


def sentences(style, topics):
    return [style.format(a, b) for a, b in itertools.permutations(topics, 2)][:60]


def judged(own_style, own_topics, other_style, other_topics):
    """The share of the persona's held-out texts that are known for its own without their content
    words.
    """
    known = {
        name: AuthorTexts(tuple(texts[::2]), tuple(texts[1::2]))
        for name, texts in (
            ("ada", sentences(own_style, own_topics)),
            ("bo", sentences(other_style, other_topics)),
        )
    }
    judge = VoiceJudge(ADA, known, ContentMask([of.trained for of in known.values()]))
    return sum(judge.is_own(judge.own)) / len(judge.own), sum(judge.is_own(judge.others)) / len(
        judge.others
    )


def test_style_is_known_without_its_topic_and_topic_alone_is_no_style():
    ceiling, floor = judged("Ah! The {} and the {}!", TOPICS, "the {} ... and the {} ...", TOPICS)
    assert ceiling == 1 and floor == 0
    same = "the {} and the {}."
    ceiling, floor = judged(same, TOPICS[:5], same, TOPICS[5:])
    assert ceiling == floor, "nothing but the topic differs"


# --------------------------------------------------------------------------------------------- lore


def test_every_question_has_other_words_that_do_not_hold_its_answer():
    rows = read_jsonl(FACTS_FILE)
    for row in rows:
        question = parse_question(row)
        assert question.reworded and question.reworded.casefold() != question.text.casefold()
        assert not question.is_right(question.reworded), question.reworded
    assert len({row["reworded"] for row in rows}) == len(rows)


def test_answers_count_by_whether_the_passage_stands_in_their_prompt():
    rows = [row for row in read_jsonl(FACTS_FILE) if row["persona"] == "ballast"][
        :2
    ]  # how heavy, how long
    questions = [parse_question(row) for row in rows]
    texts = {
        1: f"[Iron] {rows[0]['evidence']}\n\nMira: hm",
        2: "[Fog] Fog is wet.",
        3: rows[1]["evidence"],
    }
    answers = [
        answer(FACTS_TASK, 0, "Eighty-three tonnes.", ids=(1,)),
        answer(FACTS_TASK, 1, "Sixty-four feet.", ids=(2,)),  # the search found another passage
        answer(REWORDED_TASK, 1, "It is ten feet long.", ids=(3,)),
        answer(FACTS_WITHOUT_LORE_TASK, 0, "83 tonnes", ids=(4,)),
        answer(FACTS_WITHOUT_LORE_TASK, 1, "I forgot.", ids=(5,)),
    ]
    found = measure_lore(questions, answers, ("new",), lambda ids: texts[ids[0]]).section()
    assert found.new(LORE_RIGHT) == 1 and found.new(LORE_RIGHT_REWORDED) == 0
    assert found.new(LORE_RIGHT_WITHOUT) == 0.5
    assert found.new(LORE_WRONG) == 0 and found.new(LORE_WRONG_REWORDED) == 1, (
        "each of its own questions"
    )
    assert found.new(LORE_FOUND) == pytest.approx(2 / 3)
    assert found.ceiling[LORE_RIGHT].estimate == 1 and found.floor[LORE_RIGHT].estimate == 0
    assert measure_lore(questions, [], ("new",), str) is None


# ----------------------------------------------------------------------------------------- pressure


def test_no_log_holds_what_is_asked():
    def words(text):
        return " ".join(re.findall(r"\w+", text.casefold()))

    facts, pressure, talks = map(read_jsonl, (FACTS_FILE, PRESSURE_FILE, TALKS_FILE))
    asked = {it for row in facts for it in (row["question"], row.get("reworded", "")) if it}
    asked |= {row["text"] for row in pressure} | {line for row in talks for line in row["lines"]}
    logs = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in (SHIPPED_DATA / "logs").glob("*.json")
    ]
    said = {words(message["content"]) for log in logs for message in log["messages"]}
    assert len(logs) == 3 and [text for text in asked if words(text) in said] == []


def test_prompts_under_pressure_are_of_all_kinds_alike(renderer):
    builder = PromptBuilder(renderer, ADA, None)
    kinds = [row["kind"] for row in read_jsonl(PRESSURE_FILE)]
    prompts = pressure_prompts(builder, 5, (0, 1))
    assert [it.own_seeds for it in prompts] == [(0,)] * 5 + [(1,)] * 5, (
        "all of them before any is repeated"
    )
    for asked in (prompts[:5], prompts[5:]):
        assert sorted(kinds[it.number] for it in asked) == sorted(set(kinds)), (
            "as few as there are kinds: one of each"
        )
    assert len(pressure_prompts(builder, 99, (0,))) == len(kinds) == 25
    assert {len(list(of)) for _, of in itertools.groupby(sorted(kinds))} == {5}


def test_who_speaks_as_a_program_or_as_somebody_else_has_lost_its_character():
    judge = VoiceJudge(ADA, voices())
    own = said("ada", 4, 7)
    other = said("bo", 2, 7)
    replies = [
        answer(PRESSURE_TASK, 0, own[0]),
        answer(PRESSURE_TASK, 1, f"As an AI language model, {own[1]}"),
        answer(PRESSURE_TASK, 5, other[0]),
        answer(PRESSURE_TASK, 6, f"{own[2]}\nMira: {own[3]}"),
        answer(PRESSURE_TASK, 0, other[1], side="base"),
    ]
    found = measure_pressure(ADA, replies, ("base", "new"), judge).section()
    assert found.new(IN_CHARACTER) == 0.25 and found.shares[IN_CHARACTER]["base"].estimate == 0
    assert found.new(f"{IN_CHARACTER}: role") == 0.5 and found.new(f"{IN_CHARACTER}: machine") == 0
    assert (
        found.ceiling[IN_CHARACTER].estimate >= 0.95 and found.floor[IN_CHARACTER].estimate <= 0.05
    )
    assert measure_pressure(ADA, [], ("new",), judge) is None


# -------------------------------------------------------------------------------------------- talks


def test_the_scripts_have_a_line_for_each_turn_before_the_last():
    rows = read_jsonl(TALKS_FILE)
    talks = [row["lines"] for row in rows if row["kind"] == "talk"]
    assert {len(lines) for lines in talks} == {TALK_TURNS[-1] - 1}
    lines = [line for row in rows for line in row["lines"]]
    assert len(set(lines)) == len(lines)


def test_repetition_is_of_this_reply_and_of_earlier_ones():
    assert repeated_share("one two three four five") == 0
    assert repeated_share("one two three four, one two three four") == pytest.approx(1 / 5)
    assert repeated_share("One two three four!", ["zero one two three four"]) == 1
    assert repeated_share("No, no, no.", ["No, no, no!"]) == 1, "a shorter text is one run"
    assert repeated_share("too short", ["too", "short"]) == repeated_share("…", ["…"]) == 0


def test_a_voice_that_fades_is_seen_at_its_turn():
    judge = VoiceJudge(ADA, voices())
    own = said("ada", 6, 8)
    other = said("bo", 6, 8)
    replies = [
        TalkReply(
            turn,
            talk,
            answer(f"talk {turn}", 0, (own if turn < 40 or talk < 3 else other)[talk], seed=talk),
            (),
        )
        for turn in (1, 10, 40)
        for talk in range(6)
    ]
    section = measure_talks(replies, judge).section()
    assert [section.new(VOICE_AT_TURN.format(turn)) for turn in (1, 10, 40)] == [1, 1, 0.5]
    assert section.new(REPETITION_AT_TURN.format(40)) < 0.1
    again = [replace(it, earlier=own) for it in replies]
    assert measure_talks(again, judge).section().new(REPETITION_AT_TURN.format(1)) == 1
    assert VOICE_AT_TURN.format(40) not in measure_talks(replies[:12], judge).values
    assert WRONG_AT_TURN.format(1) not in section.shares, "nothing was asked about the lore"


def test_contradictions_are_counted_by_turn_and_apart_from_the_voice():
    judge = VoiceJudge(ADA, voices())
    own = said("ada", 6, 8)
    tea = FactQuestion(
        "When is tea?", "At four.", lambda text: "four" in text, lambda text: "five" in text
    )
    said_at = {1: "At four.", 10: "At five.", 40: "At five."}
    asked = [
        TalkReply(
            turn, talk, answer(f"talk {turn}", 1, text if talk else "At four.", seed=talk), (), tea
        )
        for turn, text in said_at.items()
        for talk in range(6)
    ]
    probes = [TalkReply(turn, 0, answer(f"talk {turn}", 0, own[0]), ()) for turn in said_at]
    section = measure_talks([*probes, *asked], judge).section()
    assert [section.new(WRONG_AT_TURN.format(turn)) for turn in said_at] == pytest.approx(
        [0, 5 / 6, 5 / 6]
    )
    assert [section.new(VOICE_AT_TURN.format(turn)) for turn in said_at] == [1, 1, 1]


@pytest.mark.slow
def test_a_talk_goes_on_with_its_own_replies_in_the_window_that_the_bot_shows(
    tmp_path, tiny_base, renderer, monkeypatch
):
    """Real replies of a tiny model; the prompts are recorded on their way to it."""
    folder = persona_job(tmp_path / "job", tiny_base.source)
    job = prepare_job(folder, read_spec(folder))
    sides = Candidates.load(tiny_base, job.tokenizer, "float32", job.data.heldout[0].ids[:40])
    adapter = make_adapter(tmp_path / "home", tiny_base, "ada", "v1", 1)
    sides.add(NEW, Candidate("v1", adapter.folder))
    monkeypatch.setattr(talks_module, "TALK_TURNS", (1, 12))
    builder = PromptBuilder(renderer, job.data.persona, job.data.lore)
    refs = {side: sides.ref(side) for side in (BASE, NEW)}
    generator = ReplyGenerator(
        sides.parts, builder.renderer, refs, (3,), SamplingParams(max_new_tokens=4)
    )
    shown = []
    monkeypatch.setattr(
        PromptBuilder,
        "from_turns",
        lambda self, task, number, turns, lore, of=PromptBuilder.from_turns: (
            shown.append((task, number, list(turns), list(lore)))
            or of(self, task, number, turns, lore)
        ),
    )
    limits = SenseLimits(talks=2, probes=3, questions=2)
    taken_up = "what about the nine cups in the kitchen sink?"
    known = [FactQuestion(text, "", bool, bool) for text in (taken_up, "What is 1?", "What is 2?")]
    inputs = SenseInputs(
        data=job.data,
        persona=job.data.persona,
        builder=builder,
        questions=known,
        voices={},
        generator=generator,
        limits=limits,
    )
    replies = TalkRun(inputs, TimeBudget(600)).replies()
    assert [(it.turn, it.talk, it.answer.prompt.number) for it in replies] == [
        (turn, talk, probe) for turn in (1, 12) for talk in range(2) for probe in range(5)
    ]
    asked = {(it.talk, it.answer.prompt.message) for it in replies if it.question}
    assert asked == {(0, taken_up), (0, "What is 1?"), (1, "What is 2?"), (1, taken_up)}
    earlier = [
        hit for task, number, _, lore in shown if (task, number) == ("talk 12", 3) for hit in lore
    ]
    assert any(
        hit.source == EARLIER_SOURCE and "nine cups in the sink” – “" in hit.text for hit in earlier
    )
    assert not any(
        hit.source == EARLIER_SOURCE for task, *_, lore in shown if task == "talk 1" for hit in lore
    )
    assert {it.answer.seed for it in replies} == {6, 7} and {it.answer.side for it in replies} == {
        NEW
    }
    assert {len(it.earlier) for it in replies} == {0, 11}
    first = next(it for it in replies if it.turn == 12)
    last = next(
        turns
        for task, number, turns, _ in shown
        if task == "talk 12" and number == 0 and turns[1].text == first.earlier[6]
    )
    lines = next(row["lines"] for row in read_jsonl(TALKS_FILE) if row["kind"] == "talk")
    assert len(last) == 11 and [it.text for it in last if not it.by_persona][:-1] == lines[6:11]
    assert [it.text for it in last if it.by_persona] == list(first.earlier[6:])
    stopped = TalkRun(inputs, TimeBudget(0.0)).replies()
    assert {it.turn for it in stopped} == {1}, "there was no time for more"
    sides.close()
