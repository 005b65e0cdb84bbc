"""The stand-alone chat page: what it answers over HTTP, whom it refuses, and how it starts and
ends.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from examples.chat_app import ChatApp, main, read_facts
from personas.card.card_reader import read_card_file
from personas.card.toml_card import to_persona
from personas.engine.llm_engine import LLMEngine
from personas.errors import RequestError
from personas.schemas.chat import AdapterRef
from tests.fake_engine import FakeEngine
from tests.fakes import until
from tests.tiny_models import make_dialogue_adapter

ROOT = Path(__file__).parent.parent
ODA = ROOT / "personas" / "cards" / "oda.toml"
HELLO = [{"role": "user", "content": "Is the ferry late?"}]


@asynccontextmanager
async def chat_page(engine, folder=Path("none"), persona=None, facts=""):
    """The page's server on a free port, and a client."""
    app = ChatApp(
        engine, AdapterRef("adapter", "v1", folder), persona, facts, "</script><b>title"
    ).application()
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


async def ask(session, messages=HELLO, **settings):
    """The status, and the lines of the reply."""
    async with session.post("/chat", json={"messages": messages, **settings}) as answer:
        return answer.status, [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_a_real_adapter_answers_piece_by_piece_and_the_base_model_otherwise(
    tmp_path, tiny_base
):
    engine = LLMEngine(tiny_base, "float32")
    await engine.start()
    try:
        async with chat_page(
            engine, make_dialogue_adapter(tmp_path, tiny_base, "talk", 1)
        ) as session:
            texts = []
            for changes in (
                {},
                {"use_adapter": False},
                {"facts": "I keep bees."},
                {"temperature": 2, "seed": 5},
            ):
                status, lines = await ask(
                    session, **{"temperature": 0, "max_new_tokens": 6, **changes}
                )
                done = lines[-1]["done"]
                assert (
                    status == 200 and "".join(line["text"] for line in lines[:-1]) == done["text"]
                )
                assert 0 < done["tokens"] <= 6 and done["finish"] in ("length", "stop")
                texts.append(done["text"])
            assert len(set(texts)) == 4 and lines[-1]["done"]["seed"] == 5
    finally:
        await engine.close()


async def test_the_request_is_what_the_page_shows(tmp_path):
    talk = [
        *HELLO,
        {"role": "assistant", "content": "Always."},
        {"role": "user", "content": "Why?"},
    ]
    engine = FakeEngine()
    async with chat_page(engine) as session:
        await ask(
            session,
            talk,
            facts="I keep bees.",
            temperature=0.3,
            top_p=0.5,
            max_new_tokens=7,
            seed=1,
        )
    request = engine.requests[-1]
    assert (request.persona.description, request.adapter.version) == ("I keep bees.", "v1")
    assert [(it.name, it.text, it.by_persona) for it in request.turns] == [
        ("", "Is the ferry late?", False), ("", "Always.", True), ("", "Why?", False)
    ]  # fmt: skip
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.seed) == (
        0.3,
        0.5,
        7,
        1,
    )
    async with chat_page(engine, persona=to_persona(read_card_file(ODA), "oda")) as session:
        await ask(session, facts="I keep bees.")
        assert engine.requests[-1].persona.name == "Oda Marrow"
        page = await (await session.get("/")).text()
    assert "</script><b>" not in page and "\\u003c/script>" in page, "the title is data"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"temperature": 3}, r"^temperature: .* 2\."),
        ({"top_p": 0}, r"^top_p: .* 0\."),
        ({"max_new_tokens": 5000}, r"^max_new_tokens: .* 1024\."),
        ({"messages": []}, "^messages: .* 1 item"),
        (
            {"messages": [{"role": "assistant", "content": "Hi"}]},
            "last message has to be yours",
        ),
        ({"messages": [{"role": "user", "content": "  "}]}, "last message has to be yours"),
        (
            {"messages": [{"role": "user", "content": "x" * 9000}]},
            r"^messages\.0\.content: .* 8000",
        ),
        ({"top_k": 5}, "^top_k: "),
    ],
)
async def test_a_wrong_field_is_named(body, words):
    engine = FakeEngine()
    async with chat_page(engine) as session:
        status, [line] = await ask(session, **body)
    assert status == 400 and re.search(words, line["error"]) and engine.requests == []


