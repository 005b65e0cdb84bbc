"""Settings: where they come from, what is refused and in which words, and that `.env.example` tells
the truth.
"""

import logging
import re
from ipaddress import ip_network
from pathlib import Path

import pytest
from huggingface_hub import get_token

from bot.settings import (
    SETTINGS,
    SETTINGS_BY_NAME,
    Settings,
    SettingsError,
    load_settings,
    set_hub_token,
)
from bot.training.backends.trainer_environment import evaluation_environ
from personas.schemas.chat import DEFAULT_CANDIDATES

EXAMPLE = Path(__file__).parent.parent.parent / ".env.example"
WRONG = {
    "DISCORD_TOKEN": [
        "Bot a.b.c",
        "ключ",
        "abcdef",
        "1100000000000000001",
        "a.b",
        "a..c",
        "a.b.c.d",
    ],
    "UNDERSTUDY_HOME": ["/dev/null", "~nobody-by-this-name/x"],
    "WEB_HOST": ["example.org", "300.1.1.1", "http://127.0.0.1", "*"],
    "WEB_PORT": ["-1", "65536", "http", "8420.5"],
    "WEB_TOKEN": [
        "short",
        "a token with spaces in it, long",
        "x" * 40,
        "пароль-пароль-пароль-пароль",
    ],
    "WEB_PROXIES": ["proxy.lan", "10.0.0.1/8", ",", "10.0.0.0/33"],
    "WEB_NAMES": [
        "https://bot.example.org",
        "two words",
        ",",
        "bot.example.org/x",
        "*.example.org",
    ],
    "MESSAGE_CONTENT_INTENT": ["maybe", "2"],
    "MEMBERS_INTENT": ["maybe"],
    "USER_INSTALL": ["maybe"],
    "ENGINE": ["cloud"],
    "ENGINE_URLS": [
        "127.0.0.1:8001",
        "ftp://a",
        "http://",
        "http://a:99999",
        "http://u:p@a",
        "http://a,http://a/",
    ],
    "ENGINE_KEY": ["two words"],
    "ENGINE_HOME": ["models", "~/home"],
    "ENGINE_ROWS": ["0", "1025"],
    "ENGINE_LORAS": ["0", "1025"],
    "TEMPERATURE": ["-0.1", "2.1", "nan", "warm"],
    "TOP_P": ["0", "1.01", "nan", "inf"],
    "MAX_NEW_TOKENS": ["0", "1025"],
    "NEW_TOKENS_LIMIT": ["0", "4097", "long"],
    "CONTEXT_TOKENS": ["1023", "131073", "all"],
    "REPLY_CANDIDATES": ["0", "9", "2.5"],
    "MAX_REPLY_CANDIDATES": ["0", "9", "many"],
    "MAX_WAITING_REPLIES": ["0", "ten"],
    "MAX_UPLOAD_GIB": ["0", "1.5", "1001"],
    "TRAINER_THREADS": ["0", "257"],
    "TRAINER_NICE": ["-1", "20"],
    "TRAINER_CARD": ["everything"],
    "TRAINER_WANDB": ["perhaps"],
    "WANDB_API_KEY": ["two words"],
    "LOG_LEVEL": ["LOUD"],
    "DISCORD_PERMISSION": ["yes", "granted to us long ago by mail"],
    "HISTORY_DAYS": ["0", "3651", "ever", "٣", "1_0", "+3"],
    "GUILD_DAYS": ["-1", "366"],
    "COMPARISONS_PER_DAY": ["0", "1001"],
}


def env_file(folder: Path, text: str) -> Path:
    path = folder / ".env"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_set_is_the_sandbox_with_defaults(tmp_path):
    settings = load_settings(tmp_path / "absent", {})
    assert settings == load_settings(None, {}) == Settings()
    assert settings.in_sandbox and settings.message_content_intent
    assert settings.home == Path.home() / ".understudy"


