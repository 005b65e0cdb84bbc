"""Held out once, held out for ever: talks that go on, are edited or become part of others, and the
list that knows.
"""

import hashlib
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas.errors import MaterialError
from personas.home.holdout_index import HOLDOUT_FILE, HoldoutIndex, add_to_holdout, holdout_file
from personas.home.job_folder import read_spec
from personas.home.pseudonyms import JobKeys
from tests.trainer.conversations import dialogue, sentence, split_conversations, talk
from tests.trainer.job_folders import dataset_of, export, message, persona_job
from trainer.dataset.dedup_split import HELD_OUT, MAX_CLUSTERS_PER_REPLY
from trainer.dataset.holdout_fingerprints import siphash
from trainer.dataset.job_inputs import read_job_inputs, read_job_talk
from trainer.dataset.minhash import NUM_BANDS, NUM_PERMUTATIONS
from trainer.dataset.quality_filters import QualityFilters

KEY = b"the key of these tests"
SHARE = 0.2


def nothing():
    return HoldoutIndex.empty(KEY)


def sifted(conversations, before=None):
    return split_conversations(
        conversations, QualityFilters(), SHARE, nothing() if before is None else before
    )


def replies(conversations, found, side):
    """What is learned, or held out: the replies of a side, but for those that are kept back."""
    return {
        message.text
        for number, conversation in enumerate(conversations)
        if found.outcomes[number] == side
        for place, message in enumerate(m for m in conversation.messages if m.speaker.is_persona)
        if place not in found.withheld_replies.get(number, ())
    }


def session(number, turns=6):
    return [sentence(1000 * number + turn, 15) for turn in range(turns)]


def sessions(count, turns=6):
    return [session(number, turns) for number in range(count)]


def later(turns):
    return [*turns, sentence(hash_of(turns), 15), sentence(hash_of(turns) + 1, 15)]


def hash_of(turns):
    return int.from_bytes(hashlib.sha256(" ".join(turns).encode()).digest()[:4], "big")


def edited(place):
    def change(turns):
        return [*turns[:place], " ".join(reversed(turns[place].split())), *turns[place + 1 :]]

    return change


def earlier(turns):
    return [*(" ".join(reversed(turn.split())) for turn in turns[:2]), *turns]


def a_word_more(turns):
    return [*turns[:-1], f"{turns[-1]} indeed"]


def other_signs(turns):
    return [turn.upper().replace(" ", ", ") + "!" for turn in turns]


GROWTH = {
    "goes on": later,
    "a word more": a_word_more,
    "its first message is another": edited(0),
    "its first reply is another": edited(1),
    "a message in it is another": edited(2),
    "the last reply is another": edited(5),
    "earlier messages stand in front": earlier,
    "other signs": other_signs,
}


@pytest.mark.parametrize("how", GROWTH)
def test_no_reply_that_was_held_out_is_learned_when_its_talk_has_changed(how):
    before = sessions(60)
    first = sifted([talk(*turns) for turns in before])
    changed = [talk(*GROWTH[how](turns)) for turns in before]
    held_out = replies([talk(*turns) for turns in before], first, HELD_OUT)
    alone = sifted(changed, first.held_out)
    among_others = sifted([*changed, *many(60)], first.held_out)
    normal = {
        " ".join(text.casefold().replace(",", "").replace("!", "").split()) for text in held_out
    }
    for found, conversations in ((alone, changed), (among_others, [*changed, *many(60)])):
        learned = replies(conversations, found, "train")
        assert len(held_out) > 15 and learned
        learned_normal = {
            " ".join(text.casefold().replace(",", "").replace("!", "").split()) for text in learned
        }
        assert not normal & learned_normal
        assert not held_out & {text.removesuffix(" indeed") for text in learned}


@pytest.mark.parametrize(
    "how", ["goes on", "a word more", "a message in it is another", "the last reply is another"]
)
def test_without_any_list_what_comes_after_the_beginning_changes_nothing(how):
    before = sessions(80)
    first = sifted([talk(*turns) for turns in before])
    second = sifted([talk(*GROWTH[how](turns)) for turns in before])
    assert first.outcomes == second.outcomes and set(first.outcomes) == {HELD_OUT, "train"}


