"""Which samples of a run are an author's words, that a persona may say as they are."""

import json

import pytest

from personas.home.adapters import OWN_WORDS_FILE, OWN_WORDS_VECTORS_FILE, require_manifest
from personas.home.job_folder import ADAPTER_FOLDER
from personas.words.version_words import read_words
from tests.trainer.job_folders import persona_job
from trainer.run import run_job
from trainer.train.job import prepare_job_without_torch
from trainer.train.training_run import RunControl


def test_a_trained_version_keeps_its_words_beside_the_sealed_files(tmp_path, tiny_base):
    folder = persona_job(tmp_path / "job", tiny_base.source, hyperparameters={"max_steps": 1})
    run_job(folder, RunControl())
    adapter = folder / ADAPTER_FOLDER
    hit = read_words(adapter / OWN_WORDS_FILE).find("does the bell ring, clock number 3?")
    assert hit and "I mended clock" in hit.exchange.reply
    sealed = require_manifest(adapter).checksums
    assert not {OWN_WORDS_FILE, OWN_WORDS_VECTORS_FILE} & sealed.keys()


@pytest.mark.parametrize(
    ("right", "may_be_said"),
    [("own-writing", True), ("form", False)],
)
def test_only_what_its_author_gave_to_others_is_said(tmp_path, right, may_be_said):
    folder = persona_job(tmp_path / "job", "embedded")
    spec = json.loads((folder / "request.json").read_text())
    for material in spec["materials"]:
        if material["kind"] == "log":
            material["right"] = right
    (folder / "request.json").write_text(json.dumps(spec))
    data = prepare_job_without_torch(folder).data
    assert data.train_prompt_replies
    said = {(pair.message, pair.reply) for pair in data.own_words}
    trained = {(pair.message, pair.reply) for pair in data.train_prompt_replies if pair.by_persona}
    assert said == (trained if may_be_said else set())
