"""OpenAI's own package talks to a persona: at once, streaming, broken off; by the fake engine and
by a real one.
"""

import asyncio
import re
from pathlib import Path

import openai
import pytest

from bot.app import open_app
from bot.platform.web_kit.auth import Authenticator
from bot.settings import load_settings
from tests.bot.web.conftest import dashboard_in
from tests.bot.web.test_web_openai import HELLO, put_version
from tests.bot.web.test_web_whole import SHIPPED
from tests.fakes import until

DOCS = Path(__file__).parents[3] / "docs" / "openai.md"
SAID = "Ballast hears: Is the ferry late?"


@pytest.fixture
async def client(dashboard):
    async with openai.AsyncOpenAI(
        base_url=f"{dashboard.url}/v1", api_key="any", max_retries=0
    ) as made:
        yield made


async def test_a_reply_and_a_stream(dashboard, client):
    put_version(dashboard.store, "ballast", "v1", live=True)
    made = await client.chat.completions.create(model="ballast", messages=HELLO, seed=3)
    assert made.choices[0].message.content == SAID and made.choices[0].finish_reason == "stop"
    assert made.model == "ballast@v1" and made.usage.total_tokens == 2
    assert made.model_extra["understudy"]["version"] == "v1"
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            model="ballast", messages=HELLO, **options
        )
    ]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    )
    assert chunks[-1].usage.completion_tokens == 1
    async with client.chat.completions.stream(model="ballast", messages=HELLO) as stream:
        assert (await stream.get_final_completion()).choices[0].message.content == SAID


async def test_its_errors_are_the_packages_own(dashboard, client):
    with pytest.raises(openai.NotFoundError, match="There is no persona"):
        await client.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="only one reply") as refused:
        await client.chat.completions.create(model="oda", messages=HELLO, n=2)
    assert (refused.value.param, refused.value.code) == ("n", "unsupported_value")
    dashboard.engine.full = True
    with pytest.raises(openai.RateLimitError) as busy:
        await client.chat.completions.create(model="oda", messages=HELLO)
    assert busy.value.response.headers["Retry-After"]


async def test_where_a_token_is_set_it_is_the_key(tmp_path):
    token = "correct-horse-battery-staple"
    async with dashboard_in(tmp_path / "home", Authenticator(token)) as dashboard:
        async with openai.AsyncOpenAI(
            base_url=f"{dashboard.url}/v1", api_key="any", max_retries=0
        ) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                await client.models.list()
        assert (
            refused.value.code == "invalid_api_key" and refused.value.type == "authentication_error"
        )
        async with openai.AsyncOpenAI(
            base_url=f"{dashboard.url}/v1", api_key=token, max_retries=0
        ) as client:
            assert (
                (await client.chat.completions.create(model="ballast", messages=HELLO))
                .choices[0]
                .message.content
            )


async def test_the_lines_of_the_documentation_do_what_it_says(dashboard, capsys):
    [code] = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    await asyncio.to_thread(exec, code.replace("http://127.0.0.1:8420", dashboard.url), {})
    assert capsys.readouterr().out == SAID


@pytest.mark.slow
async def test_a_real_engine_tells_its_tokens_and_frees_its_row(tmp_path, tiny_base):
    home = {
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
        "BASE_MODEL": tiny_base.source,
        "WEB_PORT": "0",
    }
    async with (
        open_app(load_settings(None, home), SHIPPED) as app,
        openai.AsyncOpenAI(base_url=f"{app.url}/v1", api_key="any", max_retries=0) as client,
    ):
        ask = client.chat.completions.create
        asked = {"model": "ballast", "messages": HELLO, "max_tokens": 12, "seed": 5}
        made = await ask(**asked, logprobs=True, top_logprobs=3)
        again = await ask(**asked)
        assert again.choices[0].message.content == made.choices[0].message.content
        tokens = made.choices[0].logprobs.content
        assert len(tokens) == made.usage.completion_tokens and all(
            len(one.top_logprobs) == 3 for one in tokens
        )
        assert all(one.top_logprobs[0].logprob >= one.logprob - 1e-4 for one in tokens)
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(
                model="ballast", messages=[{"role": "system", "content": "rope " * 3000}, *HELLO]
            )
        assert refused.value.code == "context_length_exceeded"
        stream = await ask(model="ballast", messages=HELLO, stream=True, max_tokens=1024)
        await anext(aiter(stream))
        await stream.close()
        engine = app.services.engine
        await until(lambda: not engine._parts.batch.running and not engine._streams, 5)