async def test_other_sites_and_other_names_of_this_machine_are_refused():
    """A page elsewhere could otherwise talk to it, directly or through a name that it points
    here.
    """
    engine = FakeEngine()
    async with chat_page(engine) as session:
        for headers, status in (
            ({"Host": "evil.example"}, 403),
            ({"Origin": "http://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Content-Type": "text/plain"}, 415),
            ({"Host": "localhost"}, 200),
        ):
            sent = {"Content-Type": "application/json", **headers}
            async with session.post(
                "/chat", data=json.dumps({"messages": HELLO}), headers=sent
            ) as answer:
                assert answer.status == status, headers
        async with session.get("/", headers={"Host": "evil.example:80"}) as answer:
            assert answer.status == 403
        page = await session.get("/")
    assert (
        len(engine.requests) == 1
        and "default-src 'none'" in page.headers["Content-Security-Policy"]
    )


async def test_a_reader_that_leaves_ends_the_reply():
    engine = FakeEngine()
    cancelled = []
    submit = engine.submit

    def watched(request):
        stream = submit(request)
        cancel = stream.cancel
        stream.cancel = lambda: (cancelled.append(1), cancel())
        return stream

    engine.submit = watched
    engine.free.clear()
    async with chat_page(engine) as session:
        answer = await session.post("/chat", json={"messages": HELLO})
        assert json.loads(await answer.content.readline()) == {"text": "Nobody "}
        assert not cancelled
        answer.close()
        await until(lambda: cancelled)


@pytest.mark.slow
async def test_it_starts_says_its_address_and_ends_by_ctrl_c(tmp_path, tiny_base):
    folder = make_dialogue_adapter(tmp_path, tiny_base, "talk", 1)
    process = await start(folder, "--port", "0", "--fact", "I keep bees.")
    address = (await asyncio.wait_for(process.stdout.readline(), 120)).decode()
    url = re.match(r"http://127\.0\.0\.1:\d+", address)[0]
    async with aiohttp.ClientSession(url) as session:
        assert "I keep bees." in await (await session.get("/")).text()
        status, lines = await ask(session, max_new_tokens=4)
        assert status == 200 and lines[-1]["done"]["tokens"] <= 4
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    assert b"Traceback" not in await process.stderr.read()


@pytest.mark.slow
async def test_why_it_cannot_start_is_said_in_a_line(tmp_path, tiny_base):
    folder = make_dialogue_adapter(tmp_path, tiny_base, "talk", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for words, code, said in (
            ((tmp_path / "none",), 1, "chat_app: "),
            ((folder, "--card", tmp_path / "none.toml"), 1, "none.toml"),
            ((folder, "--port", taken.getsockname()[1]), 1, "Choose another --port"),
            (
                (folder, "--card", ODA, "--fact", "I keep bees."),
                2,
                "a card and facts cannot go together",
            ),
        ):
            process = await start(*words)
            output, errors = await asyncio.wait_for(process.communicate(), 120)
            assert process.returncode == code and said in errors.decode() and not output
            assert b"Traceback" not in errors


async def start(*words):
    command = (sys.executable, "-m", "examples.chat_app", *map(str, words))
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)


def test_a_wrong_port_and_unreadable_facts_are_refused_before_anything_is_loaded(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["chat_app", "adapter", "--port", "99999"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert re.search("99999 .*from 0 to 65535", capsys.readouterr().err)
    (tmp_path / "rows.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match=r"rows\.bin .*UTF-8.*text file"):
        read_facts(tmp_path / "rows.bin")