def test_every_setting_is_read(tmp_path):
    text = f"""\
export DISCORD_TOKEN='abc.def-ghi.j_k='  # quoted
UNDERSTUDY_HOME={tmp_path}/home
BASE_MODEL="Qwen/Qwen2.5-3B-Instruct"
ENGINE=vLLM
ENGINE_URLS=http://127.0.0.1:8001/, https://gpu.lan/v1
ENGINE_KEY=sk-1
ENGINE_HOME=/mnt/understudy/
ENGINE_ROWS=64
ENGINE_LORAS=8
WEB_HOST=0.0.0.0
WEB_PORT=0
WEB_TOKEN=correct-horse-battery-staple
WEB_NAMES=Bot.example.org, harbour.lan:8420
WEB_PROXIES=127.0.0.1, fd00::/8
MESSAGE_CONTENT_INTENT=Yes
MEMBERS_INTENT=yes
TEMPERATURE=0
TOP_P=1
MAX_NEW_TOKENS=1024
MAX_WAITING_REPLIES=3
MAX_UPLOAD_GIB=20
TRAINER_THREADS=1
TRAINER_NICE=19
TRAINER_CARD=Quick
TRAINER_WANDB=on
WANDB_API_KEY=0123abcd
WANDB_PROJECT=harbour
LOG_LEVEL=debug
DISCORD_PERMISSION="By letter of Discord's platform team, 3 March 2026."
HISTORY_DAYS=30
GUILD_DAYS=0
COMPARISONS_PER_DAY=5
"""
    assert load_settings(env_file(tmp_path, text), {}) == Settings(
        discord_token="abc.def-ghi.j_k=",
        home=tmp_path / "home",
        base_model="Qwen/Qwen2.5-3B-Instruct",
        engine="vllm",
        engine_urls=("http://127.0.0.1:8001", "https://gpu.lan"),
        engine_key="sk-1",
        engine_home="/mnt/understudy",
        engine_rows=64,
        engine_loras=8,
        web_host="0.0.0.0",
        web_port=0,
        web_token="correct-horse-battery-staple",
        web_names=("bot.example.org", "harbour.lan:8420"),
        web_proxies=(ip_network("127.0.0.1"), ip_network("fd00::/8")),
        max_upload_gib=20,
        message_content_intent=True,
        members_intent=True,
        temperature=0.0,
        top_p=1.0,
        max_new_tokens=1024,
        max_waiting_replies=3,
        trainer_threads=1,
        trainer_nice=19,
        trainer_card="quick",
        trainer_wandb=True,
        wandb_api_key="0123abcd",
        wandb_project="harbour",
        log_level="DEBUG",
        discord_permission="By letter of Discord's platform team, 3 March 2026.",
        history_days=30,
        guild_days=0,
        comparisons_per_day=5,
    )


def test_only_sampling_that_is_set_takes_the_place_of_the_base_models():
    assert Settings().sampling == {"max_new_tokens": 120}
    assert Settings(temperature=0.0, top_p=0.5).sampling == {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_new_tokens": 120,
    }


def test_on_discord_the_intents_are_off_until_asked_for():
    unasked = load_settings(None, {"DISCORD_TOKEN": "a.b.c"})
    assert not unasked.message_content_intent and not unasked.members_intent
    assert load_settings(None, {"DISCORD_TOKEN": "a.b.c", "MEMBERS_INTENT": "on"}).members_intent
    assert load_settings(
        None, {"DISCORD_TOKEN": "a.b.c", "MESSAGE_CONTENT_INTENT": "on"}
    ).message_content_intent


def test_the_environment_wins_even_when_empty(tmp_path):
    path = env_file(tmp_path, "DISCORD_TOKEN=from-file\nWEB_PORT=1\n")
    settings = load_settings(path, {"DISCORD_TOKEN": "", "WEB_PORT": " 2 "})
    assert settings.in_sandbox and settings.web_port == 2


def test_a_dollar_sign_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME_OF_SECRETS", "oops")
    assert load_settings(
        env_file(tmp_path, "ENGINE_KEY=a${HOME_OF_SECRETS}b"), {}
    ).engine_key.startswith("a${")


