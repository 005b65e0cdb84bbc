"""What all sides say: made in one batch over the measured model, as the engine would serve it,
within the time.
"""

import asyncio
import math
import shutil
from collections import Counter
from dataclasses import replace

import pytest

from bot.settings import load_settings
from bot.training.backends.trainer_environment import evaluation_environ
from personas.engine.llm_engine import LLMEngine
from personas.errors import NoMemoryError
from personas.home.job_folder import read_spec
from personas.prompt.renderer import CONTEXT_TOKENS
from personas.schemas.chat import DEFAULT_CANDIDATES, ChatRequest, SamplingParams, Turn
from personas.schemas.scorecard import (
    FACTS_TASK,
    HELDOUT_TASK,
    IN_CHARACTER,
    VOICE,
    VOICE_AT_TURN,
)
from tests.tiny_models import make_adapter
from tests.trainer.job_folders import persona_job
from trainer.evaluate.candidates import BASE, LIVE, NEW, Candidate, Candidates
from trainer.evaluate.card_outlook import CardOutlook
from trainer.evaluate.generation import reply_generator, reply_sections
from trainer.evaluate.generation.evaluation_prompts import (
    MAX_PROMPTS_BY_TASK,
    PromptBuilder,
    heldout_prompts,
    interleave_tasks,
)
from trainer.evaluate.generation.reply_generator import ReplyGenerator, served_sampling
from trainer.evaluate.generation.reply_sections import measure_replies
from trainer.evaluate.generation.reply_tasks import EvaluationPrompt
from trainer.evaluate.time_budget import TimeBudget
from trainer.train.job import prepare_job

TURN = Turn("Guest", "what is the bell like?")
SHORT = SamplingParams(max_new_tokens=12)


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_base):
    folder = persona_job(tmp_path_factory.mktemp("job") / "ada", tiny_base.source)
    return prepare_job(folder, read_spec(folder))


@pytest.fixture(scope="module")
def sides(tmp_path_factory, tiny_base, job):
    """The base, a live version, and a new one whose folder nobody has sealed yet."""
    home = tmp_path_factory.mktemp("home")
    live, new = (
        make_adapter(home, tiny_base, "ada", version, seed)
        for version, seed in (("v1", 1), ("v2", 2))
    )
    aside = home / "aside"
    shutil.copytree(new.folder, aside)
    (aside / "manifest.json").unlink()
    found = Candidates.load(tiny_base, job.tokenizer, "float32", job.data.heldout[0].ids[:40])
    found.add(LIVE, Candidate("v1", live.folder))
    found.add(NEW, Candidate("v2", aside, is_sealed=False))
    return found


@pytest.fixture(scope="module")
def served(tiny_base, sides, job):
    """What the engine that serves says, by side: over a model of its own."""

    async def reply(engine, ref):
        stream = engine.submit(
            ChatRequest(
                job.data.persona, (TURN,), (), ref, SamplingParams(max_new_tokens=12, seed=7)
            )
        )
        async for _ in stream:
            pass
        return stream.reply.text.strip()

    async def replies():
        engine = LLMEngine(tiny_base, "float32")
        await engine.start()
        try:
            return {side: await reply(engine, sides.ref(side)) for side in (BASE, LIVE)}
        finally:
            await engine.close()

    return asyncio.run(replies())


def speakers(sides, renderer, seeds=(7,), of=(BASE, LIVE, NEW)):
    return ReplyGenerator(
        sides.parts, renderer, {side: sides.ref(side) for side in of}, seeds, SHORT
    )


def prompt(renderer, persona, task=HELDOUT_TASK, number=0, once=False):
    return PromptBuilder(renderer, persona, None).from_turns(task, number, [TURN], once=once)


