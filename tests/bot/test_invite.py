"""`python -m bot invite`: the address, what it asks for and why."""

import asyncio
import json
import os
import sys

from bot.commands import invite
from bot.permissions import NEEDS, invite_url
from bot.settings import Settings


async def run_invite(home, *words, **environment):
    """The command in a process: exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "--env", os.devnull, "invite", *words,
        env={**os.environ, "UNDERSTUDY_HOME": str(home), **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_the_address_of_a_named_application_with_every_permission_explained(tmp_path):
    code, out, err = await run_invite(tmp_path, "--application", "1100000000000000001")
    assert code == 0 and err == "" and out.splitlines()[0] == invite_url(1100000000000000001)
    assert all(need.why in out and need.cost in out for need in NEEDS) and "Message Content" in out
    code, out, _ = await run_invite(tmp_path, "--application", "7", "--json")
    told = json.loads(out)
    assert told["url"] == invite_url(7) and len(told["permissions"]) == len(NEEDS)
    assert not (tmp_path / "understudy.sqlite").exists(), "nothing is made for it"


async def test_without_a_token_it_says_what_to_name(tmp_path):
    code, out, err = await run_invite(tmp_path)
    assert code == 1 and out == "" and "--application" in err


def test_with_a_token_discord_is_asked_who_it_is(tmp_path, capsys, monkeypatch):
    asked = []

    async def answer(token):
        asked.append(token)
        return 42

    monkeypatch.setattr(invite, "application_id_of", answer)  # asked for real in test_doctor
    arguments = invite_arguments(Settings(discord_token="t"))
    assert invite.run(arguments, tmp_path) == 0 and asked == ["t"]
    assert capsys.readouterr().out.startswith(invite_url(42))


def invite_arguments(settings):
    """What the parser would have made of `invite`."""
    from bot.cli import parser

    arguments = parser().parse_args(["invite"])
    arguments.settings = settings
    return arguments