def test_the_token_is_never_shown(tmp_path):
    assert "hidden" not in repr(load_settings(None, {"DISCORD_TOKEN": "hidden.b.c"}))
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {"DISCORD_TOKEN": "hidden token"})
    assert "hidden" not in str(refused.value) and "DISCORD_TOKEN" in str(refused.value)


@pytest.mark.parametrize(
    ("environ", "words"),
    [({"ENGINE": "openai"}, "ENGINE_URLS is empty"),
     ({"ENGINE_URLS": "http://127.0.0.1:8001"}, "ENGINE_URLS is set")],
)  # fmt: skip
def test_an_engine_over_servers_and_their_addresses_go_together(environ, words):
    with pytest.raises(SettingsError) as refused:
        load_settings(None, environ)
    engine = environ.get("ENGINE", "local")
    assert words in refused.value.message and f"ENGINE is {engine}" in refused.value.message


def test_vllm_needs_no_address():
    own = load_settings(None, {"ENGINE": "vllm", "VLLM_PYTHON": "/opt/vllm/bin/python"})
    assert (own.engine_urls, own.engine_rows) == ((), 32)
    assert own.vllm_python == "/opt/vllm/bin/python"


def test_llama_cpp_needs_no_address_and_computes_fewer_replies_at_once():
    own = load_settings(None, {"ENGINE": "llamacpp", "LLAMA_SERVER": "/opt/llama-server"})
    assert (own.engine_urls, own.engine_rows, own.llama_server) == ((), 4, "/opt/llama-server")
    theirs = {"ENGINE": "llamacpp", "ENGINE_URLS": "http://127.0.0.1:8080", "ENGINE_ROWS": "2"}
    assert load_settings(None, theirs).engine_rows == 2
    assert load_settings(None, {}).engine_rows == 32
    assert (own.reply_candidates, own.max_reply_candidates) == (1, 1)
    chosen = load_settings(None, {"ENGINE": "llamacpp", "REPLY_CANDIDATES": "4"})
    assert (chosen.reply_candidates, chosen.max_reply_candidates) == (4, 4)


@pytest.mark.parametrize(
    "environ",
    [{"ENGINE_URLS": "http://bot:hidden@gpu:8001"}, {"ENGINE_URLS": "http://a:1, http://hid@d,en@gpu/v1"},
     {"TRAINER": "ray", "RAY_ADDRESS": "http://bot:hidden@head:8265"}],
)  # fmt: skip
def test_a_password_in_an_address_is_refused_and_not_shown(environ):
    with pytest.raises(SettingsError) as refused:
        load_settings(None, environ)
    assert not re.search("hid|den|bot:", str(refused.value))


def test_a_setting_that_another_one_leaves_without_effect_is_warned_about(tmp_path, caplog):
    text = "ENGINE=vllm\nENGINE_URLS=http://a:1\nENGINE_MODEL=qwen\nENGINE_HOME=/mnt\nTRAINER_SLOTS=4\nRAY_ADDRESS=\n"
    with caplog.at_level(logging.WARNING):
        load_settings(env_file(tmp_path, text), {"SHARED": "of another program"})
    model, slots = (record.getMessage() for record in caplog.records)
    assert all(fact in model for fact in ("line 3:", "ENGINE_MODEL", "ENGINE=vllm"))
    assert all(fact in slots for fact in ("line 5:", "TRAINER_SLOTS", "TRAINER=local"))


def test_candidates_need_the_engine_that_compares_them():
    servers = {"ENGINE": "vllm", "ENGINE_URLS": "http://127.0.0.1:8001"}
    assert load_settings(None, {}).reply_candidates == DEFAULT_CANDIDATES == 4
    assert load_settings(None, servers).reply_candidates == 1
    assert load_settings(None, {**servers, "REPLY_CANDIDATES": "1"}).reply_candidates == 1
    with pytest.raises(SettingsError, match=r"^REPLY_CANDIDATES=4 .*built-in.*ENGINE=vllm"):
        load_settings(None, {**servers, "REPLY_CANDIDATES": "4"})
    with pytest.raises(SettingsError, match=r"^MAX_REPLY_CANDIDATES=2 .*built-in.*ENGINE=vllm"):
        load_settings(None, {**servers, "MAX_REPLY_CANDIDATES": "2"})