def test_replies_are_those_that_the_engine_serves_each_by_its_own_side(
    sides, job, renderer, served
):
    made = speakers(sides, renderer, (7, 8)).answers(
        [prompt(renderer, job.data.persona)], TimeBudget(60)
    )
    assert len(made) == 6
    texts = {(it.side, it.seed): it.text for it in made}
    assert {side: texts[side, 7] for side in served} == served
    assert len(set(texts.values())) == 6  # sides and seeds all differ
    again = speakers(sides, renderer, (7,), (NEW,)).answers(
        [prompt(renderer, job.data.persona)], TimeBudget(60)
    )
    assert again[0].text == texts[NEW, 7]  # whoever else is in the batch
    assert sides.base_is_base() == 0  # the engine leaves the model as it was


def test_a_prompt_is_answered_by_all_or_not_at_all_and_to_the_least_whatever_the_time(
    sides, renderer
):
    asked = [prompt(renderer, None, number=n) for n in range(5)]
    received = []
    spent = TimeBudget(0.0)
    made = speakers(sides, renderer, (1, 2)).answers(
        asked, spent, lambda done, of: received.append((done, of)), least=2
    )
    assert [it.number for it in asked if sum(a.prompt is it for a in made) == 6] == [0, 1]
    assert len(made) == 12 and received[-1] == (12, 12)
    assert len(speakers(sides, renderer, (1,), (BASE,)).answers(asked, TimeBudget(600))) == 5


@pytest.mark.parametrize(
    ("stated", "candidates"),
    [("", DEFAULT_CANDIDATES), ("1", 1), ("8", 8), ("many", DEFAULT_CANDIDATES)],
)
def test_replies_are_chosen_among_as_many_candidates_as_the_bots(
    tiny_base, monkeypatch, stated, candidates
):
    monkeypatch.setenv("REPLY_CANDIDATES", stated)
    assert served_sampling(tiny_base).candidates == candidates


@pytest.mark.parametrize(
    ("stated", "candidates"),
    [
        ({"ENGINE": "vllm", "ENGINE_URLS": "http://127.0.0.1:8000"}, 1),
        ({"ENGINE": "Local"}, DEFAULT_CANDIDATES),
        ({"MAX_REPLY_CANDIDATES": "2"}, 2),
        ({"MAX_REPLY_CANDIDATES": "8"}, DEFAULT_CANDIDATES),
    ],
)
def test_candidates_are_those_that_the_engine_makes_and_the_operator_allows(
    tiny_base, monkeypatch, stated, candidates
):
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    assert served_sampling(tiny_base).candidates == candidates
    served = evaluation_environ(load_settings(None, stated))
    assert served["REPLY_CANDIDATES"] == str(candidates)


def test_replies_are_sampled_as_the_bots_settings_say(tiny_base, monkeypatch):
    usual = served_sampling(tiny_base)
    stated = evaluation_environ(
        load_settings(None, {"TEMPERATURE": "1.1", "TOP_P": "0.5", "MAX_NEW_TOKENS": "300"})
    )
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    assert served_sampling(tiny_base) == replace(
        usual, temperature=1.1, top_p=0.5, max_new_tokens=300
    )
    monkeypatch.setenv("TEMPERATURE", "nan")
    monkeypatch.setenv("MAX_NEW_TOKENS", "a few")
    assert served_sampling(tiny_base) == replace(usual, top_p=0.5), (
        "what cannot be is not taken over"
    )


def test_a_prompt_leaves_room_for_the_longest_reply(renderer):
    long = [Turn("Bo", "word " * 4000)]
    for new_tokens in (120, 1000):
        asked = PromptBuilder(renderer, None, None, new_tokens).from_turns(HELDOUT_TASK, 0, long)
        assert CONTEXT_TOKENS - new_tokens - 9 < len(asked.ids) <= CONTEXT_TOKENS - new_tokens


@pytest.mark.slow
def test_replies_of_all_sides_are_chosen_among_as_many_candidates(
    sides, job, renderer, monkeypatch
):
    """Also while prompts take several steps, and more replies are to be made than fit into the
    batch.
    """
    counts = Counter()
    finish = reply_generator._PendingReply.finish

    def counted(pending, reply):
        counts[pending.side, reply.candidates] += 1
        finish(pending, reply)

    monkeypatch.setattr(reply_generator._PendingReply, "finish", counted)
    generator = replace(
        speakers(sides, renderer, seeds=(0, 1, 2)),
        sampling=replace(SHORT, candidates=4, max_new_tokens=4),
    )
    builder = PromptBuilder(renderer, job.data.persona, None)
    prompts = [replace(it, own_seeds=()) for it in heldout_prompts(builder, job.data, (0,))]
    generator.answers(prompts, TimeBudget(math.inf))
    assert counts == {(side, 4): 3 * len(prompts) for side in (BASE, LIVE, NEW)}


