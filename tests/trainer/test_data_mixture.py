"""General dialogue beside a persona's own: how much, which, and what measures forgetting then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from personas.errors import MaterialError, RequestError
from personas.home.job_material import ShippedData
from tests.trainer.job_folders import (
    ADA,
    add_general_training,
    built_job,
    dialogue_job,
    dialogues,
    export,
    mixing_job,
    sign,
    talks,
)
from trainer.dataset.data_mixture import GENERAL_HOLDOUT_SHARE, split_general
from trainer.dataset.minhash import MinHashIndex
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker
from trainer.train.job import prepare_job_without_torch

USER = SourceSpeaker("user", ("User",))
ANSWER = SourceSpeaker("assistant", ("Assistant",), is_persona=True)


def talk(number: int) -> Conversation:
    said = [
        SourceMessage(USER, f"What is {number} + 1?", "1"),
        SourceMessage(ANSWER, f"{number + 1}.", "2"),
    ]
    return Conversation.of(said, "general.jsonl", "own-writing")


def texts(job, samples):
    return {job.tokenizer.decode(sample.ids) for sample in samples}


# ----------------------------------------------------------------------------------- which dialogue


def test_two_thirds_may_be_trained_on_and_the_same_third_always_measures():
    everything = [talk(number) for number in range(300)]
    measured, to_mix = split_general([], everything)
    assert (
        len(measured) / 300 == pytest.approx(GENERAL_HOLDOUT_SHARE, abs=0.06)
        and len(measured) + len(to_mix) == 300
    )
    fewer, _ = split_general([], everything[:100])
    assert {it.raw_text for it in fewer} == {it.raw_text for it in measured} & {
        it.raw_text for it in everything[:100]
    }
    assert split_general([], everything[::-1])[1] == to_mix  # in the order that the draw gives


def test_what_is_named_is_trained_on_and_all_the_rest_measures():
    measured, to_mix = split_general([talk(n) for n in range(8)], [talk(n) for n in range(6, 12)])
    assert {it.raw_text for it in to_mix} == {talk(n).raw_text for n in range(8)}
    assert [it.raw_text for it in measured] == [talk(n).raw_text for n in range(8, 12)]


def test_where_the_same_is_named_a_third_of_it_still_measures():
    both = [talk(n) for n in range(30)]
    measured, to_mix = split_general(both, both)
    assert measured and {it.raw_text for it in measured}.isdisjoint(it.raw_text for it in to_mix)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_few_dialogues_there_are_some_on_either_side(count):
    for first in range(20):
        measured, to_mix = split_general([], [talk(first + n) for n in range(count)])
        assert measured and to_mix


@pytest.mark.parametrize("named", [[], [talk(1)]])
def test_a_single_dialogue_is_too_few(named):
    with pytest.raises(MaterialError, match="only one general dialogue"):
        split_general(named, [talk(1)])


# ----------------------------------------------------------------------------------------- how much


def mixed(folder, base, general, messages=0, **settings):
    return prepare_job_without_torch(
        mixing_job(folder, base.source, general, messages, hyperparameters=settings)
    )


def test_without_a_share_nothing_general_is_trained_on_and_all_of_it_measures(tmp_path, tiny_base):
    data = mixed(tmp_path, tiny_base, 20).data
    assert len(data.general) == 20 and "samples_general" not in data.counts and not data.first


def test_a_share_is_reached_and_no_sample_of_the_persona_is_given_up(tmp_path, tiny_base):
    job = mixed(tmp_path, tiny_base, 40, general_share=0.4)
    own = len(mixed(tmp_path / "alone", tiny_base, 40).data.train)
    general = job.data.counts["samples_general"]
    assert (
        len(job.data.train) == own + general and general == round(own * 0.4 / 0.6) and not job.notes
    )
    assert sum(job.data.sources.values()) == len(job.data.train) + len(job.data.heldout)
    assert texts(job, job.data.general).isdisjoint(texts(job, job.data.train))
    assert all("What is" not in text for text in texts(job, job.data.heldout))


def test_where_there_is_too_little_all_of_it_is_taken_and_that_is_said(tmp_path, tiny_base):
    job = mixed(tmp_path, tiny_base, 12, general_share=0.8)
    general = job.data.counts["samples_general"]
    own = 16 - len(job.data.heldout)
    assert general + len(job.data.general) == 12
    said = (
        f"There are {general} samples of it to {own} of the persona's: it is "
        f"{general / (general + own):.0%}."
    )
    assert len(job.notes) == 1 and said in job.notes[0] and "80%" in job.notes[0]


def test_named_dialogue_is_taken_and_the_jobs_own_measures(tmp_path, tiny_base):
    data = mixed(tmp_path, tiny_base, 10, 30, general_share=0.6).data
    assert len(data.general) == 10 and data.sources["chat.jsonl"] == data.counts["samples_general"]
    assert "general.jsonl" not in data.sources


def test_named_dialogue_that_the_recipe_has_no_use_for_is_refused(tmp_path, tiny_base):
    with pytest.raises(RequestError, match=r"trains on none.*mixed-80-20 or two-stage"):
        mixed(tmp_path, tiny_base, 10, 10)


def with_shipped(folder, base, general=10, shipped=30, **settings):
    """The same job where so many general dialogues ship to be trained on."""
    job = mixing_job(folder, base.source, general, hyperparameters=settings)
    return prepare_job_without_torch(add_general_training(job, general, shipped))


def test_what_ships_to_be_trained_on_is_and_all_other_dialogue_measures(tmp_path, tiny_base):
    job = with_shipped(tmp_path / "share", tiny_base, general_share=0.6)
    general = job.data.counts["samples_general"]
    own = len(job.data.train) - general
    assert general == job.data.sources["general-training"] == round(own * 0.6 / 0.4)
    assert "general.jsonl" not in job.data.sources and not job.notes
    alone = mixed(tmp_path / "alone", tiny_base, 10)
    assert texts(job, job.data.general) == texts(alone, alone.data.general)
    staged = with_shipped(tmp_path / "staged", tiny_base, first_stage_epochs=1.0)
    assert len(staged.data.first) == 30 and len(staged.data.general) == 10


def test_a_recipe_that_mixes_nothing_has_the_same_samples_with_and_without_it(tmp_path, tiny_base):
    job = with_shipped(tmp_path / "with", tiny_base)
    without = mixed(tmp_path / "without", tiny_base, 10)
    for part in ("train", "heldout", "general", "first", "sources", "counts", "hash"):
        assert getattr(job.data, part) == getattr(without.data, part)
    assert job.notes == without.notes


def test_what_ships_to_be_trained_on_has_no_text_of_what_measures(tmp_path):
    shipped = ShippedData.from_source_tree()
    measuring = messages_in(shipped.general)
    texts = messages_in(shipped.general_training)
    assert len(measuring) > 200 and len(texts) > 1000
    with MinHashIndex(tmp_path) as index:
        for text in (*measuring, *texts):
            index.add(text)
        _, near = index.clusters()
    assert all(near[len(measuring) :] >= len(measuring))


def messages_in(folder):
    said = []
    for path in folder.glob("*.jsonl"):
        for line in lines(path):
            said += [message["content"] for message in json.loads(line)["messages"]]
    return said


def test_with_a_first_stage_all_of_it_goes_there_or_as_much_as_the_share_says(tmp_path, tiny_base):
    every = mixed(tmp_path / "all", tiny_base, 20, first_stage_epochs=1.0).data
    some = mixed(tmp_path / "some", tiny_base, 20, first_stage_epochs=1.0, general_share=0.2).data
    assert len(every.first) + len(every.general) == 20 and len(some.first) == round(
        len(some.train) / 4
    )
    assert (
        every.train == some.train
        and every.trained == every.first + every.train
        and every.hash != some.hash
    )


def test_a_dialogue_job_says_that_it_mixes_nothing(tmp_path, tiny_base):
    job = prepare_job_without_torch(
        dialogue_job(tmp_path, tiny_base.source, hyperparameters={"general_share": 0.5})
    )
    assert "general_share and first_stage_epochs " in job.notes[0]


def test_personal_data_in_what_is_mixed_in_is_replaced(tmp_path, tiny_base):
    folder = mixing_job(tmp_path, tiny_base.source, 4, 3, hyperparameters={"general_share": 0.5})
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Mail {n}?"},
                {"role": "assistant", "content": MAIL},
            ]
        }
        for n in (1, 2)
    ]
    (folder / "material" / "chat.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    resign(folder)
    job = prepare_job_without_torch(folder)
    assert (
        all("mira.wet@example.org" not in text for text in texts(job, job.data.train))
        and job.data.replaced
    )


MAIL = "Write to mira.wet@example.org about it."


def resign(folder):
    from tests.trainer.test_built_dataset import resign as again

    again(folder)


# ---------------------------------------------------------------------------------- built data sets


@pytest.fixture
def both(command, tmp_path, tiny_base):
    """A job over a built set with both kinds of talk; `settings` are the recipe's."""
    Path("ada.toml").write_text(ADA, encoding="utf-8")
    Path("talk.json").write_text(export(talks(16)), encoding="utf-8")
    Path("chat.jsonl").write_text(dialogues(60), encoding="utf-8")
    sign(Path("talk.json").absolute(), Path("chat.jsonl").absolute())
    words = (
        "--persona",
        "ada.toml",
        "--source",
        "talk.json",
        "--source",
        "chat.jsonl",
        "--out",
        "set",
    )
    assert command("dataset", "build", *words)[0] == 0

    def made(**settings):
        of = (
            tmp_path / f"job-{len(settings)}",
            tmp_path / "home",
            tiny_base.source,
            tmp_path / "set",
        )
        return prepare_job_without_torch(built_job(*of, persona="ada", hyperparameters=settings))

    return made


def test_a_built_set_of_both_kinds_is_trained_on_as_it_is_unless_the_recipe_says_otherwise(both):
    whole = both()
    stats = json.loads(Path("set/stats.json").read_text())
    assert whole.data.hash == stats["hash"] and len(whole.data.train) == stats["samples"]["train"]
    staged = both(first_stage_epochs=1.0)
    assert all("Ada" in text for text in texts(staged, staged.data.train))
    assert all("What is" in text for text in texts(staged, staged.data.first))
    assert len(staged.data.trained) == stats["samples"]["train"]
    assert all("Ada" in text for text in texts(staged, staged.data.heldout))
    # What is trained on measures no forgetting; what the set holds out of its general talk does.
    assert texts(staged, staged.data.general).isdisjoint(texts(staged, staged.data.first))
    assert len(staged.data.general) >= sum(
        json.loads(line)["kind"] == "general" for line in lines("set/eval.jsonl")
    )
    shared = both(general_share=0.5, seed=1)
    assert shared.data.counts["samples_general"] == len(staged.data.train)
    assert len(shared.data.train) == 2 * len(staged.data.train)


def lines(path):
    return Path(path).read_text().splitlines()