def test_a_short_talk_that_goes_on_is_known_by_its_opening():
    rows = [[sentence(n, 12), sentence(-n - 1, 25)] for n in range(100)]
    first = sifted([dialogue(*turns) for turns in rows])
    assert (
        sifted(
            [dialogue(*turns, "Go on.", sentence(n + 500)) for n, turns in enumerate(rows)]
        ).outcomes
        == first.outcomes
    )


def test_a_greeting_with_which_all_talks_begin_decides_nothing():
    from tests.trainer.conversations import ADA

    greeting = "Good evening to you, stranger. Come in out of the rain and sit down by the clocks."
    found = sifted([talk(greeting, sentence(n), sentence(-n), begins=ADA) for n in range(1, 200)])
    assert 0.1 < Counter(found.outcomes)[HELD_OUT] / 199 < 0.3


def test_a_reply_in_another_talk_is_not_learned_and_the_rest_of_that_talk_is():
    before = sessions(40)
    first = sifted([talk(*turns) for turns in before])
    number = first.outcomes.index(HELD_OUT)
    quoted = [*session(500), *before[number][:2], *session(501)]
    found = sifted([talk(*quoted), *many(30)], first.held_out)
    if found.outcomes[0] == "train":
        assert found.withheld_replies == {0: {3}}
    learned = replies([talk(*quoted), *many(30)], found, "train")
    assert before[number][1] not in learned and (
        found.outcomes[0] == HELD_OUT or quoted[1] in learned
    )


def many(count, start=5000):
    return [talk(sentence(n), sentence(-n - 1)) for n in range(start, start + count)]


