"""Members see what is wrong and what to do, and no path of the operator's machine."""

import json
import logging
import re
from dataclasses import replace

import pytest

from bot.cli.logs import LOG_FORMAT, LOG_TIME_FORMAT, OneLineFormatter
from bot.platform.db.database import open_read_only
from bot.platform.errors import STORE_TEXT, error_text, hide_paths
from bot.store import Store, StoreError
from bot.training.status_text import job_result_text
from bot.training.store import NewTrainingJob
from personas.engine.remote.openai_attempts import ReplyCutOffError
from personas.engine.remote.server_errors import (
    AdapterNotServedError,
    OnlyThoughtError,
    ReplicaTimeoutError,
)
from personas.engine.remote.vllm_client import ServerAnswer, VllmClient
from personas.errors import UnderstudyError
from personas.home.adapters import adapter_ref, install_adapter_folder, verify_adapter
from personas.prompt.renderer import PromptTooLongError
from personas.schemas.training import TrainingRequest
from tests.personas.test_adapters import write_adapter


def raised(work, *args):
    with pytest.raises(UnderstudyError) as caught:
        work(*args)
    return caught.value


def test_errors_of_adapters_and_the_database_name_no_folder(tmp_path):
    folder = adapter_ref(tmp_path, "mira", "v3").folder
    errors = [
        raised(verify_adapter, folder),
        raised(open_read_only, tmp_path / "understudy.sqlite"),
    ]
    write_adapter(folder)
    (folder / "adapter_config.json").write_text("other")
    errors += [
        raised(verify_adapter, folder),
        raised(install_adapter_folder, folder, tmp_path / "x" / "v1"),
    ]
    (folder / "manifest.json").write_text(json.dumps({"format": 1}))
    errors.append(raised(verify_adapter, folder))
    (tmp_path / "understudy.sqlite").write_bytes(b"no database" * 1000)
    errors.append(raised(Store.open, tmp_path / "understudy.sqlite"))
    for error in errors:
        assert str(tmp_path) in str(error), "the operator's log and terminal have it"
        text = error_text(error)
        assert str(tmp_path) not in text
        assert (
            text == STORE_TEXT
            if isinstance(error, StoreError)
            else "v3" in text and error.advice in text
        )


URL = "http://10.0.0.7:8790"
CLIENT = VllmClient(URL, None)  # type: ignore[arg-type]  # it asks nothing


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CLIENT._status_error(ServerAnswer(500, "boom")), "The engine failed."),
        (CLIENT._status_error(ServerAnswer(400, "boom")), "The engine failed."),
        (CLIENT._connection_error(OSError("boom")), "The engine failed."),
        (
            CLIENT._connection_error(TimeoutError("boom")),
            "The engine's server did not answer in time.",
        ),
        (
            ReplicaTimeoutError(f"{URL} sent nothing (boom)."),
            "The engine's server did not answer in time.",
        ),
        (
            ReplyCutOffError(f"The reply broke off: {URL} boom", "Regenerate it."),
            "The reply broke off,",
        ),
        (
            AdapterNotServedError(f"{URL} cannot load mira--v1: boom"),
            "The engine cannot load this version.",
        ),
        (
            OnlyThoughtError(f"{URL} sent its reasoning: boom"),
            "The model only thought and wrote no reply. Try again.",
        ),
    ],
)
def test_members_read_no_address_nor_what_a_server_says(error, told, caplog):
    text = error_text(error)
    assert text.startswith(told) and URL not in text and "boom" not in text
    assert any(words in text for words in ("Try again", "Regenerate", "The operator"))
    [record] = caplog.records
    assert str(error) in record.getMessage(), "the operator's log has it"


@pytest.mark.parametrize(
    "text",
    [
        "Use `/finetune start`, or POST /finetune/start-training, or open /dashboard/play.",
        "hub:owner/name and 1/2 and https://example.org/tmp/x and ~/lore/a.md",
    ],
)
def test_commands_and_addresses_stay(text):
    assert hide_paths(text) == text


def test_a_card_that_leaves_no_room_is_named_with_what_to_do():
    text = error_text(PromptTooLongError("the persona's card alone does not fit into the context"))
    assert "card leaves no room" in text and "`/persona set`" in text


def test_a_failed_job_names_none_either(tmp_path):
    store = Store.open(tmp_path / "understudy.sqlite")
    job = store.jobs.add(
        NewTrainingJob("ab", 1, 2, 3, TrainingRequest(job_name="x", persona="oda")), 1.0
    )
    failed = replace(
        job,
        state="failed",
        error=f"{tmp_path}/jobs/ab is damaged.",
        advice=f"Remove {tmp_path}/jobs/ab.",
    )
    assert job_result_text(failed).endswith("ab is damaged. Remove ab.")
    store.close()


def test_no_text_writes_a_line_of_its_own_into_the_log():
    record = logging.LogRecord(
        "bot", logging.INFO, "x.py", 1, "the card of %s", ("Ann\n12:00 ERROR \x1b[2J\u202e",), None
    )
    record.created = 1_700_000_000.0
    line = OneLineFormatter(LOG_FORMAT, LOG_TIME_FORMAT).format(record)
    assert (
        line.endswith(r" INFO bot: the card of Ann\n12:00 ERROR \x1b[2J\u202e") and "\n" not in line
    )
    assert re.match(r"2023-11-1[45]T\d\d:\d\d:\d\d[+-]\d{4} ", line), (
        "a date, with the offset from UTC"
    )
