"""A version is exported from its page: one file, its size before, and a record of who is in it."""

import aiohttp
import pytest

from bot.versions.export import exported_bytes
from personas.card.card_reader import parse_card
from personas.home.adapters import COMPLETED_CARD_FOLDER, MANIFEST_FILE, adapter_ref, write_manifest
from personas.home.card_adapter import unpack_card_adapter
from personas.home.data_subjects import write_people
from personas.home.external_files import EVERYBODY, read_exports
from tests.bot.version_rows import install
from tests.personas.test_adapters import manifest, write_adapter

EXPORT = "/dashboard/personas/ballast/versions/v1/export"
SOMEBODY = "a" * 32


@pytest.fixture
def folder(dashboard):
    """The adapter's folder of Ballast's v1, in which one person is named."""
    install(dashboard.store)
    path = adapter_ref(dashboard.home, "ballast", "v1").folder
    path.parent.mkdir(parents=True)
    write_adapter(path)
    write_people(path, {SOMEBODY: 3})
    write_manifest(path, manifest())
    (path / COMPLETED_CARD_FOLDER).mkdir()
    (path / COMPLETED_CARD_FOLDER / "rubric.csv").write_text("prompt,reply")
    return path


async def fetch(dashboard):
    session: aiohttp.ClientSession = dashboard.session
    async with session.get(EXPORT) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_a_version_is_one_file_with_its_size_before(dashboard, folder, tmp_path):
    for page in ("/dashboard/personas/ballast/versions", "/dashboard/cards/ballast/v1"):
        shown = (await dashboard.page(page))[1]
        assert f'href="{EXPORT}" download>Export' in shown and " KiB</span></a>" in shown
    status, content, headers = await fetch(dashboard)
    assert status == 200 and headers["Content-Disposition"].endswith('"ballast-v1.charx"')
    unpacked = tmp_path / "unpacked"
    unpack_card_adapter(parse_card(content, "ballast-v1.charx"), unpacked, "it")
    assert (unpacked / MANIFEST_FILE).read_bytes() == (folder / MANIFEST_FILE).read_bytes()
    assert not (unpacked / COMPLETED_CARD_FOLDER).exists(), "that is the home's own"
    assert exported_bytes(folder) == exported_bytes(unpacked)
    (record,) = read_exports(dashboard.home)
    assert record.people == (SOMEBODY,) and record.path == "ballast-v1.charx, to the operator"


async def test_what_cannot_be_exported_says_so(dashboard, folder):
    (folder / "people.json").write_text("{")
    assert (await fetch(dashboard))[0] == 409, "the folder is not what its manifest says"
    write_manifest(folder, manifest())
    assert (await fetch(dashboard))[0] == 200
    assert read_exports(dashboard.home)[0].people == (EVERYBODY,), "nobody knows who is in it"
    dashboard.store.versions.withdraw("ballast", "v1", 3.0, "somebody was forgotten")
    status, refused, _ = await dashboard.ask("GET", EXPORT)
    assert status == 409 and "v1 is withdrawn." in refused["detail"]
    assert EXPORT not in (await dashboard.page("/dashboard/cards/ballast/v1"))[1]
    assert (await dashboard.ask("GET", EXPORT.replace("v1", "v9")))[0] == 404