def test_what_stands_in_very_many_talks_brings_none_of_them_over():
    """A set phrase that an early, small data set held out: it is not learned again, its talks
    are.
    """
    phrase = "Mind the hook and keep well clear of the chain, if you please."
    early = next(
        (talks, found)
        for start in range(0, 900, 10)
        for talks in [[talk(sentence(start), phrase), *many(9, start + 1)]]
        for found in [sifted(talks)]
        if found.outcomes[0] == HELD_OUT
    )
    talks = [
        talk(sentence(n), phrase, sentence(n + 9000, 12), sentence(-n))
        for n in range(6000, 6000 + 3 * MAX_CLUSTERS_PER_REPLY)
    ]
    found = sifted(talks, early[1].held_out)
    held = Counter(found.outcomes)[HELD_OUT]
    assert held < len(talks) / 2, "each has the phrase for half of its replies"
    assert (
        phrase not in replies(talks, found, "train")
        and len(found.withheld_replies) == len(talks) - held
    )
    few = sifted([*talks[: MAX_CLUSTERS_PER_REPLY // 2], *many(30)], early[1].held_out)
    assert set(few.outcomes[: MAX_CLUSTERS_PER_REPLY // 2]) == {HELD_OUT}, (
        "where few have it they are held out whole"
    )


canned = [(f"{sentence(n, 6)}?", sentence(-n - 1, 9)) for n in range(25)]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(30, 90))
def test_building_again_and_again_holds_out_no_more(seed, pairs, count):
    """Talks that share many of their replies, so that one could bring over the next, and that the
    next.
    """
    draw = random.Random(seed)
    talks = [
        talk(*(text for pair in draw.sample(canned, pairs) for text in pair)) for _ in range(count)
    ]
    talks += [talk(f"{c.messages[0].text} {draw.random()}", c.messages[1].text) for c in talks[:9]]
    before = sifted(draw.sample(talks, 20)).held_out
    first = sifted(talks, before)
    again = first
    for _ in range(3):
        again = sifted(talks, again.held_out)
        assert again.outcomes == first.outcomes and again.withheld_replies == first.withheld_replies
    assert contents(again.held_out) == contents(first.held_out)


def contents(held_out):
    return held_out.texts.tolist(), held_out.replies.tolist()


def test_data_that_grows_step_by_step_keeps_to_its_share():
    before = None
    talks = []
    for step in range(8):
        talks += [talk(*turns) for turns in sessions(40 * (step + 1))[40 * step :]]
        found = sifted(talks, before)
        before = found.held_out
    assert (
        0.12 < Counter(found.outcomes)[HELD_OUT] / len(talks) < 0.28 and not found.withheld_replies
    )


def test_what_is_said_on_both_sides_was_not_held_out():
    """One answer to many questions: most rows stay to be learned from."""
    rows = [dialogue(sentence(n, 12), sentence(-(n // 10) - 1, 15)) for n in range(300)]
    first = sifted(rows)
    again = sifted(rows, first.held_out)
    assert (
        Counter(first.outcomes)["train"] > 200
        and again.outcomes == first.outcomes
        and not again.withheld_replies
    )


def test_where_all_of_it_was_held_out_before_nothing_is_trained_on():
    talks = [talk(*turns) for turns in sessions(40)]
    first = sifted(talks)
    held = [t for t, fate in zip(talks, first.outcomes, strict=True) if fate == HELD_OUT]
    with pytest.raises(MaterialError, match="All conversations were held out"):
        sifted(held, first.held_out)
    assert Counter(sifted([*held, talk(*session(700))], first.held_out).outcomes)["train"] == 1


def test_where_none_of_few_is_drawn_the_one_that_was_held_out_stays_it():
    talks = [t for t in many(60) if sifted_draw(t) > 0.5][:3]
    first = sifted(talks)
    number = first.outcomes.index(HELD_OUT)
    nearer = [t for t in many(300, 8000) if SHARE < sifted_draw(t) < 0.3]
    found = sifted([*talks, *nearer], first.held_out)
    assert found.outcomes[number] == HELD_OUT and Counter(found.outcomes)[HELD_OUT] == 1


def sifted_draw(conversation):
    from trainer.dataset.dedup_split import SplitKey

    return SplitKey.of(conversation).draw


# ---------------------------------------------------------------------------------- the list itself


def listed(count=40):
    return sifted([talk(*turns) for turns in sessions(count)]).held_out


def test_the_hash_is_siphash():
    """The authors' test vector for a message of eight bytes."""
    message = np.array([int.from_bytes(bytes(range(8)), "little")], np.uint64)
    assert int(siphash(bytes(range(16)), message)[0]) == 0x93F5F5799A932462


def test_a_list_is_as_it_was_when_it_is_read_again(tmp_path):
    held_out = listed()
    file = tmp_path / "oda.bin"
    held_out.write(file)
    read = HoldoutIndex.read(file, KEY)
    assert contents(read) == contents(held_out) and (read.bands == held_out.bands).all()
    assert (read.signatures == held_out.signatures).all() and len(read) > 3
    assert file.stat().st_mode & 0o77 == 0 and [*tmp_path.iterdir()] == [file]
    assert file.stat().st_size < 200 * len(read) + 200, "three replies each"
    assert read.bands.shape[1] == NUM_BANDS and read.signatures.shape[1] == NUM_PERMUTATIONS // 2


def test_a_list_tells_nobody_without_the_key_what_was_said(tmp_path):
    """Neither the words nor their unkeyed hashes are in it, and under another key nothing in it is
    the same.
    """
    talks = [talk(*turns) for turns in sessions(40)]
    first = sifted(talks)
    other = split_conversations(
        talks, QualityFilters(), SHARE, HoldoutIndex.empty(b"another home's")
    )
    first.held_out.write(tmp_path / "a.bin")
    data = (tmp_path / "a.bin").read_bytes()
    assert first.outcomes == other.outcomes
    words = {word.encode() for turns in sessions(40) for turn in turns for word in turn.split()}
    assert not any(word in data for word in words)
    assert not {*first.held_out.texts.tolist()} & {*other.held_out.texts.tolist()}
    assert not {*first.held_out.replies.tolist()} & {*other.held_out.replies.tolist()}
    assert (
        first.held_out.signatures != other.held_out.signatures[: len(first.held_out)]
    ).mean() > 0.9


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda data: data[:-40], "damaged"),
        (lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], "damaged"),
        (lambda data: b"", "is not an index"),
        (lambda data: b"something else", "is not an index"),
        (lambda data: data[:30], "is not an index"),
    ],
)
def test_a_damaged_list_is_an_error_not_a_silent_loss(tmp_path, harm, said):
    file = tmp_path / "oda.bin"
    listed().write(file)
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(MaterialError, match=said) as raised:
        HoldoutIndex.read(file, KEY)
    assert str(file) in raised.value.message and "Restore it from a backup" in raised.value.advice
    home = holdout_file(tmp_path, None)
    home.parent.mkdir()
    damaged = file.rename(home).read_bytes()
    with pytest.raises(MaterialError, match=said):
        add_to_holdout(tmp_path, None, listed(), KEY)
    assert home.read_bytes() == damaged, "what can still be mended is left as it is"


def test_a_list_of_another_home_is_refused(tmp_path):
    listed().write(tmp_path / "oda.bin")
    with pytest.raises(MaterialError, match="another home's key"):
        HoldoutIndex.read(tmp_path / "oda.bin", b"not that key")


def test_what_is_kept_is_joined_whoever_comes_first(tmp_path):
    one = listed(20)
    other = sifted(many(60)).held_out
    for name, lists in (("a", (one, other)), ("b", (other, one, other))):
        for held_out in lists:
            add_to_holdout(tmp_path, name, held_out, KEY)
    files = [holdout_file(tmp_path, name).read_bytes() for name in "ab"]
    assert files[0] == files[1]
    both = HoldoutIndex.read(holdout_file(tmp_path, "a"), KEY)
    assert set(both.texts.tolist()) == {*one.texts.tolist(), *other.texts.tolist()}
    left = {path.name for path in Path(tmp_path, "heldout").iterdir()}
    assert left == {"a.bin", "b.bin", ".a.bin.lock", ".b.bin.lock"}


# ----------------------------------------------------------------------------------------- in a run


def named_talks(count):
    return [
        line
        for number in range(count)
        for line in (
            message(f"hello, mira_wet here, what of clock {number}?", minute=200 * number),
            message(
                f"Well, mira_wet, clock {number} wants oil and a careful hand.",
                "Ada",
                minute=200 * number + 1,
            ),
        )
    ]


def job_samples(folder, renderer, recipe):
    content = read_job_inputs(folder, read_spec(folder))
    return dataset_of(content, read_job_talk(content, recipe), renderer, recipe)


def test_a_run_decides_by_what_was_said_not_by_pseudonyms(tmp_path, renderer, recipe):
    found = []
    for name, pseudonyms in (("one", b"p" * 32), ("two", b"q" * 32)):
        folder = persona_job(tmp_path / name, "embedded", export(named_talks(60)))
        (folder / "keys.json").unlink()
        JobKeys(pseudonyms, KEY).write(folder)
        found.append(job_samples(folder, renderer, recipe))
        assert "mira_wet" not in str(found[-1].train_prompt_replies)
    assert found[0].hash != found[1].hash and len(found[0].heldout) > 3
    assert contents(found[0].held_out) == contents(found[1].held_out)


def test_a_job_learns_nothing_that_was_held_out_before(tmp_path, renderer, recipe):
    """The list comes with the job folder, and one that is damaged is said."""
    folder = persona_job(tmp_path, "embedded", export(named_talks(60)))
    first = job_samples(folder, renderer, recipe)
    talk = read_job_talk(read_job_inputs(folder, read_spec(folder)), recipe)
    trained = {(it.message, it.reply) for it in first.train_prompt_replies}
    more = split_conversations(
        talk.conversations[:30], QualityFilters(), 0.5, first.held_out
    ).held_out
    more.write(folder / HOLDOUT_FILE)
    second = job_samples(folder, renderer, recipe)
    assert len(second.heldout) > len(first.heldout)
    assert {(it.message, it.reply) for it in second.train_prompt_replies} < trained
    (folder / HOLDOUT_FILE).write_bytes(b"half")
    with pytest.raises(MaterialError, match="not an index of held-out"):
        read_job_inputs(folder, read_spec(folder))
