"""Samples under the short card: their share, what else stays as it was, and how a version that was
trained with them is measured.
"""

import argparse
import json
import shutil

import pytest

from personas.errors import RequestError
from personas.home.adapters import verify_adapter, write_manifest
from personas.home.job_folder import read_spec
from personas.home.prompt_version import SHORT_CARD_COUNT, has_learned_short_card
from personas.schemas.chat import AdapterRef
from personas.schemas.scorecard import ScoreCard
from tests.trainer.job_folders import built_job, described, export, persona_job, sign, talks
from trainer.cli.error_handling import with_error_handling
from trainer.cli.evaluate_command import add_evaluate, evaluate
from trainer.run import run_job
from trainer.train.job import prepare_job
from trainer.train.training_run import RunControl

pytestmark = pytest.mark.usefixtures("blank_charts")
LINE = "You are Ada. Mender of clocks."
CARD = """id = "ada"
name = "Ada"
tagline = "Mender of clocks."
description = "You are Ada, who oils the tower at dawn."
mes_example = "<START>\\n{{user}}: late?\\n{{char}}: Never late."
"""


def job(folder, base, share, count=16, **settings):
    """A job of a persona whose card has a tagline; with a share of None the recipe's default."""
    if share is not None:
        settings["short_card_share"] = share
    persona_job(folder, base.source, export(talks(count)), hyperparameters=settings)
    (folder / "material" / "ada.toml").write_text(CARD, encoding="utf-8")
    spec = json.loads((folder / "request.json").read_text())
    others = [material for material in spec["materials"] if material["kind"] != "card"]
    spec["materials"] = [described(folder / "material", "card", "ada.toml"), *others]
    (folder / "request.json").write_text(json.dumps(spec))
    return folder


def texts(prepared, samples):
    return [prepared.tokenizer.decode(sample.ids) for sample in samples]


def count(prepared):
    return sum(LINE in text for text in texts(prepared, prepared.data.train))


@pytest.fixture
def prepare(tmp_path, tiny_base):
    def prepared(share, **changes):
        folder = tmp_path / f"share-{share}"
        if not folder.exists():
            job(folder, tiny_base, share)
        return prepare_job(folder, read_spec(folder), **changes)

    return prepared


def test_a_share_of_the_trained_samples_has_the_short_card(prepare):
    counts = {}
    for share in (0.0, 0.5, 1.0):
        prepared = prepare(share)
        counts[share] = count(prepared)
        assert prepared.data.counts.get(SHORT_CARD_COUNT, 0) == counts[share]
        for text in texts(prepared, prepared.data.train):
            is_short = LINE in text
            assert ("at dawn" in text) is ("Never late" in text) is not is_short
        short = {
            place for place, text in enumerate(texts(prepared, prepared.data.train)) if LINE in text
        }
        assert prepared.data.with_other_card == short
        heldout = texts(prepared, prepared.data.heldout)
        assert heldout and all("at dawn" in text for text in heldout), "they compare versions"
    whole = len(prepare(1.0).data.train)
    assert counts[0.0] == 0 < counts[0.5] < counts[1.0] == whole


def test_a_larger_share_keeps_the_samples_of_a_smaller_one(prepare):
    some, more = prepare(0.3), prepare(0.8)
    for one, other in zip(texts(some, some.data.train), texts(more, more.data.train), strict=True):
        assert LINE not in one or LINE in other


def test_history_lore_and_reply_are_those_of_the_full_card(prepare):
    full, short = prepare(0.0).data, prepare(1.0).data
    assert short.train_prompt_replies == full.train_prompt_replies
    assert short.heldout == full.heldout and short.general == full.general
    assert short.counts == {**full.counts, SHORT_CARD_COUNT: len(short.train)}
    for one, other in zip(full.train, short.train, strict=True):
        reply = one.ids[len(one.ids) - one.reply_tokens :]
        assert other.ids[len(other.ids) - other.reply_tokens :] == reply
        assert one.reply_tokens == other.reply_tokens and len(other.ids) < len(one.ids)


def test_all_prompts_are_measured_under_the_short_card(prepare):
    prepared = prepare(0.5, card="short")
    assert prepared.card == "short" and not prepared.data.with_other_card
    heldout = texts(prepared, prepared.data.heldout)
    assert heldout and all(LINE in text and "at dawn" not in text for text in heldout)
    stored = prepare(0.5, stores_dataset=True)
    assert all("at dawn" in text for text in texts(stored, stored.data.heldout))
    again = prepare(0.5, card="short")
    assert again.data.heldout == prepared.data.heldout, "the stored set is another"
    assert again.data.persona.description.endswith("at dawn."), "the card itself is whole"


def test_a_built_data_set_keeps_its_share_and_cannot_be_measured_otherwise(
    tmp_path, tiny_base, command
):
    (tmp_path / "card.toml").write_text(CARD, encoding="utf-8")
    (tmp_path / "talk.json").write_text(export(talks(16)), encoding="utf-8")
    sign(tmp_path / "talk.json")
    words = ("dataset", "build", "--persona", "card.toml", "--source", "talk.json", "--out", "set")
    code, _, err = command(*words, "--set", "short_card_share=0.5")
    assert code == 0, err
    folder = built_job(
        tmp_path / "job", tmp_path / "home", tiny_base.source, tmp_path / "set", persona="ada"
    )
    prepared = prepare_job(folder, read_spec(folder))
    assert 0 < count(prepared) < len(prepared.data.train)
    assert prepared.data.counts[SHORT_CARD_COUNT] == count(prepared)
    with pytest.raises(RequestError, match="hold the full card"):
        prepare_job(folder, read_spec(folder), card="short")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base):
    """A job whose version was trained under the short card, too."""
    folder = job(tmp_path_factory.mktemp("trained") / "run", tiny_base, 0.5, max_steps=1)
    run_job(folder, RunControl(card="losses"))
    return folder


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """`trainer evaluate`: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        parser = argparse.ArgumentParser()
        add_evaluate(parser.add_subparsers())
        code = with_error_handling(evaluate)(parser.parse_args(["evaluate", *map(str, words)]))
        return code, *capsys.readouterr()

    return run


def test_a_trained_version_says_so_in_its_manifest(trained):
    manifest = verify_adapter(trained / "adapter")
    assert manifest.dataset[SHORT_CARD_COUNT] > 0
    assert manifest.hyperparameters["short_card_share"] == 0.5
    assert has_learned_short_card(AdapterRef("ada", "v1", trained / "adapter"))


def test_only_such_a_version_is_measured_under_the_short_card(trained, tmp_path, run):
    code, out, err = run("--adapter", trained / "adapter", "--short-card", "--audit")
    assert (code, out) == (1, "") and "--audit has no short card" in err
    other = tmp_path / "other" / "adapter"
    shutil.copytree(trained / "adapter", other)
    manifest = verify_adapter(other)
    counts = {key: n for key, n in manifest.dataset.items() if key != SHORT_CARD_COUNT}
    write_manifest(other, manifest.model_copy(update={"dataset": counts}))
    code, out, err = run("--adapter", other, "--job", trained, "--short-card")
    assert (code, out) == (1, "") and "was not trained under the short card" in err


@pytest.mark.slow
def test_its_score_card_says_under_which_card_it_was_measured(trained, tmp_path, run):
    code, out, err = run("--adapter", trained / "adapter", "--short-card", "--quick", "--json")
    assert code == 0, err
    assert ScoreCard.model_validate_json(out).prompt_card == "short"
    text = (tmp_path / "build" / "evaluate" / "ada-v1-short-card" / "scorecard.md").read_text()
    assert "all sides under the short card" in text
