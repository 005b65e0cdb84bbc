"""The bot's settings, read from the environment and `.env`, checked together and frozen."""

from __future__ import annotations

import difflib
import ipaddress
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv.parser import Binding, parse_stream

from personas.engine.serving_precision import PRECISION_BY_SETTING, PrecisionSetting
from personas.errors import RequestError, UnderstudyError
from personas.models.base_model import EMBEDDED

LOOPBACK = "127.0.0.1"


MIN_TOKEN_CHARS, MIN_DISTINCT_TOKEN_CHARS = 24, 8


HOST_NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?")


HOST_ALLOWED = "an address of this machine, such as 127.0.0.1, 0.0.0.0 (all of IPv4) or ::1"


TOKEN_ALLOWED = (
    f"at least {MIN_TOKEN_CHARS} letters, digits and signs, {MIN_DISTINCT_TOKEN_CHARS} different ones, without spaces"
)


HOST_NAMES_ALLOWED = "host names with commas between them, such as bot.example.org"


def parse_host(text: str) -> str:
    """An address to listen on. Raises `ValueError`."""
    return LOOPBACK if text.casefold() == "localhost" else str(ipaddress.ip_address(text.strip("[]")))


def parse_web_token(text: str) -> str:
    """A token that nobody guesses. Raises `ValueError`."""
    printable = text.isascii() and text.isprintable() and " " not in text
    if not printable or len(text) < MIN_TOKEN_CHARS or len(set(text)) < MIN_DISTINCT_TOKEN_CHARS:
        raise ValueError
    return text


def parse_host_names(text: str) -> tuple[str, ...]:
    """Host names, without what stands around them. Raises `ValueError`."""
    found = tuple(name.strip().casefold().rstrip(".") for name in text.split(","))
    if not all(HOST_NAME_PATTERN.fullmatch(name) for name in found):
        raise ValueError
    return found


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(address).is_loopback


def missing_web_token(values: Mapping[str, object]) -> tuple[str, str] | None:
    """What is wrong, and what to do, where others reach the server without a token; None where all is well."""
    address = str(values.get("web_host", LOOPBACK))
    if is_loopback(address) or values.get("web_token"):
        return None
    return (
        f"WEB_HOST is {address}, which other machines reach, and there is no WEB_TOKEN.",
        "Set one, such as `python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes; or leave WEB_HOST out.",
    )


log = logging.getLogger(__name__)


LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


SCORE_CARD_LEVELS = ("full", "quick", "losses")


MIN_STATEMENT_CHARS = 20


INTEGER_PATTERN = re.compile(r"-?[0-9]+")


"""Python's `int` takes digits of any script, and underscores."""


TRUE_WORDS, FALSE_WORDS = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class SettingsError(UnderstudyError):
    """Settings that cannot be used. The message names every wrong one, and never a secret's value."""


@dataclass(frozen=True)
class Settings:
    """What the operator decides. Sampling values are the defaults of every reply; `trainer_nice` is a Unix niceness.

    `discord_permission` states which permission Discord gave to train on what its API brings, who gave it and when;
    empty, nobody did. `history_days` is how long conversations are kept, `guild_days` how long what belongs to a
    server that has removed the bot. `comparisons_per_day` is how often a member may vote between two replies in 24
    hours. `trainer_card` says how much is measured of a new version, `trainer_wandb` whether trainings send their
    figures to wandb. `web_names` are the host names, besides loopback's, by which the web server may be asked.
    """

    discord_token: str = field(default="", repr=False)
    home: Path = field(default_factory=lambda: Path.home() / ".understudy")
    base_model: str = EMBEDDED
    engine_precision: PrecisionSetting = "auto"
    web_host: str = LOOPBACK
    web_port: int = 8420
    web_token: str = field(default="", repr=False)
    web_names: tuple[str, ...] = ()
    max_upload_gib: int = 8
    message_content_intent: bool = True
    temperature: float = 0.6
    top_p: float = 0.9
    max_new_tokens: int = 120
    max_waiting_replies: int = 64
    trainer_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    trainer_nice: int = 10
    trainer_card: str = "full"
    trainer_wandb: bool = False
    wandb_api_key: str = field(default="", repr=False)
    wandb_project: str = "understudy"
    log_level: str = "INFO"
    discord_permission: str = ""
    history_days: int = 90
    guild_days: int = 14
    comparisons_per_day: int = 20

    @property
    def wandb(self) -> dict[str, str]:
        """What the trainer's environment holds to send its figures to wandb: nothing unless that is asked for."""
        given = {"WANDB_API_KEY": self.wandb_api_key, "WANDB_PROJECT": self.wandb_project}
        return given if self.trainer_wandb else {}

    @property
    def in_sandbox(self) -> bool:
        """Without a token the bot runs against its own sandbox instead of Discord."""
        return not self.discord_token

    @property
    def is_local(self) -> bool:
        """Whether the web server is reached from this machine alone."""
        return is_loopback(self.web_host)


