"""History across sessions: a share of the samples has the channel's messages before, as the bot
shows them.
"""

import json
from collections import Counter
from collections.abc import Sequence

import pytest

from personas.schemas.chat import Persona
from tests.trainer.chat_logs import BEGIN_S, outcome, write
from tests.trainer.conversations import ADA, dialogue, sentence
from tests.trainer.job_folders import export, talks
from trainer.dataset.builder import BuiltSample, DatasetBuilder, DatasetPlan
from trainer.dataset.dedup_split import HELD_OUT, TRAIN
from trainer.dataset.ledger import Ledger
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker

CARD = Persona("ada", "Ada")
HOUR_S = 3600.0


def session(
    number: int, messages: int = 2, channel: str = "log.json", text: str = "", lasts_s: float = 1
) -> Conversation:
    """A session of a channel, an hour after the one before, each with another member."""
    member = SourceSpeaker(f"member {number}", (f"Bo{number}",))
    begin = HOUR_S * (number + 1)
    said = [
        SourceMessage(
            (member, ADA)[n % 2],
            f"{number}.{n} {sentence(10 * number + n, 12)}{text}",
            f"{number}.{n}",
            at=begin + n * lasts_s,
        )
        for n in range(messages)
    ]
    return Conversation.of(said, "logs", "licensed", rows=messages, channel=channel)


@pytest.fixture
def build(renderer, recipe):
    """Build the samples of conversations, with a share of 1 unless another is given."""

    def samples(
        sessions: Sequence[Conversation], share: float = 1.0, **changes: object
    ) -> list[BuiltSample]:
        settings = {"cross_session_share": share, "heldout_share": 0.3, **changes}
        plan = DatasetPlan(
            renderer, recipe.model_copy(update=settings), CARD, key=b"k", people_key=b"k"
        )
        with DatasetBuilder(plan, Ledger()) as builder:
            builder.add_source("", sessions)
            return list(builder.samples())

    return samples


def numbers(built: BuiltSample) -> list[int]:
    """Return the session of each turn."""
    return [int(turn.text.split(".")[0]) for turn in built.made.turns]


def members(built: BuiltSample) -> set[str]:
    """Return the members whose turns a sample has."""
    return {f"member {turn.text.split('.')[0]}" for turn in built.made.turns if not turn.by_persona}


def test_the_history_goes_on_into_the_training_sessions_before(build):
    samples = build([session(n) for n in range(20)])
    trained = sorted(numbers(it)[-1] for it in samples if it.side == TRAIN)
    assert 10 < len(trained) < 20
    for built in samples:
        own = numbers(built)[-1]
        if built.side == HELD_OUT:
            assert numbers(built) == [own] and not built.made.earlier
            continue
        before = [n for n in trained if n < own]
        assert numbers(built) == [*[n for n in before for _ in range(2)][-7:], own]
        assert built.made.earlier == len(numbers(built)) - 1
        assert [turn.by_persona for turn in built.made.turns][-2:] in ([False], [True, False])


def test_a_sample_belongs_to_all_whose_messages_it_has(build):
    samples = build([session(n) for n in range(20)])
    assert max(len(it.made.people) for it in samples) == 4
    assert all(set(it.made.people) == members(it) for it in samples)


@pytest.mark.slow
def test_a_share_of_the_sessions_has_it_the_same_in_each_build(build):
    sessions = [session(n) for n in range(200)]
    half, again = ([it.made.earlier for it in build(sessions, 0.5)] for _ in range(2))
    assert half == again and 40 < sum(map(bool, half)) < 90
    assert not any(it.made.earlier for it in build(sessions, 0.0))


def test_another_channel_or_kind_of_source_is_no_history(build):
    samples = build([session(n, channel=f"{n // 10}.json") for n in range(20)])
    assert any(it.made.earlier for it in samples)
    assert all(len({number // 10 for number in numbers(it)}) == 1 for it in samples)
    rows = [dialogue(sentence(n, 12), sentence(-n, 12)) for n in range(1, 30)]
    assert not any(it.made.earlier for it in build(rows))


def test_the_channels_of_a_log_and_the_files_of_a_folder_are_told_apart(tmp_path):
    for file in ("a.json", "b.json"):
        write(tmp_path / "exports" / file, export(talks(3), channel=file))
    line = {"author": "mira", "author_id": "m", "text": "does the bell ring?"}
    channels = enumerate(["tavern", "tavern", "cellar"])
    own = [
        {**line, "channel": channel, "id": str(n), "at": BEGIN_S + n * HOUR_S}
        for n, channel in channels
    ]
    log = write(tmp_path / "log.json", "\n".join(map(json.dumps, own)))
    for source, sessions in ((tmp_path / "exports", [3, 3]), (log, [1, 2])):
        found = Counter(talk.channel for talk in outcome(source).talks)
        assert sorted(found.values()) == sessions and all(found)


def test_a_session_that_goes_on_beside_the_next_is_not_before_it(build):
    trained = [
        it
        for it in build([session(n, lasts_s=1.5 * HOUR_S) for n in range(20)])
        if it.side == TRAIN
    ]
    assert any(it.made.earlier for it in trained)
    assert all(numbers(it)[-1] - 1 not in numbers(it) for it in trained)


def test_a_long_session_has_enough_history_of_its_own(build):
    samples = build([session(n, messages=12) for n in range(8)], history_turns=4)
    whole = [
        it
        for it in samples
        if it.made.turns[-1].text.split()[0].endswith((".4", ".6", ".8", ".10"))
    ]
    assert whole and all(len(it.made.turns) == 4 and not it.made.earlier for it in whole)


def test_what_does_not_fit_is_the_oldest_and_is_not_counted(build):
    samples = build([session(n) for n in range(20)], max_length=250)
    trimmed = [it for it in samples if it.made.trimmed]
    assert trimmed and all(it.made.earlier == len(it.made.turns) - 1 for it in trimmed)
    assert all(it.made.places == range(2) for it in samples)
    assert all(set(it.made.people) == members(it) for it in samples)


def test_a_mix_has_history_of_what_it_uses_and_counts_each_replacement_once(renderer, recipe):
    plan = DatasetPlan(
        renderer,
        recipe.model_copy(update={"cross_session_share": 1.0, "heldout_share": 0.3}),
        CARD,
        limits={"log.json": 10},
        key=b"k",
    )
    with DatasetBuilder(plan, Ledger()) as builder:
        builder.add_source(
            "log.json", [session(n, text=" Write to bo@example.org.") for n in range(30)]
        )
        samples = list(builder.samples())
        counts = builder.anonymiser.counts
    used = {numbers(it)[-1] for it in samples}
    assert any(it.made.earlier for it in samples) and all(
        used >= set(numbers(it)) for it in samples
    )
    assert counts["EMAIL_ADDRESS"] == 60