@pytest.mark.parametrize(
    ("default", "most", "allowed"),
    [(None, None, 4), ("3", None, 4), ("6", None, 6), ("2", "2", 2), ("1", "1", 1), (None, "8", 8)],
)
def test_servers_may_choose_four_candidates_or_what_the_operator_says(default, most, allowed):
    given = {"REPLY_CANDIDATES": default, "MAX_REPLY_CANDIDATES": most}
    assert (
        load_settings(None, {name: it for name, it in given.items() if it}).max_reply_candidates
        == allowed
    )


def test_the_default_of_candidates_is_no_more_than_servers_may_choose():
    with pytest.raises(SettingsError, match=r"REPLY_CANDIDATES is 4.*MAX_REPLY_CANDIDATES .*3"):
        load_settings(None, {"REPLY_CANDIDATES": "4", "MAX_REPLY_CANDIDATES": "3"})
    servers = {"ENGINE": "openai", "ENGINE_URLS": "http://127.0.0.1:8001"}
    assert load_settings(None, servers).max_reply_candidates == 1
    assert evaluation_environ(load_settings(None, servers))["REPLY_CANDIDATES"] == "1"
    fewer = load_settings(None, {"MAX_REPLY_CANDIDATES": "2"})
    assert evaluation_environ(fewer)["REPLY_CANDIDATES"] == "2", (
        "only a stated number can be too many"
    )
    with pytest.raises(SettingsError) as info:
        load_settings(None, {"REPLY_CANDIDATES": "many"})
    assert "MAX_REPLY" not in str(info.value)


def test_the_trainer_is_given_the_key_of_wandb_only_where_that_is_asked_for():
    key = {"WANDB_API_KEY": "hidden"}
    assert load_settings(None, key).wandb == {}
    asked = load_settings(None, {**key, "TRAINER_WANDB": "1"})
    assert asked.wandb == {
        "WANDB_API_KEY": "hidden",
        "WANDB_PROJECT": "understudy",
    } and "hidden" not in repr(asked)
    with pytest.raises(SettingsError, match=r"TRAINER_WANDB .*no WANDB_API_KEY"):
        load_settings(None, {"TRAINER_WANDB": "1"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_where_others_reach_the_web_server_a_token_is_demanded(host):
    with pytest.raises(SettingsError, match=f"WEB_HOST is {host}.* no WEB_TOKEN.*token_urlsafe"):
        load_settings(None, {"WEB_HOST": host})
    opened = load_settings(None, {"WEB_HOST": host, "WEB_TOKEN": "correct-horse-battery-staple"})
    assert (opened.web_host, opened.is_local) == (host, False) and "staple" not in repr(opened)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1", "[::1]"])
def test_on_this_machine_alone_none_is(host):
    assert load_settings(None, {"WEB_HOST": host}).is_local


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_with_what_is_allowed(name, value):
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {name: value})
    assert (
        refused.value.message.startswith(f"{name} is ")
        and SETTINGS_BY_NAME[name].allowed in refused.value.message
    )
    assert "in the environment" in refused.value.message


def test_all_wrong_values_are_named_at_once_with_their_lines(tmp_path):
    path = env_file(tmp_path, "# settings\n\nWEB_PORT=high\nTOP_P=2\n\n\nTRAINER_NICE=99\n")
    with pytest.raises(SettingsError) as refused:
        load_settings(path, {"LOG_LEVEL": "shout", "TOP_P": "3"})
    message = refused.value.message
    assert f"WEB_PORT is 'high' in {path} line 3;" in message
    assert f"TRAINER_NICE is '99' in {path} line 7;" in message
    assert (
        "TOP_P is '3' in the environment;" in message
        and "LOG_LEVEL is 'shout' in the environment;" in message
    )


def test_an_unknown_name_is_warned_about(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        load_settings(
            env_file(tmp_path, "\nTRAINER_THREAD=2\nQQQ=1\nHF_ENDPOINT=x\n"), {"UNRELATED": "fine"}
        )
    first, second, third = (record.getMessage() for record in caplog.records)
    assert "line 2: " in first and "TRAINER_THREAD." in first and "TRAINER_THREADS?" in first
    assert "line 3: " in second and "QQQ" in second and "mean" not in second
    assert "line 4: " in third and "HF_ENDPOINT" in third and "environment" in third


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\n\nBASE_MODEL='open\n", "line 3 cannot be read"), (b"BASE_MODEL=\xff\n", "not UTF-8")],
)
def test_a_broken_file_is_refused(tmp_path, content, words):
    path = tmp_path / ".env"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=words):
        load_settings(path, {})


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path, {})


