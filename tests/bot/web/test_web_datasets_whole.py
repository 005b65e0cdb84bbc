"""From an upload to a plan with the real trainer behind the pages: what it says and makes is what
they read.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.platform.clock import SystemClock
from bot.training.backends.subprocess_backend import SubprocessBackend
from bot.training.dataset_catalog import DatasetCatalog
from personas.home.job_material import ShippedData
from tests.fakes import until

pytestmark = pytest.mark.slow
RIGHT = {
    "right": "own-writing",
    "stated_by": "Mina Vale",
    "stated_on": "2026-11-20",
    "why": "Written for this.",
}
THINGS = "hawser lamp rope tide ledger bell pilot kettle anchor winch gull barrel chart oar".split()


def log() -> str:
    """Wenda Quill asks Ballast, in talks a day apart; one talk says what another said."""
    lines = []
    for n in range(60):
        thing = THINGS[n % 14]
        other = THINGS[(n * 5 + 3) % 14]
        who = f"It is Wenda Quill, wenda.quill{n}@harbour-post.net."
        asked = f"{who} Where do I put the {thing} of berth {n}, by the {other}?"
        result = f"Leave the {thing} where the {other} was yesterday, and mind berth {n + 1}."
        day = f"2026-{3 + n // 28:02}-{1 + n % 28:02}T09:0"
        for k, (author, id, text) in enumerate((("wenda", "42", asked), ("Ballast", "1", result))):
            lines.append({"channel": "quay", "id": f"{n}-{k}", "at": f"{day}{k}:00+00:00", "author": author,
                          "author_id": id, "text": text})  # fmt: skip
    return "".join(json.dumps(line) + "\n" for line in lines)


async def ended(dashboard, kind, name="quay"):
    job = dashboard.services.data_jobs.latest(kind, name)
    await until(lambda: not job.is_open, 120)
    assert job.state == "done", job.error


async def built_text(dashboard):
    """All samples of the data set."""
    built = await dashboard.services.data.dataset("quay")
    return "".join((built.folder / name).read_text() for name in ("train.jsonl", "eval.jsonl"))


async def test_an_upload_becomes_a_set_and_a_plan(dashboard, tmp_path):
    home = tmp_path / "home"
    path = "/dashboard/data/uploads/quay.jsonl"
    await dashboard.ask("PUT", path, data=log().encode())
    await dashboard.submit(f"{path}/inspect")
    await ended(dashboard, "inspect", "quay.jsonl")
    about = (await dashboard.services.data.upload("quay.jsonl")).about
    assert about.format == "own-log" and about.rows == 120
    assert "wenda" in (await dashboard.page("/dashboard/data/uploads/quay.jsonl"))[1], (
        "examples are shown"
    )
    await dashboard.submit(f"{path}/right", **RIGHT)
    order = {
        "name": "quay",
        "persona": "ballast",
        "source": "uploads/quay.jsonl",
        "max_length": "1024",
    }
    assert (await dashboard.submit("/dashboard/data/build", **order))[0] == 303
    await ended(dashboard, "build")
    found = await built_text(dashboard)
    assert "hawser" in found and "Wenda" not in found and "harbour-post" not in found
    _, page, _ = await dashboard.page("/dashboard/data/sets/quay/samples")
    assert '<mark class="name">' in page and '<mark class="value">' in page, (
        "pseudonyms and stand-ins are known by form"
    )
    _, page, _ = await dashboard.page("/dashboard/data/sets/quay/review")
    assert "Wenda Quill" in page and "wenda.quill7@harbour-post.net" in page
    await dashboard.submit("/dashboard/data/sets/quay/review", verdict="keep", name="Wenda Quill")
    await dashboard.submit("/dashboard/data/builds/quay/again")
    await ended(dashboard, "build")
    assert "Wenda" in await built_text(dashboard), "the reviewer's word is heeded"

    backend = real_backend(home)
    dashboard.queue._backend = backend  # as the dashboard itself plans
    given = {"persona": "ballast", "dataset": "datasets/quay", "settings": "max_length=1024"}
    status, _, headers = await dashboard.submit("/dashboard/data/plan", **given)
    assert status == 303
    _, page, _ = await dashboard.page(headers["Location"])
    assert page.count("tokens are trained on") == 3 and "Truncation" in page and "fits" in page
    status, page, _ = await dashboard.submit(
        "/dashboard/data/plan", persona="oda", dataset="datasets/quay"
    )
    assert status == 422 and "was made for ballast" in page


def real_backend(home: Path) -> SubprocessBackend:
    import os

    catalogue = DatasetCatalog(ShippedData.from_source_tree(), "embedded", home)
    return SubprocessBackend(
        home,
        catalogue,
        SystemClock(),
        threads=1,
        nice=0,
        serving_precision="float32",
        environ=os.environ,
    )
