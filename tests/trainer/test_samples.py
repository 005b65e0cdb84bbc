"""Samples: their masks, the split, what is dropped, and lore."""

from collections import Counter

import pytest

from personas.errors import MaterialError
from personas.lore.index import LoreIndex
from personas.lore.passages import Passage
from personas.schemas.chat import Persona
from tests.trainer.conversations import split_conversations
from tests.trainer.job_folders import dataset_of
from trainer.dataset.dedup_split import HELD_OUT
from trainer.dataset.job_inputs import JobInputs, JobTalk
from trainer.dataset.quality_filters import QualityFilters
from trainer.dataset.sample_renderer import TOO_LONG, require_both_sides
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

ADA = Persona("ada", "Ada", description="You are Ada, a clockmaker.")
PERSONA = SourceSpeaker("ada", ("Ada",), is_persona=True)
BO = SourceSpeaker("1", ("Corin",))


def talk(*texts: str, begins: SourceSpeaker = BO) -> Conversation:
    speakers = [begins, PERSONA if begins is BO else BO]
    return Conversation.of(
        [SourceMessage(speakers[n % 2], t, str(n)) for n, t in enumerate(texts)],
        "talk.json",
        "licensed",
    )


def make_dataset(conversations, renderer, recipe, lore=None):
    return dataset_of(JobInputs(ADA, lore), JobTalk(list(conversations)), renderer, recipe)


def many(count: int) -> list[Conversation]:
    return [talk(f"question {n}", f"answer {n}") for n in range(count)]


def test_the_mask_covers_the_reply_and_the_end_of_turn_and_nothing_else(renderer, recipe):
    data = make_dataset(
        [talk("hello", "Good day."), talk("how are you", "I tick.", "why", "I am wound.")],
        renderer,
        recipe,
    )
    trained = {
        renderer.tokenizer.decode([id for id, on in zip(s.ids, s.mask, strict=True) if on])
        for s in (*data.train, *data.heldout)
    }
    assert trained == {"Good day.<|im_end|>", "I tick.<|im_end|>", "I am wound.<|im_end|>"}


def test_each_reply_is_a_sample_with_the_turns_before_it(renderer, recipe):
    conversation = talk(*(f"turn {n}" for n in range(14)))
    short = recipe.model_copy(update={"history_turns": 3})
    data = make_dataset([conversation, talk("hello", "Good day.")], renderer, short)
    samples = data.train + data.heldout
    assert len(samples) == 8
    texts = [renderer.tokenizer.decode(sample.ids) for sample in samples]
    last = next(text for text in texts if "turn 13<|im_end|>" in text)
    assert "turn 10" in last and "turn 9" not in last and ": turn 12" in last


def test_equal_samples_count_once_and_the_held_out_one_stays(renderer, recipe):
    twins = [talk("hello", "Good day."), talk("hello", "Good day."), *many(10)]
    data = make_dataset(twins, renderer, recipe)
    assert data.counts["dropped: duplicate"] == 1
    assert len(data.train) + len(data.heldout) == 11
    assert not set(data.train) & set(data.heldout)


def test_what_does_not_fit_is_dropped_and_history_is_trimmed_first(renderer, recipe):
    short = recipe.model_copy(update={"max_length": 64})
    long = talk("hello " * 40, "Good day.")
    trimmed = talk("a " * 10, "b " * 10, "c " * 10, "Good day to you.")
    data = make_dataset([long, trimmed, *many(6)], renderer, short)
    assert data.counts["dropped: too long"] == 1
    samples = data.train + data.heldout
    assert max(len(sample.ids) for sample in samples) <= 64
    texts = [renderer.tokenizer.decode(sample.ids) for sample in samples]
    assert [text for text in texts if "to you" in text and "c c" in text and "a a" not in text]


def test_a_reply_that_follows_nobody_is_dropped(renderer, recipe):
    data = make_dataset(
        [talk("Good day.", "hello", "Well?", begins=PERSONA), *many(4)], renderer, recipe
    )
    assert data.counts["dropped: reply to nobody"] == 1
    assert len(data.train) + len(data.heldout) == 5


def test_the_stated_share_of_samples_carries_lore(renderer, recipe):
    other = [
        Passage("ada", f"ada/{n}.md", "Other", f"Something else, number {n}, of no matter here.")
        for n in range(9)
    ]
    lore = LoreIndex(
        [Passage("ada", "ada/clock.md", "Clock", "The escapement is of brass."), *other]
    )
    asked = [talk(f"what is the escapement of, {n}", f"answer {n}") for n in range(200)]
    data = make_dataset(asked, renderer, recipe, lore)
    assert data.counts["samples_with_lore"] == pytest.approx(0.3 * 200, rel=0.25)
    texts = [renderer.tokenizer.decode(sample.ids) for sample in (*data.train, *data.heldout)]
    assert (
        sum("[Clock] The escapement is of brass." in text for text in texts)
        == data.counts["samples_with_lore"]
    )


