"""A plan comes from a trainer process of its own; whatever that says or does becomes words."""

import asyncio
import json
import os
import sys
import time

import pytest

from bot.platform.clock import SystemClock
from bot.privacy.consent_files import ConsentMirror
from bot.privacy.erasure_runner import ErasureRunner
from bot.store import Store
from bot.training import status_text, training_plan
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from personas.errors import RequestError, TrainingError
from personas.schemas.training import TrainingRequest
from tests.bot.languages import localised
from tests.bot.subprocess_trainer import ship
from tests.fakes import PLAN, until

ASKED = TrainingRequest(job_name="preview", persona="oda")


def backend(tmp_path, script):
    """A backend whose trainer is a line of Python; its arguments stand in `sys.argv[1:]`."""
    return SubprocessBackend(
        tmp_path / "home",
        DatasetCatalog(ship(tmp_path / "source"), "embedded", tmp_path / "home"),
        SystemClock(),
        threads=1,
        nice=0,
        serving_precision="float32",
        environ=os.environ | {"DISCORD_TOKEN": "secret"},
        command=(sys.executable, "-c", script),
    )


async def test_the_trainer_is_asked_over_the_folder_that_a_job_would_have(tmp_path):
    noted = tmp_path / "noted.json"
    script = (
        "import json, os, pathlib, sys; folder = pathlib.Path(sys.argv[2]);"
        "noted = [sys.argv[1:], json.loads((folder / 'request.json').read_text()), "
        "sorted(os.environ),"
        "         all((folder / 'material' / m['path']).exists()"
        "             for m in json.loads((folder / 'request.json').read_text())['materials'])];"
        f"pathlib.Path({str(noted)!r}).write_text(json.dumps(noted));"
        f"print({PLAN.model_dump_json()!r})"
    )
    assert await backend(tmp_path, script).plan(ASKED) == PLAN
    words, request, environment, is_whole = json.loads(noted.read_text())
    assert words[0] == "run" and {"--dry-run", "--json"} <= set(words) and is_whole
    assert request["request"]["persona"] == "oda" and {m["kind"] for m in request["materials"]} >= {
        "card",
        "log",
    }
    assert "DISCORD_TOKEN" not in environment and "UNDERSTUDY_HOME" in environment
    assert not (tmp_path / words[1]).exists() and not (tmp_path / "home" / "jobs").exists(), (
        "nothing is left"
    )


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "import sys; sys.exit('log line\\nOda never speaks in oda.json. Name her.')",
            "^Oda never speaks in oda.json",
        ),
        ("import sys; sys.exit(7)", "exit code 7"),
        (
            'import sys; print(\'{"error": "odd.txt is in no known format.",'
            ' "advice": "Known:\\\\n  a: A\\\\n  b: B"}\');'
            "sys.exit('odd.txt is in no known format. Known:\\n  a: A\\n  b: B')",
            r"^odd\.txt is in no known format\. Known: a, b\.$",
        ),
        ("print('no json')", "cannot be read"),
        ("print('{}')", "cannot be read"),
    ],
)
async def test_what_goes_wrong_is_said(tmp_path, script, said):
    with pytest.raises(TrainingError, match=said):
        await backend(tmp_path, script).plan(ASKED)


async def test_a_trainer_that_says_nothing_is_ended_and_blocks_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(training_plan, "PLAN_TIMEOUT_S", 0.4)
    asked = asyncio.create_task(backend(tmp_path, "import time; time.sleep(60)").plan(ASKED))
    ticks = 0
    while not asked.done():
        await asyncio.sleep(0.01)
        ticks += 1
    with pytest.raises(TrainingError, match="took too long"):
        await asked
    assert ticks > 10


KILLED = """
import asyncio, pathlib, sys
from tests.bot import test_training_plan
trainer = "import tempfile, time; tempfile.mkdtemp(prefix='begun'); time.sleep(3)"
asyncio.run(test_training_plan.backend(pathlib.Path(sys.argv[1]), trainer).plan(test_training_plan.ASKED))
"""


