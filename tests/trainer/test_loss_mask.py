"""What is trained on, shown: of a data set, a job, a source; what has no trained token is dropped
and counted.
"""

from __future__ import annotations

import json
import re

import pytest

from personas.home.job_folder import read_spec
from personas.models.loading import load_tokenizer
from personas.prompt.renderer import TokenizedSample
from tests.tiny_models import make_adapter
from tests.trainer.job_folders import export, persona_job, sign, talks
from tests.trainer.preference_jobs import BAD, GOOD, preference_job, votes
from trainer.cli.mask_command import _highlight_sample, _mask_lines
from trainer.dataset.sample_renderer import NOTHING_TRAINED, SampleRenderer
from trainer.report.loss_mask_view import MaskedSample, mask_summary_of_job, split_by_loss
from trainer.sources.conversation import Conversation, SourceMessage, SourceSpeaker
from trainer.train.job import prepare_job


@pytest.fixture
def source(tmp_path):
    (tmp_path / "ada.toml").write_text('id = "ada"\nname = "Ada"\n')
    (tmp_path / "talk.json").write_text(export(talks(30)))
    sign(tmp_path / "talk.json")
    return ("--persona", "ada.toml")


def test_a_source_and_the_data_set_built_of_it_have_the_same_masks(source, command):
    of_source = json.loads(command("mask", "talk.json", *source, "--json", "--limit", "3")[1])
    built = json.loads(
        command("dataset", "build", "--source", "talk.json", *source, "--out", "out", "--json")[1]
    )
    of_dataset = json.loads(command("mask", "out", "--json", "--limit", "3")[1])
    assert of_source == of_dataset and of_source["samples"] == built["samples"]
    assert sum(of_source["tokens"].values()) == built["tokens"]
    assert len(of_source["shown"]) == 3
    for shown in of_source["shown"]:
        learned = [text for text, trained in shown["parts"] if trained]
        assert (
            len(learned) == 1
            and learned[0].startswith("I mended clock")
            and learned[0].endswith("<|im_end|>")
        )
        assert 0 < shown["trained_tokens"] < shown["tokens"]


def test_a_jobs_masks_are_those_of_its_run(tmp_path, command):
    folder = persona_job(tmp_path / "job", "embedded")
    result = json.loads(command("mask", str(folder), "--json")[1])
    data = prepare_job(folder, read_spec(folder)).data
    assert result["samples"] == {"train": len(data.train), "eval": len(data.heldout)}
    assert result["trained_tokens"]["train"] == sum(sample.reply_tokens for sample in data.train)
    assert result["tokens"]["eval"] == sum(len(sample.ids) for sample in data.heldout)


def test_in_a_pipe_it_stands_between_brackets_with_counts(source, command):
    _, output, _ = command("mask", "talk.json", *source, "--limit", "1")
    assert (
        output.count("⟦I mended clock") == output.count("<|im_end|>⟧") == 1 and "\x1b" not in output
    )
    assert "tokens are trained on" in output and "samples to train on: loss on" in output


def test_on_a_terminal_it_stands_in_colour_and_no_text_commands_the_terminal():
    masked = MaskedSample("train", (("asked \x1b[2J", False), ("said", True)), 1, 3)
    assert (
        _highlight_sample(masked, True)
        == "\x1b[2masked \N{REPLACEMENT CHARACTER}[2J\x1b[1;32msaid\x1b[0m\x1b[2m\x1b[0m"
    )
    assert _highlight_sample(masked, False) == "asked \N{REPLACEMENT CHARACTER}[2J⟦said⟧"
    rejected = MaskedSample("train", (("asked ", False), ("said", True)), 1, 3, rejected=True)
    assert _highlight_sample(rejected, True) == "\x1b[2masked \x1b[1;31msaid\x1b[0m\x1b[2m\x1b[0m"


@pytest.mark.slow
def test_replies_that_members_rejected_are_judged_and_not_learned_from(tmp_path, tiny_base):
    adapter = make_adapter(tmp_path / "home", tiny_base, "ada", "v1", seed=1).folder
    folder = preference_job(tmp_path / "job", tiny_base.source, adapter, votes(312))
    masks = mask_summary_of_job(folder, 4)
    result = masks.as_json()
    assert result["samples"]["train"] == 572 and result["rejected"]["samples"] == 312
    assert (
        result["trained_tokens"]["train"] + result["rejected"]["tokens"] < result["tokens"]["train"]
    )
    liked, disliked, _, _ = result["shown"]
    assert (
        any(learned and text.startswith(GOOD) for text, learned in liked["parts"])
        and "rejected" not in liked
    )
    assert disliked["trained_tokens"] == 0 and not any(learned for _, learned in disliked["parts"])
    assert disliked["rejected"].startswith(BAD) and disliked["rejected_tokens"] > 0
    words = "\n".join(_mask_lines(masks, False))
    assert f"⟦{GOOD}" in words and f"⟪{BAD}" in words and "is judged, not learned from" in words
    assert re.search("312 of the samples .*members rejected", words)


def test_a_sample_of_a_data_set_without_a_trained_token_is_dropped_and_counted(
    source, tmp_path, command
):
    command("dataset", "build", "--source", "talk.json", *source, "--out", "out")
    before = json.loads(command("mask", "out", "--json")[1])
    lines = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    empty = json.loads(lines[0])
    empty["messages"][-1]["content"] = "  "
    (tmp_path / "out" / "train.jsonl").write_text("\n".join([json.dumps(empty), *lines[1:]]) + "\n")
    after = json.loads(command("mask", "out", "--json")[1])
    assert after["samples"]["train"] == before["samples"]["train"] - 1 and after["dropped"] == {
        NOTHING_TRAINED: 1
    }


def test_a_run_drops_and_counts_a_reply_without_a_token_to_train_on(renderer, recipe):
    asker = SourceSpeaker("1", ("mira",))
    ada = SourceSpeaker("2", ("Ada",), is_persona=True)
    said = ((asker, "well?"), (ada, " \n "), (asker, "and?"), (ada, "Oil."))
    talk = Conversation(
        tuple(SourceMessage(who, text, "") for who, text in said), "talk", "own-writing", ""
    )
    faults: dict[int, str] = {}
    made = list(SampleRenderer(renderer, None, None, recipe, None).render(talk, faults))
    assert faults == {1: NOTHING_TRAINED} and [it.reply for it in made] == ["Oil."]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mask", "nowhere"), "no data set 'nowhere'"),
        (("mask", "/nowhere"), "no file or folder /nowhere"),
        (("mask", "talk.json", "--source", "talk.json"), "DATASET and --source"),
    ],
)
def test_what_cannot_be_shown_is_said(source, command, words, said):
    code, _, errors = command(*words, *source)
    assert code == 1 and said in errors


def test_a_character_of_several_tokens_is_shown_whole(tiny_base):
    """Also where the border of what is trained lies between its tokens."""
    tokenizer = load_tokenizer(tiny_base)
    text = "so 🦀 and ᚠ here"
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert len(ids) > len(text.split()) + 2, "characters of several tokens"
    for border in range(1, len(ids)):
        mask = tuple(place >= border for place in range(len(ids)))
        parts = list(split_by_loss(tokenizer, TokenizedSample(ids, mask)))
        assert "".join(piece for piece, _ in parts) == text, parts
        assert [trained for _, trained in parts] == [False, True]