@dataclass(frozen=True)
class Setting:
    """One variable: the field it fills, how its text is read (`parse` raises `ValueError`) and what is allowed."""

    name: str
    field: str
    allowed: str
    parse: Callable[[str], object]
    secret: bool = False


@dataclass(frozen=True)
class SettingValue:
    """A value as the operator wrote it, and where."""

    text: str
    origin: str


def load_settings(env_file: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings; the environment wins over the file, and a file that is not there sets nothing.

    Raises `SettingsError` naming all wrong values at once. An unknown name in the file is only warned about.
    """
    given = {**_from_file(env_file), **_from_environment(environ)}
    values: dict[str, Any] = {}
    wrong = []
    for setting in SETTINGS:
        entry = given.get(setting.name)
        if entry is None or not entry.text.strip():
            continue
        try:
            values[setting.field] = setting.parse(entry.text.strip())
        except ValueError:
            shown = "a value (not shown)" if setting.secret else repr(entry.text)
            wrong.append(f"{setting.name} is {shown} in {entry.origin}; allowed: {setting.allowed}.")
    if wrong:
        raise SettingsError(" ".join(wrong), "Correct what is named, or leave it out; .env.example explains each.")
    if values.get("trainer_wandb") and not values.get("wandb_api_key"):
        raise SettingsError("TRAINER_WANDB is on, but there is no WANDB_API_KEY.", "Set it too, or leave both out.")
    if unsafe := missing_web_token(values):
        raise SettingsError(*unsafe)
    # Discord grants the intent on request only, so there the bot does without it until told otherwise.
    values.setdefault("message_content_intent", not values.get("discord_token"))
    return Settings(**values)


def existing_file(text: str) -> Path:
    """A path given on the command line. Raises `RequestError` when there is no such file."""
    if not Path(text).exists():
        raise RequestError(f"There is no file {text}.", "Check the path.")
    return Path(text)


def _from_environment(environ: Mapping[str, str]) -> dict[str, SettingValue]:
    return {s.name: SettingValue(environ[s.name], "the environment") for s in SETTINGS if s.name in environ}


def _from_file(path: Path | None) -> dict[str, SettingValue]:
    given = {}
    for binding in _bindings(path) if path else []:
        line = binding.original.line + _blank_lines_before(binding)
        if binding.error:
            raise SettingsError(f"{path} line {line} cannot be read.", "Write NAME=value, with matching quotes.")
        if binding.key is None:  # a comment or blank lines
            continue
        if binding.key not in SETTINGS_BY_NAME:
            log.warning("%s line %d: nothing reads %s.%s", path, line, binding.key, _closest_name(binding.key))
        given[binding.key] = SettingValue(binding.value or "", f"{path} line {line}")
    return given


def _bindings(path: Path) -> list[Binding]:
    # Not `dotenv_values`: it drops line numbers, passes over broken lines, and fills in ${…} from os.environ.
    try:
        with path.open(encoding="utf-8-sig") as file:
            return list(parse_stream(file))
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.", "Check its rights, or remove it.") from None


def _blank_lines_before(binding: Binding) -> int:
    text = binding.original.string
    return text[: len(text) - len(text.lstrip())].count("\n")


def _closest_name(name: str) -> str:
    near = difflib.get_close_matches(name.upper(), SETTINGS_BY_NAME, n=1)
    return f" Did you mean {near[0]}?" if near else ""


# ------------------------------------------------------------------------------------------- reading one value


def _token(text: str) -> str:
    if not text.isascii() or any(character.isspace() for character in text):
        raise ValueError
    return text


def _folder(text: str) -> Path:
    try:
        path = Path(text).expanduser().absolute()
        usable = path.is_dir() or not path.exists()
    except (OSError, RuntimeError) as error:  # not to be looked at, or the home of nobody known
        raise ValueError from error
    if not usable:
        raise ValueError
    return path


def _integer_between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (INTEGER_PATTERN.fullmatch(text) and low <= (value := int(text)) <= high):
            raise ValueError
        return value

    return parse


def _number_between(above: float, high: float, *, or_equal: bool) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text if text.isascii() else "")
        # Written so that nan, which compares false with everything, is refused.
        if not (above < value <= high or (or_equal and value == above)):
            raise ValueError
        return value

    return parse


def _boolean(text: str) -> bool:
    if text.casefold() not in TRUE_WORDS + FALSE_WORDS:
        raise ValueError
    return text.casefold() in TRUE_WORDS


def _card(text: str) -> str:
    if text.lower() not in SCORE_CARD_LEVELS:
        raise ValueError
    return text.lower()


def _precision(text: str) -> str:
    if text.lower() not in PRECISION_BY_SETTING:
        raise ValueError
    return text.lower()


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError
    return text.upper()


def _statement(text: str) -> str:
    # A mere yes states nothing that anybody could check later.
    if len(text) < MIN_STATEMENT_CHARS or not re.search(r"\b20\d\d\b", text):
        raise ValueError
    return text


SETTINGS = (
    Setting("DISCORD_TOKEN", "discord_token", "the bot's token alone, without spaces", _token, secret=True),
    Setting("UNDERSTUDY_HOME", "home", "a folder, or a path where one can be made", _folder),
    Setting("BASE_MODEL", "base_model", "embedded, a model folder or a hub id", str),
    Setting("ENGINE_PRECISION", "engine_precision", ", ".join(PRECISION_BY_SETTING), _precision),
    Setting("WEB_HOST", "web_host", HOST_ALLOWED, parse_host),
    Setting("WEB_PORT", "web_port", "a whole number from 0 (any free port) to 65535", _integer_between(0, 65535)),
    Setting("WEB_TOKEN", "web_token", TOKEN_ALLOWED, parse_web_token, secret=True),
    Setting("WEB_NAMES", "web_names", HOST_NAMES_ALLOWED, parse_host_names),
    Setting("MAX_UPLOAD_GIB", "max_upload_gib", "a whole number from 1 to 1000", _integer_between(1, 1000)),
    Setting("MESSAGE_CONTENT_INTENT", "message_content_intent", "true or false", _boolean),
    Setting("TEMPERATURE", "temperature", "a number from 0 to 2", _number_between(0, 2, or_equal=True)),
    Setting("TOP_P", "top_p", "a number above 0, at most 1", _number_between(0, 1, or_equal=False)),
    Setting("MAX_NEW_TOKENS", "max_new_tokens", "a whole number from 1 to 1024", _integer_between(1, 1024)),
    Setting("MAX_WAITING_REPLIES", "max_waiting_replies", "a whole number from 1 to 10000", _integer_between(1, 10000)),
    Setting("TRAINER_THREADS", "trainer_threads", "a whole number from 1 to 256", _integer_between(1, 256)),
    Setting("TRAINER_NICE", "trainer_nice", "a whole number from 0 to 19", _integer_between(0, 19)),
    Setting("TRAINER_CARD", "trainer_card", ", ".join(SCORE_CARD_LEVELS), _card),
    Setting("TRAINER_WANDB", "trainer_wandb", "true or false", _boolean),
    Setting("WANDB_API_KEY", "wandb_api_key", "the key alone, without spaces", _token, secret=True),
    Setting("WANDB_PROJECT", "wandb_project", "a project's name", str),
    Setting("LOG_LEVEL", "log_level", ", ".join(LOG_LEVELS), _log_level),
    Setting(
        "DISCORD_PERMISSION",
        "discord_permission",
        f"a sentence of at least {MIN_STATEMENT_CHARS} letters that says which permission, given by whom, and when "
        "(a date or a year)",
        _statement,
    ),
    Setting("HISTORY_DAYS", "history_days", "a whole number from 1 to 3650", _integer_between(1, 3650)),
    Setting("GUILD_DAYS", "guild_days", "a whole number from 0 to 365", _integer_between(0, 365)),
    Setting("COMPARISONS_PER_DAY", "comparisons_per_day", "a whole number from 1 to 1000", _integer_between(1, 1000)),
)


SETTINGS_BY_NAME = {setting.name: setting for setting in SETTINGS}
