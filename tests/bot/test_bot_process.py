"""`python -m bot` as its operator meets it: a process that prints an address, survives kill -9, and
ends when told.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import sys

import aiohttp
import pytest

from bot.personas.guild_lore import read_all_lore
from personas.card.toml_card import SHIPPED_CARDS, read_cards
from personas.home.job_material import ShippedData
from personas.home.shared_personas import read_persona_lore
from personas.lore.index import LoreIndex

ASK = "import sys; from bot.__main__ import ask_main; sys.exit(ask_main())"


class Process:
    """A bot in a process of its own, and its page's API."""

    def __init__(self, home, base_model, **environment):
        self._environment = {
            **os.environ, "UNDERSTUDY_HOME": str(home), "BASE_MODEL": base_model, "WEB_PORT": "0", **environment,
        }  # fmt: skip

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot", "--env", os.devnull, env=self._environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        line = (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode()
        self.url = re.search(r"http://\S+", line)[0]
        self.page = aiohttp.ClientSession(self.url)
        return self

    async def __aexit__(self, *_):
        await self.page.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def state(self):
        async with self.page.get("/page-api/state") as answer:
            return await answer.json()

    async def say(self, channel, content):
        state = await self.state()
        me = next(
            m["user"]["id"] for m in state["people"] if m["user"]["global_name"] == "Tobias Reed"
        )
        body = {"as": me, "channel": channel, "content": content}
        async with self.page.post("/page-api/say", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def messages(self, channel):
        state = await self.state()
        me = state["people"][0]["user"]["id"]
        channel_id = next(c["id"] for c in state["channels"] if c["name"] == channel)
        async with self.page.get(
            "/page-api/messages", params={"as": me, "channel": channel_id}
        ) as answer:
            return await answer.json()

    async def until(self, channel, fits):
        async with asyncio.timeout(60):
            while True:
                for message in await self.messages(channel):
                    if fits(message):
                        return message
                await asyncio.sleep(0.05)


QUAY = "weighbridge-quay"
LORE = ShippedData.from_source_tree().lore


@pytest.fixture
def home(tmp_path, lore_caches):
    """A home in which the vectors of the shipped lore are known: each process would compute for
    five seconds.
    """
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    shutil.copytree(lore_caches, home / "cache")
    return home


@pytest.fixture(scope="module")
def lore_caches(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    caches = home / "cache"
    caches.mkdir(mode=0o700)
    everyone = read_all_lore(LORE, read_cards(SHIPPED_CARDS), home)
    LoreIndex(everyone, caches / "lore.sqlite").close()
    LoreIndex(read_persona_lore(LORE, "thrip", home), caches / "lore-of-thrip.sqlite").close()
    for file in caches.iterdir():
        file.chmod(0o600)  # a bot's own are, too
    return caches


@pytest.mark.slow
async def test_a_killed_bot_finishes_its_reply_when_it_comes_back(home, tiny_base):
    async with Process(home, tiny_base.source, MAX_NEW_TOKENS="1000", TEMPERATURE="1") as bot:
        await bot.say(QUAY, "do not forget me")
        growing = await bot.until(
            QUAY, lambda m: m["author"]["username"] == "Ballast" and m["components"]
        )
        await asyncio.sleep(0.5)  # a message can be seen a moment before the bot has noted its id
        bot.process.send_signal(signal.SIGKILL)
        await bot.process.wait()
    home.chmod(0o755)
    async with Process(home, tiny_base.source, MAX_NEW_TOKENS="10") as bot:
        async with bot.page.get("/system") as answer:
            warnings = [line["words"] for line in (await answer.json())["warnings"]]
        assert any("can be listed by other users" in words for words in warnings), warnings
        reply = await bot.until(QUAY, lambda m: "AI-written" in m["content"])
        assert reply["id"] == growing["id"] and "Stop" not in str(reply["components"])
        said = [
            m["content"] for m in await bot.messages(QUAY) if m["author"]["username"] != "Ballast"
        ]
        assert said == ["do not forget me"]
        bot.process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(bot.process.communicate(), 20)
    assert bot.process.returncode == 0 and b"Stopping" in out and b"Traceback" not in err, (
        err.decode()
    )
    home.chmod(0o700)
    assert not [path for path in home.rglob("*") if path.stat().st_mode & 0o077], (
        "others can read them"
    )


async def test_what_stops_a_start_is_one_line_and_exit_code_1(tmp_path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "--env", os.devnull,
        env={**os.environ, "UNDERSTUDY_HOME": str(tmp_path), "WEB_PORT": "many"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1 and out == b""
    (line,) = [line for line in err.decode().splitlines() if "INFO" not in line]
    assert "WEB_PORT is 'many' in the environment" in line


async def test_a_base_model_of_the_file_that_is_not_there_is_named_with_its_line(tmp_path):
    env = tmp_path / ".env"
    env.write_text("# settings\nBASE_MODEL=/nowhere\nWEB_PROT=80\n")
    given = {name: text for name, text in os.environ.items() if name != "BASE_MODEL"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "--env", str(env),
        env={**given, "UNDERSTUDY_HOME": str(tmp_path / "home"), "WEB_PORT": "0"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert f"BASE_MODEL is '/nowhere' in {env} line 2. The base model" in err.decode()
    assert "line 3: nothing reads WEB_PROT. Did you mean WEB_PORT?" in err.decode()


async def ask(*arguments, piped="", home):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK, *arguments,
        env={**os.environ, "UNDERSTUDY_HOME": str(home), "MAX_NEW_TOKENS": "8"},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(piped.encode()), 60)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.slow
async def test_the_terminal_asks_a_persona_and_prints_nothing_else(home, tiny_base):
    env = home / ".env"
    env.write_text(f"BASE_MODEL={json.dumps(tiny_base.source)}\nTEMPERATURE=0\n")
    code, out, err = await ask(
        "--env", str(env), "--persona", "thrip", piped="Good evening?\n", home=home
    )
    assert code == 0 and out.strip() and err == "", err
