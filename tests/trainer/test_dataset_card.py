"""What an adapter's data sheet counts, and who is listed with it."""

import json

import pytest

from personas.home.data_subjects import Consent, write_consent
from personas.home.pseudonyms import keyed_person
from tests.trainer.job_folders import (
    add_general_training,
    export,
    message,
    persona_job,
    talks,
)
from trainer.report.adapter_docs import write_adapter_data_sheet
from trainer.train.job import prepare_job_without_torch

MIRA = message("")["author"]["id"]
PERMISSION = "Discord's letter of 3 March 2026 permits it."
PEOPLE_KEY = b"k" * 32
"""That of `tests.trainer.job_folders`."""


@pytest.fixture
def sheet_of(tmp_path):
    """The sheet of a job folder's adapter, as data and as text, and the job."""

    def made(folder):
        job = prepare_job_without_torch(folder)
        write_adapter_data_sheet(tmp_path, job.spec, job.data)
        return (
            json.loads((tmp_path / "datasheet.json").read_text()),
            (tmp_path / "datasheet.md").read_text(),
            job,
        )

    return made


def stated(folder, **fields):
    """Change what is stated of the job's log."""
    path = folder / "request.json"
    request = json.loads(path.read_text())
    for material in request["materials"]:
        material |= fields if material["kind"] == "log" else {}
    path.write_text(json.dumps(request))
    return folder


def test_samples_are_counted_by_right_source_and_day_and_what_was_replaced_by_kind(
    tmp_path, sheet_of
):
    lines = [
        *talks(10),
        message("Write to mira@example.com, Ada", minute=9000),
        message("I shall.", "Ada", 9001),
    ]
    folder = persona_job(tmp_path / "job", "embedded", log=export(lines))
    stated(
        folder,
        right="licensed:CC0",
        why="All agreed.",
        stated_on="2026-11-20",
        arrived="2026-11-19",
    )
    sheet, text, job = sheet_of(folder)
    assert sheet["by_right"] == {"licensed:CC0": 11} and sheet["by_source"] == {"talk.json": 11}
    assert sum(sheet["samples"].values()) == 11 and sheet["arrived"] == {"2026-11-19": 11}
    assert sheet["replaced"]["EMAIL_ADDRESS"] == 1 and sheet["permission"] == ""
    log = next(it for it in sheet["materials"] if it["kind"] == "log")
    assert (log["right"], log["stated_by"], log["stated_on"], log["why"]) == (
        "licensed:CC0", "the tests", "2026-11-20", "All agreed.",
    )  # fmt: skip
    assert (
        "| licensed:CC0 | 11 |" in text
        and "| EMAIL_ADDRESS | 1 |" in text
        and sheet["hash"] == job.data.hash
    )
    assert "All agreed." in text and "Pseudonymised is not anonymous" in text


@pytest.mark.parametrize(("share", "samples"), [(0.0, 0), (0.2, 3)])
def test_general_dialogue_that_ships_is_listed_where_it_is_trained_on(
    tmp_path, sheet_of, share, samples
):
    folder = persona_job(tmp_path / "job", "embedded", hyperparameters={"general_share": share})
    sheet, text, _ = sheet_of(add_general_training(folder, 3, 9))
    kinds = [it["kind"] for it in sheet["materials"]]
    assert sheet["by_source"].get("general-training", 0) == samples
    assert ("general-training" in kinds, "general-training" in text) == (bool(samples),) * 2


def test_people_are_counted_by_the_samples_in_which_they_speak(tmp_path):
    job = prepare_job_without_torch(persona_job(tmp_path, "embedded", log=export(talks(10))))
    assert (
        job.data.people[keyed_person(PEOPLE_KEY, MIRA)]
        == job.data.people[keyed_person(PEOPLE_KEY, "name:mira_wet")]
        == 10
    )


def test_what_came_through_discords_api_is_dated_and_permitted(tmp_path, sheet_of):
    lines = [
        line | {"author": line["author"] | {"isBot": line["author"]["name"] == "Ada"}}
        for line in talks(10)
    ]
    lines += [message("Hello!", "bo", 9000), message("Hello to you, Bo.", "Ada", 9001)]
    folder = stated(
        persona_job(tmp_path / "job", "embedded", log=export(lines)), right="discord-api"
    )
    write_consent(folder, Consent(permission=PERMISSION, opted_in=frozenset({MIRA})))
    sheet, text, job = sheet_of(folder)
    assert (
        sheet["by_right"] == {"discord-api": 10}
        and sheet["permission"] == PERMISSION
        and PERMISSION in text
    )
    assert sheet["arrived"] == {"2026-03-01": 8, "2026-03-02": 2}, "each message when it was said"
    assert sheet["dropped"] == {
        "said by somebody who has not opted in": 1,
        "the persona is played by somebody who has not opted in": 1,
    }
    assert (
        job.data.ledger.rows
        == 22
        == job.data.ledger.rows_used + sum(job.data.ledger.dropped.values())
    )
