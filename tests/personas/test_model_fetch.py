"""Base models from a hub of the test's own: continued after a cut, checked, and found offline afterwards."""

import asyncio
import hashlib
from collections import namedtuple

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from personas.errors import BaseModelError
from personas.home.model_fetch import fetch_model, list_model_files, require_disk_space
from personas.models.base_model import locate
from personas.models.gguf_names import find_gguf
from tests.hub_server import Hub, Repository, reach

COMMIT = "0" * 39 + "1"
WEIGHTS = save({"model.norm.weight": np.ones(2**17, dtype=np.float32)})
GGUF = b"GGUF" + bytes(200_000)
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "consolidated.safetensors": WEIGHTS,
    "README.md": b"# A model",
    "additional_chat_templates/tools.jinja": b"{{ messages }}",
}
FILES = {"tiny-Q4_K_M.gguf": GGUF, "tiny-Q8_0.gguf": GGUF * 2, "mmproj-F16.gguf": b"GGUF"}
Usage = namedtuple("Usage", "free")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    served = Hub(
        {
            "harbour/tiny": Repository({COMMIT: MODEL}, {"main": COMMIT}, licence="apache-2.0"),
            "harbour/tiny-gguf": Repository({COMMIT: FILES}, {"main": COMMIT}),
        }
    )
    with served.serve() as address:
        reach(monkeypatch, address, str(tmp_path / "cache"))
        yield served


def listed(name):
    return asyncio.to_thread(list_model_files, name)


async def fetched(files):
    reports = []
    await asyncio.to_thread(fetch_model, files, reports.append)
    return reports


async def test_a_fetched_model_is_found_without_a_network(hub, monkeypatch):
    files = await listed("harbour/tiny")
    assert (files.name, files.licence) == (f"harbour/tiny@{COMMIT}", "apache-2.0")
    assert {file.name for file in files.files} == MODEL.keys() - {
        "README.md",
        "consolidated.safetensors",
    }
    assert files.missing_bytes == files.bytes > len(WEIGHTS)
    reports = await fetched(files)
    assert reports == sorted(reports) and reports[-1] == files.bytes
    assert files.missing_bytes == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in (files.name, "harbour/tiny"):
        base = await asyncio.to_thread(locate, name, fetch=False)
        assert (base.revision, base.weight_bytes) == (COMMIT, len(WEIGHTS))


async def test_the_client_fetches_nothing_of_it_again(hub):
    await fetched(await listed("harbour/tiny"))
    hub.asked.clear()
    base = await asyncio.to_thread(locate, "harbour/tiny")
    assert base.revision == COMMIT
    assert not [asked for asked in hub.asked if asked.startswith("GET") and "/resolve/" in asked]


@pytest.mark.parametrize(
    ("name", "file"), [("Q4_K_M", "tiny-Q4_K_M.gguf"), ("tiny-Q8_0.gguf", "tiny-Q8_0.gguf")]
)
async def test_a_gguf_file_is_fetched_alone(hub, name, file):
    files = await listed(f"harbour/tiny-gguf:{name}")
    assert [each.name for each in files.files] == [file]
    assert files.name == f"harbour/tiny-gguf@{COMMIT}:{file}"
    await fetched(files)
    for known in (files.name, f"harbour/tiny-gguf:{name}"):
        path = await asyncio.to_thread(find_gguf, known, fetch=False)
        assert path.read_bytes() == FILES[file]


async def test_a_cut_is_said_and_the_next_call_continues(hub):
    hub.cuts = 1
    hub.fails_after_cut = True
    files = await listed("harbour/tiny")
    with pytest.raises(BaseModelError, match="cannot be fetched"):
        await fetched(files)
    here = files.bytes - files.missing_bytes
    assert here > len(WEIGHTS) // 4, "what had arrived stays"
    with pytest.raises(BaseModelError, match="not on this machine"):
        await asyncio.to_thread(locate, "harbour/tiny", fetch=False)
    hub.statuses.clear()
    hub.ranges.clear()
    reports = await fetched(files)
    assert hub.ranges and reports[0] < files.bytes
    base = await asyncio.to_thread(locate, "harbour/tiny", fetch=False)
    assert (base.folder / "model.safetensors").read_bytes() == WEIGHTS


async def test_a_file_with_another_content_is_refused(hub):
    hub.stated_sha = hashlib.sha256(b"other").hexdigest()
    files = await listed("harbour/tiny-gguf:Q4_K_M")
    with pytest.raises(BaseModelError, match="arrived damaged"):
        await fetched(files)
    assert not list((files.folder / "blobs").iterdir())


async def test_a_file_that_was_damaged_on_the_disk_is_found(hub):
    files = await listed("harbour/tiny-gguf:Q4_K_M")
    await fetched(files)
    (blob,) = (files.folder / "blobs").iterdir()
    blob.write_bytes(b"GGUF" + b"x" * 200_000)
    with pytest.raises(BaseModelError, match="damaged on this disk"):
        await fetched(files)
    await fetched(files)
    assert blob.read_bytes() == GGUF


async def test_the_disk_is_asked_first(hub, monkeypatch):
    files = await listed("harbour/tiny")
    require_disk_space(files)
    monkeypatch.setattr("personas.home.model_fetch.shutil.disk_usage", lambda _: Usage(2**29))
    with pytest.raises(
        BaseModelError, match=r"takes 0\.5 GiB of disk, and 0\.5 GiB are free"
    ) as no:
        require_disk_space(files)
    assert "HF_HOME" in no.value.advice
    monkeypatch.setattr("personas.home.model_fetch.shutil.disk_usage", lambda _: Usage(2**31))
    require_disk_space(files)
    with pytest.raises(BaseModelError):
        require_disk_space(files, further_bytes=2**31)


async def test_two_fetches_at_once_do_not_write_the_same_files(hub, monkeypatch):
    hub.pause_s = 0.2
    files = await listed("harbour/tiny")
    first = asyncio.create_task(fetched(files))
    await asyncio.sleep(0.2)
    with pytest.raises(BaseModelError, match="Another process is fetching harbour/tiny"):
        await fetched(files)
    await first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("embedded", "no base model of a hub"),
        ("harbour/none", "the hub has no harbour/none"),
        ("harbour/tiny@v9", "has no commit, tag or branch 'v9'"),
        ("harbour/tiny@../x", "revision is refused"),
        ("harbour/tiny-gguf", "no transformers model with safetensors"),
        ("harbour/tiny-gguf:Q2_K", r"no GGUF file Q2_K.*tiny-Q8_0\.gguf"),
    ],
)
async def test_what_cannot_be_fetched_is_named(hub, name, message):
    with pytest.raises(BaseModelError, match=message):
        await listed(name)


async def test_a_name_that_leads_elsewhere_is_refused(hub):
    files = {**MODEL, "../../evil.json": b"{}"}
    hub.repositories["harbour/tiny"].commits[COMMIT] = files
    with pytest.raises(BaseModelError, match="is refused"):
        await listed("harbour/tiny")


async def test_offline_it_says_so(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BaseModelError, match="HF_HUB_OFFLINE is set"):
        await listed("harbour/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BaseModelError, match="could not be reached"):
        await listed("harbour/tiny")


async def test_a_gated_model_says_where_its_terms_are(hub):
    hub.statuses["GET /harbour/tiny/resolve"] = (403, {"X-Error-Code": "GatedRepo"})
    files = await listed("harbour/tiny")
    with pytest.raises(BaseModelError, match="only to those who accepted its terms") as gated:
        await fetched(files)
    assert "HF_TOKEN" in gated.value.advice