def test_what_is_asked_once_takes_the_first_seed(sides, renderer):
    made = speakers(sides, renderer, (4, 5), (BASE,)).answers(
        [prompt(renderer, None, once=True)], TimeBudget(60)
    )
    assert [it.seed for it in made] == [4]


def test_a_failing_reply_is_raised(sides, renderer, monkeypatch):
    def breaks(spans):
        raise MemoryError("no room")

    monkeypatch.setattr(sides.parts.stacked, "forward", breaks)
    with pytest.raises(NoMemoryError, match="too little memory"):
        speakers(sides, renderer, (1,), (BASE,)).answers([prompt(renderer, None)], TimeBudget(60))


def test_heldout_prompts_are_those_of_the_samples_token_for_token(job, renderer):
    asked = heldout_prompts(
        PromptBuilder(renderer, job.data.persona, job.data.lore), job.data, (0,)
    )
    assert asked
    for it in asked:
        sample = job.data.heldout[it.number]
        assert (
            it.ids == sample.ids[: len(it.ids)]
            and len(it.ids) == len(sample.ids) - sample.reply_tokens
        )
        assert it.message == job.data.heldout_prompt_replies[it.number].message
        assert it.asker and f"{it.asker}: {it.message}" in renderer.tokenizer.decode(it.ids)
        assert it.speakers == (it.asker,)


def test_seeds_take_turns_with_other_heldout_prompts_and_the_first_again_when_there_are_no_more(
    job, renderer, monkeypatch
):
    builder = PromptBuilder(renderer, job.data.persona, job.data.lore)
    own = sum(pair.by_persona for pair in job.data.heldout_prompt_replies)
    assert own == 3, "as the numbers below expect"
    monkeypatch.setitem(MAX_PROMPTS_BY_TASK, HELDOUT_TASK, 1)
    assert [it.own_seeds for it in heldout_prompts(builder, job.data, (0, 1, 2))] == [
        (0,),
        (1,),
        (2,),
    ]
    assert len({it.number for it in heldout_prompts(builder, job.data, (0, 1, 2))}) == 3
    monkeypatch.setitem(MAX_PROMPTS_BY_TASK, HELDOUT_TASK, 2)
    assert [it.own_seeds for it in heldout_prompts(builder, job.data, (0, 1, 2))] == [
        (0, 1),
        (1, 2),
        (2, 0),
    ]
    assert [it.number for it in heldout_prompts(builder, job.data, (1,))] == [
        it.number for it in heldout_prompts(builder, job.data, (0, 1, 2)) if 1 in it.own_seeds
    ][::-1]
    monkeypatch.setitem(MAX_PROMPTS_BY_TASK, HELDOUT_TASK, 24)
    assert [it.own_seeds for it in heldout_prompts(builder, job.data, (0, 1, 2))] == [
        (0, 1, 2)
    ] * own


def test_no_question_in_another_language_is_asked(job, renderer):
    builder = PromptBuilder(renderer, job.data.persona, job.data.lore)
    foreign = ("bạn đang làm gì vậy?", "你今天过得怎么样？")
    pairs = list(job.data.heldout_prompt_replies)
    places = [n for n, pair in enumerate(pairs) if pair.by_persona]
    for place, message in zip(places, foreign, strict=False):
        pairs[place] = replace(pairs[place], message=message)
    mixed = replace(job.data, heldout_prompt_replies=tuple(pairs))
    asked = {it.number for it in heldout_prompts(builder, mixed, (0, 1, 2))}
    assert asked == set(places[len(foreign) :])


