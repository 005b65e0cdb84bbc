"""The settings: read once from the environment and `.env`, checked together, then frozen and passed in.

`.env.example` explains each of them to the operator.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv.parser import Binding, parse_stream

from bot import web_settings
from personas.base_model import EMBEDDED
from personas.errors import RequestError, UnderstudyError
from personas.precisions import WANTED, Wanted

log = logging.getLogger(__name__)

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
CARDS = ("full", "quick", "losses")
MIN_STATEMENT = 20
PLAIN_NUMBER = re.compile(r"-?[0-9]+")
"""Python's `int` takes digits of any script, and underscores."""
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


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
    engine_precision: Wanted = "auto"
    web_host: str = web_settings.LOOPBACK
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
        return web_settings.is_loopback(self.web_host)


@dataclass(frozen=True)
class Setting:
    """One variable: the field it fills, how its text is read (`parse` raises `ValueError`) and what is allowed."""

    name: str
    field: str
    allowed: str
    parse: Callable[[str], object]
    secret: bool = False


@dataclass(frozen=True)
class Given:
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
    if unsafe := web_settings.missing_key(values):
        raise SettingsError(*unsafe)
    # Discord grants the intent on request only, so there the bot does without it until told otherwise.
    values.setdefault("message_content_intent", not values.get("discord_token"))
    return Settings(**values)


def existing_file(text: str) -> Path:
    """A path given on the command line. Raises `RequestError` when there is no such file."""
    if not Path(text).exists():
        raise RequestError(f"There is no file {text}.", "Check the path.")
    return Path(text)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    return {s.name: Given(environ[s.name], "the environment") for s in SETTINGS if s.name in environ}


def _from_file(path: Path | None) -> dict[str, Given]:
    given = {}
    for binding in _bindings(path) if path else []:
        line = binding.original.line + _blank_lines_before(binding)
        if binding.error:
            raise SettingsError(f"{path} line {line} cannot be read.", "Write NAME=value, with matching quotes.")
        if binding.key is None:  # a comment or blank lines
            continue
        if binding.key not in BY_NAME:
            log.warning("%s line %d: nothing reads %s.%s", path, line, binding.key, _nearest(binding.key))
        given[binding.key] = Given(binding.value or "", f"{path} line {line}")
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


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name.upper(), BY_NAME, n=1)
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


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (PLAIN_NUMBER.fullmatch(text) and low <= (value := int(text)) <= high):
            raise ValueError
        return value

    return parse


def _number(above: float, high: float, *, or_equal: bool) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text if text.isascii() else "")
        # Written so that nan, which compares false with everything, is refused.
        if not (above < value <= high or (or_equal and value == above)):
            raise ValueError
        return value

    return parse


def _yes_or_no(text: str) -> bool:
    if text.casefold() not in YES + NO:
        raise ValueError
    return text.casefold() in YES


def _card(text: str) -> str:
    if text.lower() not in CARDS:
        raise ValueError
    return text.lower()


def _precision(text: str) -> str:
    if text.lower() not in WANTED:
        raise ValueError
    return text.lower()


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError
    return text.upper()


def _statement(text: str) -> str:
    # A mere yes states nothing that anybody could check later.
    if len(text) < MIN_STATEMENT or not re.search(r"\b20\d\d\b", text):
        raise ValueError
    return text


SETTINGS = (
    Setting("DISCORD_TOKEN", "discord_token", "the bot's token alone, without spaces", _token, secret=True),
    Setting("UNDERSTUDY_HOME", "home", "a folder, or a path where one can be made", _folder),
    Setting("BASE_MODEL", "base_model", "embedded, a model folder or a hub id", str),
    Setting("ENGINE_PRECISION", "engine_precision", ", ".join(WANTED), _precision),
    Setting("WEB_HOST", "web_host", web_settings.HOST_ALLOWED, web_settings.host),
    Setting("WEB_PORT", "web_port", "a whole number from 0 (any free port) to 65535", _whole(0, 65535)),
    Setting("WEB_TOKEN", "web_token", web_settings.TOKEN_ALLOWED, web_settings.token, secret=True),
    Setting("WEB_NAMES", "web_names", web_settings.NAMES_ALLOWED, web_settings.names),
    Setting("MAX_UPLOAD_GIB", "max_upload_gib", "a whole number from 1 to 1000", _whole(1, 1000)),
    Setting("MESSAGE_CONTENT_INTENT", "message_content_intent", "true or false", _yes_or_no),
    Setting("TEMPERATURE", "temperature", "a number from 0 to 2", _number(0, 2, or_equal=True)),
    Setting("TOP_P", "top_p", "a number above 0, at most 1", _number(0, 1, or_equal=False)),
    Setting("MAX_NEW_TOKENS", "max_new_tokens", "a whole number from 1 to 1024", _whole(1, 1024)),
    Setting("MAX_WAITING_REPLIES", "max_waiting_replies", "a whole number from 1 to 10000", _whole(1, 10000)),
    Setting("TRAINER_THREADS", "trainer_threads", "a whole number from 1 to 256", _whole(1, 256)),
    Setting("TRAINER_NICE", "trainer_nice", "a whole number from 0 to 19", _whole(0, 19)),
    Setting("TRAINER_CARD", "trainer_card", ", ".join(CARDS), _card),
    Setting("TRAINER_WANDB", "trainer_wandb", "true or false", _yes_or_no),
    Setting("WANDB_API_KEY", "wandb_api_key", "the key alone, without spaces", _token, secret=True),
    Setting("WANDB_PROJECT", "wandb_project", "a project's name", str),
    Setting("LOG_LEVEL", "log_level", ", ".join(LOG_LEVELS), _log_level),
    Setting(
        "DISCORD_PERMISSION",
        "discord_permission",
        f"a sentence of at least {MIN_STATEMENT} letters that says which permission, given by whom, and when "
        "(a date or a year)",
        _statement,
    ),
    Setting("HISTORY_DAYS", "history_days", "a whole number from 1 to 3650", _whole(1, 3650)),
    Setting("GUILD_DAYS", "guild_days", "a whole number from 0 to 365", _whole(0, 365)),
    Setting("COMPARISONS_PER_DAY", "comparisons_per_day", "a whole number from 1 to 1000", _whole(1, 1000)),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}