@pytest.mark.parametrize(("share", "shown"), [(0.01, 40), (0, 0)])
def test_a_reply_that_repeats_lore_has_it_unless_none_is_wanted(renderer, recipe, share, shown):
    lore = LoreIndex(
        [
            Passage(
                "ada",
                "ada/clock.md",
                "Clock",
                "The escapement is of brass, cut by Marten in Lowgate.",
            )
        ]
    )
    repeats = [
        talk(f"what is the escapement of, {n}", f"Brass, and Marten cut it, {n}.")
        for n in range(40)
    ]
    others = [
        talk(f"is the escapement well, {n}", f"It ticks as it did yesterday, {n}.")
        for n in range(40)
    ]
    data = make_dataset(
        [*repeats, *others], renderer, recipe.model_copy(update={"lore_share": share}), lore
    )
    texts = [renderer.tokenizer.decode(sample.ids) for sample in (*data.train, *data.heldout)]
    assert sum("[Clock]" in text and "Marten cut it" in text for text in texts) == shown
    assert shown <= data.counts["samples_with_lore"] < shown + 8


def test_lore_that_does_not_fit_is_left_out_and_the_reply_stays(renderer, recipe):
    whole = recipe.model_copy(update={"lore_share": 1})
    clock = "The escapement is of brass."
    walls = "Brass holds the escapement to a wall. " + "Each wall is of slate. " * 20
    lore = LoreIndex(
        [
            Passage("ada", "ada/clock.md", "Clock", clock),
            Passage("ada", "ada/walls.md", "Walls", walls),
        ]
    )
    asked = [talk(f"is the escapement of brass, {n}", f"answer {n}") for n in range(8)]
    shown = {}
    for longest in (640, 128, 48):
        data = make_dataset(asked, renderer, whole.model_copy(update={"max_length": longest}), lore)
        assert "dropped: too long" not in data.counts
        texts = [renderer.tokenizer.decode(sample.ids) for sample in (*data.train, *data.heldout)]
        shown[longest] = [
            sum(heading in text for text in texts) for heading in ("[Clock]", "[Walls]")
        ]
    assert shown == {640: [8, 8], 128: [8, 0], 48: [0, 0]}


def sides(conversations, share=0.15):
    return dict(
        zip(
            [c.raw_text for c in conversations],
            split_conversations(conversations, QualityFilters(), share).outcomes,
            strict=True,
        )
    )


def test_a_conversation_keeps_its_side_when_others_come_and_go():
    few = sides(many(60))
    grown = sides(many(400))
    assert all(grown[text] == side for text, side in few.items())
    assert 0.1 < Counter(grown.values())[HELD_OUT] / 400 < 0.2


@pytest.mark.parametrize("count", range(2, 8))
def test_each_side_has_a_conversation(count):
    for share in (0.01, 0.99):
        assert Counter(sides(many(count), share).values()).keys() == {"train", HELD_OUT}


def test_too_little_is_an_error(renderer, recipe):
    for few in (many(1), [talk("hello", "Good day."), talk("anyone")]):
        with pytest.raises(MaterialError, match="only one conversation"):
            make_dataset(few, renderer, recipe)
    with pytest.raises(MaterialError, match="no conversation with a reply"):
        make_dataset([talk("anyone")], renderer, recipe)
    with pytest.raises(MaterialError, match="too few"):
        long = talk("hello " * 900, "Good day.")
        make_dataset([long, talk("hello", "Good day.")], renderer, recipe)


def test_where_replies_are_too_long_the_length_is_to_be_raised(renderer, recipe):
    talks = [*many(8), *(talk("anyone") for _ in range(9))]
    with pytest.raises(MaterialError, match=r"9 × .*8 × too long") as caught:
        make_dataset(talks, renderer, recipe.model_copy(update={"max_length": 16}))
    assert caught.value.advice.startswith("Raise max_length")
    for dropped in ({}, {TOO_LONG: 1, "empty": 2}):
        with pytest.raises(MaterialError) as caught:
            require_both_sides(1, 0, dropped)
        assert caught.value.advice.startswith("Add conversations")


def test_the_hash_tells_data_sets_apart(renderer, recipe):
    one, same, other = (make_dataset(many(n), renderer, recipe) for n in (8, 8, 9))
    assert one.hash == same.hash != other.hash