def test_tasks_take_turns_the_first_of_each_before_all():
    asked = [
        EvaluationPrompt(task, n, (1,), "")
        for task, count in (("a", 6), ("b", 2), ("c", 1))
        for n in range(count)
    ]
    order = [(it.task, it.number) for it in interleave_tasks(asked)]
    assert sorted(order[:3]) == [("a", 0), ("b", 0), ("c", 0)]
    assert order.index(("b", 1)) < order.index(("a", 4))
    assert sorted(order) == sorted((it.task, it.number) for it in asked)
    alike = interleave_tasks(
        [
            EvaluationPrompt(task, n, (1,), "")
            for task in (FACTS_TASK, HELDOUT_TASK)
            for n in range(10)
        ]
    )
    assert sum(it.task == HELDOUT_TASK for it in alike[:12]) == 8


def in_other_words(data):
    """The same talk, answered by somebody else."""

    def answered(said):
        return tuple(replace(it, reply=f"MARMALADE! {it.message.upper()} JAM!") for it in said)

    return replace(
        data,
        train_prompt_replies=answered(data.train_prompt_replies),
        heldout_prompt_replies=answered(data.heldout_prompt_replies),
    )


@pytest.mark.slow
def test_all_sections_are_measured_and_what_there_was_no_time_for_is_said(sides, job, monkeypatch):
    bases = []
    monkeypatch.setattr(reply_sections, "served_sampling", lambda base: bases.append(base) or SHORT)
    monkeypatch.setattr(reply_sections, "PROGRESS_INTERVAL_S", -1.0)
    monkeypatch.setattr(reply_generator, "MAX_BATCH_ROWS", 6)
    result = []
    steps = []
    left_s = []
    others = {"bo": in_other_words(job.data)}
    spoken = measure_replies(
        sides,
        job,
        TimeBudget(0.0),
        (3,),
        report=result.append,
        outlook=CardOutlook(TimeBudget(0.0), left_s.append),
        others=others,
        between=lambda: steps.append(1),
        sense=TimeBudget(0.0),
    )
    assert left_s[0] == 0.0, "there is no time for the sections on sense"
    assert bases == [job.base], "replies are sampled as the bot would"
    assert spoken.voice.classes == ("ada", "bo", "members")
    assert (
        spoken.voice.right.keys() == {"base", "live", "new"}
        and spoken.voice.ceiling > spoken.voice.floor
    )
    assert spoken.counts.prompts == 1 and spoken.counts.copied.keys() == {"base", "live", "new"}
    assert sum(spoken.safety.prompts.values()) == 1
    assert spoken.left_out["safety prompts"].startswith("1 of 42 ")
    shown = spoken.side_by_side[0]
    assert (shown.prompt, shown.real) in {
        (it.message, it.reply) for it in job.data.heldout_prompt_replies
    }
    assert shown.replies["base"].made_by is None and shown.replies["live"].made_by.version == "v1"
    assert shown.replies["new"].made_by == sides.stamp(NEW) and {
        it.seed for it in shown.replies.values()
    } == {3}
    assert len({it.text for it in shown.replies.values()}) == 3
    assert spoken.sense.keys() >= {"style", "talks", "pressure"}
    talks = spoken.sense["talks"]
    pressure = spoken.sense["pressure"]
    assert spoken.sense["style"].ceiling[VOICE].estimate == 1
    assert pressure.shares[IN_CHARACTER].keys() == {"live", "new"}
    assert talks.prompts == 32 and talks.shares[VOICE_AT_TURN.format(1)].keys() == {"new"}
    for turn in (10, 40):
        assert " 0 of 32 replies" in spoken.left_out[f"talks, turn {turn}"]
    assert "talks, turn 1" not in spoken.left_out
    assert " 4 of 50 replies" in spoken.left_out["questions in other words, and pressure"]
    # Held-out, small talk, safety; facts with and without lore.
    tasks = 3 + 2 * (spoken.facts is not None)
    assert len(spoken.replies) == tasks  # the new version's, one of each
    assert any(f": {shown.prompt}" in prompt for prompt, _ in spoken.replies)
    assert (
        any(text.endswith("replies are measured") for text in result)
        and "talks: turn 1 of 40" in result
        and steps
    )
