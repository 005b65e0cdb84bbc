"""`python -m bot invite`: the address, what it asks for and why."""

import json

from bot.operations.doctor import cli as setup_commands
from bot.platform.permissions import REQUIRED_PERMISSIONS, invite_url
from tests.bot.command_line import typed


def test_the_address_of_a_named_application_with_every_permission_explained(
    tmp_path, monkeypatch, capsys
):
    asked = ("invite", "--application")
    code, out, err = typed(monkeypatch, capsys, tmp_path, *asked, "1100000000000000001")
    assert code == 0 and err == "" and out.splitlines()[0] == invite_url(1100000000000000001)
    assert (
        all(need.why in out and need.cost in out for need in REQUIRED_PERMISSIONS)
        and "Message Content" in out
    )
    code, out, _ = typed(monkeypatch, capsys, tmp_path, *asked, "7", "--json")
    result = json.loads(out)
    assert result["url"] == invite_url(7) and len(result["permissions"]) == len(
        REQUIRED_PERMISSIONS
    )
    assert not (tmp_path / "understudy.sqlite").exists(), "nothing is made for it"


def test_without_a_token_it_says_what_to_name(tmp_path, monkeypatch, capsys):
    code, out, err = typed(monkeypatch, capsys, tmp_path, "invite")
    assert code == 1 and out == "" and "--application" in err


def test_with_a_token_discord_is_asked_who_it_is(tmp_path, capsys, monkeypatch):
    asked = []

    async def answer(token):
        asked.append(token)
        return 42

    monkeypatch.setattr(
        setup_commands, "fetch_application_id", answer
    )  # asked for real in test_doctor
    code, out, _ = typed(monkeypatch, capsys, tmp_path, "invite", DISCORD_TOKEN="a.b.c")
    assert code == 0 and asked == ["a.b.c"] and out.startswith(invite_url(42))
