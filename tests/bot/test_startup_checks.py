"""What would end a start after a minute is told in its first seconds."""

import pytest
from huggingface_hub import constants

from bot import app
from bot.app import open_app
from bot.cli import run
from bot.demo_guild import SKERROW_SEED
from bot.operations import startup_checks
from bot.operations.startup_checks import require_base_model
from bot.platform.errors import DiscordError
from bot.settings import load_settings
from personas.errors import BaseModelError
from personas.home.job_material import ShippedData
from personas.models.base_model import locate
from personas.models.gguf_file import NotUnpackedError
from sandbox import Sandbox, patch_discord


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("owner/no-such-model", "is not on this machine, and no hub"),
        ("owner/no-such-model@main", "is not on this machine, and no hub"),
        ("/nowhere/at/all", "neither a folder nor a model"),
        ("nonsense", "is not on this machine, and no hub"),
    ],
)
def test_a_base_model_that_cannot_be_had_is_named_at_once(monkeypatch, name, words):
    monkeypatch.setattr(startup_checks, "find_hub_error", lambda: "no hub can be reached at x")
    with pytest.raises(BaseModelError, match=words):
        require_base_model(name)


def test_one_that_can_be_fetched_is_left_to_the_start(monkeypatch, tiny_base):
    monkeypatch.setattr(startup_checks, "find_hub_error", lambda: "")
    require_base_model("owner/some-model")
    require_base_model(tiny_base.source)


def test_a_gguf_file_is_left_to_the_start_which_unpacks_it(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(NotUnpackedError):
        locate(str(file), fetch=False)
    require_base_model(str(file))


def settings_with(tmp_path, **changes):
    given = {"UNDERSTUDY_HOME": str(tmp_path / "home"), "WEB_PORT": "0", **changes}
    return load_settings(None, given)


@pytest.fixture
def nothing_opened(monkeypatch):
    """Fail where anything else is begun."""

    def begin(*_):
        raise AssertionError("the start went on")

    monkeypatch.setattr(app.Store, "open", begin)


def test_a_home_that_cannot_be_made_names_the_setting_and_where_it_stands(
    tmp_path, monkeypatch, capsys, nothing_opened
):
    file = tmp_path / ".env"
    file.write_text("\nUNDERSTUDY_HOME=/proc/understudy\n")
    monkeypatch.delenv("UNDERSTUDY_HOME", raising=False)
    monkeypatch.setattr("sys.argv", ["bot", "--env", str(file)])
    assert run.main() == 1
    errors = capsys.readouterr().err
    assert f"UNDERSTUDY_HOME is '/proc/understudy' in {file} line 2, and the bot cannot" in errors
    assert "Set UNDERSTUDY_HOME to another folder" in errors and "database" not in errors


async def test_a_dead_base_model_ends_the_start_before_anything_is_opened(tmp_path, nothing_opened):
    with pytest.raises(BaseModelError, match="neither a folder nor a model"):
        async with open_app(
            settings_with(tmp_path, BASE_MODEL="/nowhere"), ShippedData.from_source_tree()
        ):
            pass


async def test_a_wrong_token_ends_the_start_before_anything_is_opened(
    tmp_path, tiny_base, nothing_opened
):
    discord = Sandbox(SKERROW_SEED)
    await discord.start()
    wrong = settings_with(tmp_path, BASE_MODEL=tiny_base.source, DISCORD_TOKEN="MTAw.wrong.token")
    try:
        with patch_discord(discord), pytest.raises(DiscordError, match="DISCORD_TOKEN") as caught:
            async with open_app(wrong, ShippedData.from_source_tree()):
                pass
    finally:
        await discord.stop()
    assert "wrong.token" not in str(caught.value)


async def test_discord_that_does_not_answer_is_left_to_the_start(monkeypatch, tmp_path, tiny_base):
    monkeypatch.setattr(startup_checks.discord.http.Route, "BASE", "http://127.0.0.1:9/api")
    token = settings_with(tmp_path, BASE_MODEL=tiny_base.source, DISCORD_TOKEN="MTAw.some.token")
    await startup_checks.require_startable(token)