def test_the_example_and_the_settings_name_the_same(tmp_path):
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assigned = [
        line.removeprefix("# ").split("=")[0]
        for line in lines
        if line.removeprefix("# ").split("=")[0].isupper()
    ]
    assert sorted(assigned) == sorted(setting.name for setting in SETTINGS)
    assert sorted(setting.field for setting in SETTINGS) == sorted(Settings.model_fields)


def test_moderators_may_choose_replies_as_long_as_the_operators_and_the_operator_says_how_long():
    assert load_settings(None, {}).new_tokens_limit == 512
    assert load_settings(None, {"MAX_NEW_TOKENS": "900"}).new_tokens_limit == 900
    assert load_settings(None, {"NEW_TOKENS_LIMIT": "200"}).new_tokens_limit == 200
    with pytest.raises(SettingsError, match=r"MAX_NEW_TOKENS is 300, NEW_TOKENS_LIMIT only 200"):
        load_settings(None, {"NEW_TOKENS_LIMIT": "200", "MAX_NEW_TOKENS": "300"})
    assert load_settings(None, {"CONTEXT_TOKENS": "4096"}).context_tokens == 4096


def test_the_example_with_every_line_switched_on_is_valid(tmp_path):
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    on = [
        line.removeprefix("# ") if line.removeprefix("# ").split("=")[0].isupper() else line
        for line in lines
    ]
    varying = {
        "MESSAGE_CONTENT_INTENT": "true",
        "MEMBERS_INTENT": "true",
        "TRAINER_THREADS": "",
        "TEMPERATURE": "",
        "TOP_P": "",
        "CONTEXT_TOKENS": "",
    }
    settings = load_settings(env_file(tmp_path, "\n".join(on)), varying)
    assert settings == Settings()


def test_the_hubs_token_of_the_file_is_found_by_the_hub_library_and_never_shown(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "")  # restored afterwards
    (tmp_path / ".env").write_text("HF_TOKEN=hf_of_the_tests\nFETCH_ADAPTERS=Moderators\n")
    settings = load_settings(tmp_path / ".env", {})
    set_hub_token(settings)
    assert get_token() == "hf_of_the_tests" and settings.fetch_adapters == "moderators"
    assert "hf_of_the_tests" not in repr(settings)


@pytest.mark.parametrize(
    ("engine", "is_read"),
    [("local", False), ("llamacpp", True), ("vllm", True), ("openai", True)],
)
def test_vision_is_read_with_the_engines_that_show_pictures(tmp_path, caplog, engine, is_read):
    file = tmp_path / ".env"
    urls = "" if engine == "local" else "ENGINE_URLS=http://127.0.0.1:1\n"
    file.write_text(f"ENGINE={engine}\nVISION=off\nEXTRAS=voice\n{urls}")
    assert load_settings(file, {"UNDERSTUDY_HOME": str(tmp_path)}).vision == "off"
    assert ("nothing reads VISION" in caplog.text) is not is_read
    assert "EXTRAS" not in caplog.text
