"""Server-side request forgery over HTTP and by files: addresses in requests, cards and lore are
never asked.
"""

from __future__ import annotations

import aiohttp
import pytest

from tests.bot.web.test_web_cards import as_json, upload, v3
from tests.personas.test_ssrf import Trap

ADDRESSES = (
    "http://127.0.0.1:{port}/x", "https://localhost:{port}/x", "//127.0.0.1:{port}/x", "file:///etc/passwd",
    "hf://../../x", "gopher://127.0.0.1:{port}/_GET",
)  # fmt: skip
CHAT = "/v1/chat/completions"
START = "/finetune/start-training"


def asks(address: str) -> dict[str, tuple[str, str, object]]:
    """Requests with an address where a name, a path or a text is expected."""
    picture = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": address}},
    ]
    question = {"model": "oda", "messages": [{"role": "user", "content": picture}]}
    training = {"job_name": "x", "persona": "oda"}
    return {
        "a picture to look at": ("POST", CHAT, question),
        "a link in a message": (
            "POST",
            CHAT,
            question | {"messages": [{"role": "user", "content": address}]},
        ),
        "a base model": ("POST", START, training | {"base_model": address}),
        "a data set": ("POST", START, training | {"dataset_path": address}),
    }


@pytest.fixture(scope="module")
def trap():
    made = Trap()
    yield made
    made.close()


async def test_an_address_as_a_source_is_not_asked(dashboard, trap):
    for address in ADDRESSES:
        source = address.format(port=trap.port)
        before = trap.count
        fields = {"name": "x", "persona": "oda", "source": source}
        status, _, _ = await dashboard.submit("/dashboard/data/build", **fields)
        assert status == 422 and trap.count == before, address


async def test_an_address_as_an_adapter_is_not_asked(dashboard, trap):
    for address in ADDRESSES:
        form = aiohttp.FormData()
        form.add_field("source", address.format(port=trap.port))
        form.add_field("file", b"", filename="")
        own = {"Origin": dashboard.url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        before = trap.count
        path = "/dashboard/personas/oda/versions/import"
        async with dashboard.session.post(path, data=form, headers=own) as answer:
            assert answer.status == 422 and trap.count == before, address


@pytest.mark.parametrize("what", asks(""))
async def test_an_address_is_not_asked(dashboard, trap, what):
    for address in ADDRESSES:
        method, path, body = asks(address.format(port=trap.port))[what]
        before = trap.count
        status, _, _ = await dashboard.ask(method, path, json=body)
        assert status < 500 and status not in (404, 405), "the request reached what it is for"
        assert trap.count == before, address


async def test_a_card_with_addresses_is_read_and_nothing_asked(dashboard, trap):
    for number, address in enumerate(one.format(port=trap.port) for one in ADDRESSES):
        card = v3()
        book = {
            "entries": [
                {
                    "keys": ["x"],
                    "content": f"![x]({address})",
                    "insertion_order": 1,
                    "enabled": True,
                }
            ]
        }
        assets = [
            {"type": kind, "uri": address, "name": "main", "ext": "png"}
            for kind in ("icon", "background")
        ]
        text = f"<img src={address}>"
        card["data"] |= {
            "name": f"Mira {number}",
            "description": text,
            "first_mes": text,
            "avatar": address,
        }
        card["data"] |= {
            "assets": assets,
            "character_book": book | {"extensions": {}},
            "source": [address],
        }
        before = trap.count
        status, where, said = await upload(
            dashboard, "/dashboard/personas", "mira.json", as_json(card)
        )
        assert status == 303, said
        assert (await dashboard.page(where))[0] == 200 and trap.count == before