async def test_what_a_killed_bot_leaves_of_a_preview_lies_in_the_home_and_goes_with_it(tmp_path):
    """All that is written lies in the home, the trainer's own temporary files too."""
    home = tmp_path / "home"
    apart = tmp_path / "apart"
    apart.mkdir()
    environ = os.environ | {"TMPDIR": str(apart)}
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, str(tmp_path), env=environ
    )
    await until(lambda: any(home.glob("previews/*/begun*")), 30)
    bot.kill()
    await bot.wait()
    (left,) = home.glob("previews/*")
    assert (
        (left / "job" / "request.json").exists()
        and not list(apart.iterdir())
        and left.stat().st_mode & 0o77 == 0
    )
    with Store.open(home / "understudy.sqlite") as store:
        people = ErasureRunner(home, store, ConsentMirror(home, store, ""), time.time)
        await people.run(people.begin(people.traces(734829104458293761)))
    assert not (home / "previews").exists()


async def test_what_is_not_in_the_catalogue_is_refused_at_once(tmp_path):
    with pytest.raises(RequestError, match="no persona 'adda'"):
        await backend(tmp_path, "raise SystemExit(1)").plan(
            ASKED.model_copy(update={"persona": "adda"})
        )


def plan_text(*args, **options):
    return "\n".join(status_text.plan_texts(*args, **options))


def test_a_plan_lists_what_is_taken_and_what_is_not():
    taken = {
        "as_is": [{"what": "column neno (what is said)", "why": ""}],
        "other_meaning": [
            {
                "what": "SillyTavern chat",
                "why": "of several swipes, the one that is shown is the reply",
            }
        ],
        "not_taken": [{"what": "column alama", "why": "it has no role"}],
    }
    text = plan_text(
        PLAN.model_copy(update={"import_report": taken}), "demo-cpu", position=1, is_training=False
    )
    assert "\nTaken as is: column neno (what is said)\n" in text
    assert "\nTaken with another meaning: SillyTavern chat – of several swipes" in text
    assert "\nNot taken: column alama – it has no role\n" in text
    assert "Taken" not in plan_text(PLAN, "demo-cpu", position=1, is_training=False)


def test_the_phases_of_a_plan_are_in_the_language_of_its_reader():
    estimate = PLAN.recipes[0].model_copy(update={"phases": {"material": 5.0, "training": 70.0}})
    text = status_text.phases_text(estimate)
    assert text == "reading the material 5 s, training 1 min 10 s; "
    assert localised(text, "de").startswith("liest das Material 5 s, ")
    assert status_text.phases_text(estimate.model_copy(update={"phases": {}})) == ""


def test_the_numbers_of_a_plan_are_written_as_its_reader_does():
    plan = PLAN.model_copy(update={"rows": 2000, "rows_used": 1734, "dropped": {"short": 1266}})
    texts = status_text.plan_texts(plan, "demo-cpu", position=1, is_training=False)
    german = localised(texts[0], "de")
    assert "1\u202f734 von 2\u202f000" in german and "- 1\u202f266: short" in german
    assert "1,734 of 2,000" in texts[0] and "- 1,266: short" in texts[0]


def test_a_histogram_has_few_bars_and_loses_no_sample():
    spread = training_plan.TokenHistogram(
        edges=tuple(range(40, 520, 20)), counts=tuple(range(1, 24))
    )
    rows = spread.rows
    assert len(rows) == 12 and sum(count for _, count in rows) == sum(range(1, 24))
    assert rows[0] == ("40 to 79", 3.0) and rows[-1] == ("480 to 499", 23.0)
    assert training_plan.TokenHistogram().rows == [] and training_plan.TokenHistogram(
        edges=(4, 9), counts=(2,)
    ).rows == [("4 to 8", 2.0)]
