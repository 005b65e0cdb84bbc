"""The bot's settings, read from the environment and `.env`, validated together and frozen."""

import difflib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv.parser import Binding, parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from bot.platform.time_zones import environment_zone, zone_name
from bot.safety.texts import read_texts
from bot.setting_values import (
    LOOPBACK,
    MAX_NEW_TOKENS_LIMIT,
    MIN_DISTINCT_TOKEN_CHARS,
    MIN_STATEMENT_CHARS,
    MIN_TOKEN_CHARS,
    BotToken,
    CandidateCount,
    Host,
    HostNames,
    Integer,
    Networks,
    Number,
    ServerFolder,
    Statement,
    Token,
    UsableFolder,
    WebToken,
    is_loopback,
)
from personas.engine.context_window import MAX_CONTEXT_TOKENS, MIN_CONTEXT_TOKENS
from personas.engine.server_urls import parse_server_urls
from personas.engine.serving_precision import PRECISION_BY_SETTING, PrecisionSetting
from personas.errors import UnderstudyError
from personas.home.teacher_setting import TEACHER_KEY, make_teacher
from personas.models.base_model import EMBEDDED
from personas.schemas.chat import VisionSetting
from personas.schemas.training import Teacher

log = logging.getLogger(__name__)

CORRECT_ADVICE = "Correct what is named, or leave it out; .env.example explains each."
RAY_ADDRESS_PATTERN = re.compile(r"https?://[^\s/:@]+(:[0-9]{1,5})?(/\S*)?")
URL_PASSWORD_PATTERN = re.compile(r"//.*@", re.DOTALL)
FetchPolicy = Literal["off", "operator", "moderators"]
ScoreCardLevel = Literal["full", "quick", "losses"]
TrainerKind = Literal["local", "ray"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
EngineKind = Literal["local", "llamacpp", "vllm", "openai"]

DEFAULT_ROWS = 32
ROWS_BY_ENGINE = {"llamacpp": 4}


class SettingsError(UnderstudyError):
    """Invalid settings. The message names every invalid one, and never a secret's value."""


class Settings(BaseSettings):
    """The operator's settings. `load_settings` reads them; the constructor only validates its
    arguments.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        populate_by_name=True,
        validate_default=False,
    )

    discord_token: BotToken = Field(
        default="",
        repr=False,
        description="the bot's token alone: three parts with dots between, as Bot → Reset Token shows "
        "it, and not the application's id or public key",
    )
    home: UsableFolder = Field(
        default_factory=lambda: Path.home() / ".understudy",
        validation_alias="UNDERSTUDY_HOME",
        description="a folder, or a path where one can be made",
    )
    base_model: str = Field(
        default=EMBEDDED, description="embedded, a model folder, a GGUF file or a hub id"
    )
    lore_encoder: str = Field(
        default="", description="a folder or hub id of a sentence-transformers model"
    )
    teacher: str = Field(
        default="",
        description="a base model here, or the address of a server with OpenAI's API, ending in /v1",
    )
    teacher_model: str = Field(default="", description="the model's name at that server")
    teacher_licence: str = Field(
        default="", description="a licence's name, such as Apache-2.0; needed for unknown models"
    )
    teacher_key: Token = Field(
        default="", repr=False, description="that server's API key alone, without spaces"
    )
    engine_precision: Annotated[PrecisionSetting, BeforeValidator(str.lower)] = Field(
        default="auto", description=", ".join(PRECISION_BY_SETTING)
    )
    engine: Annotated[EngineKind, BeforeValidator(str.lower)] = Field(
        default="local", description="local, llamacpp, vllm, openai"
    )
    engine_urls: Annotated[tuple[str, ...], BeforeValidator(parse_server_urls)] = Field(
        default=(),
        description="different addresses with commas between them, such as http://127.0.0.1:8001; ports up to 65535, "
        "the key in ENGINE_KEY",
    )
    engine_key: Token = Field(
        default="", repr=False, description="the servers' API key alone, without spaces"
    )
    engine_home: ServerFolder = Field(default="", description="an absolute path on the servers")
    engine_model: str = Field(
        default="",
        description="the model's name at the servers, if they list several; with llamacpp the base model's GGUF file",
    )
    # Whether the servers' model is given the pictures that members send; auto finds out
    vision: Annotated[VisionSetting, BeforeValidator(str.lower)] = Field(
        default="auto", description="auto, on, off"
    )
    # The model that recognises voice messages; empty: personas are told their length alone
    voice_model: str = Field(
        default="",
        description="a folder, a hub id, or a size of Whisper: tiny, base, small, medium, large-v3",
    )
    # A server of the bot's own has a context of its own for each reply
    engine_rows: Integer = Field(
        default_factory=lambda values: ROWS_BY_ENGINE.get(values.get("engine", ""), DEFAULT_ROWS),
        ge=1,
        le=1024,
        description="a whole number from 1 to 1024",
    )
    engine_loras: Integer = Field(default=16, ge=1, le=1024)
    # The program that ENGINE=llamacpp starts; empty for the one on the PATH, or the package's
    llama_server: str = Field(default="", description="the path of llama-server")
    # The Python of an environment with vLLM, whose server the bot starts without ENGINE_URLS; empty for the
    # installed one (python -m bot vllm install)
    vllm_python: str = Field(default="", description="the path of a Python")
    web_host: Host = Field(
        default=LOOPBACK,
        description="an address of this machine, such as 127.0.0.1, 0.0.0.0 (all of IPv4) or ::1",
    )
    web_port: Integer = Field(
        default=8420, ge=0, le=65535, description="a whole number from 0 (any free port) to 65535"
    )
    web_token: WebToken = Field(
        default="",
        repr=False,
        description=f"at least {MIN_TOKEN_CHARS} letters, digits and signs, {MIN_DISTINCT_TOKEN_CHARS} different ones, "
        "without spaces",
    )
    # Host names, besides loopback's, that the web server answers to
    web_names: HostNames = Field(
        default=(), description="host names with commas between them, such as bot.example.org"
    )
    # Proxies whose X-Forwarded-For the web server believes
    web_proxies: Networks = Field(
        default=(),
        description="addresses or networks with commas between them, such as 127.0.0.1 or 10.0.0.0/8",
    )
    fetch_adapters: Annotated[FetchPolicy, BeforeValidator(str.lower)] = Field(
        default="operator", description="off, operator, moderators"
    )
    hf_token: Token = Field(default="", repr=False, description="the token alone, without spaces")
    max_upload_gib: Integer = Field(default=8, ge=1, le=1000)
    fetch_datasets: Annotated[FetchPolicy, BeforeValidator(str.lower)] = Field(
        default="operator", description="off, operator, moderators"
    )
    message_content_intent: bool = Field(
        # Discord grants the intent on request only, so there the bot does without it unless it is
        # switched on.
        default_factory=lambda values: not values.get("discord_token"),
        description="true or false",
    )
    # The server members intent: who joins, for greetings. Discord grants it likewise
    members_intent: bool = Field(
        default_factory=lambda values: not values.get("discord_token"),
        description="true or false",
    )
    # Whether people may install the bot for themselves, and talk to it where it is not
    user_install: bool = Field(default=False, description="true or false")
    temperature: Number | None = Field(default=None, ge=0, le=2, description="a number from 0 to 2")
    top_p: Number | None = Field(
        default=None, gt=0, le=1, description="a number above 0, at most 1"
    )
    max_new_tokens: Integer = Field(default=120, ge=1, le=1024)
    # The longest reply that moderators may choose
    new_tokens_limit: Integer = Field(
        default_factory=lambda values: max(values.get("max_new_tokens", 0), 512),
        ge=1,
        le=MAX_NEW_TOKENS_LIMIT,
    )
    # The most tokens of a prompt and its reply; None for the engine's default
    context_tokens: Integer | None = Field(
        default=None,
        ge=MIN_CONTEXT_TOKENS,
        le=MAX_CONTEXT_TOKENS,
        description=f"a whole number from {MIN_CONTEXT_TOKENS} to {MAX_CONTEXT_TOKENS}",
    )
    reply_candidates: CandidateCount = Field(
        default_factory=lambda values: 4 if values["engine"] == "local" else 1
    )
    max_reply_candidates: CandidateCount = Field(
        default_factory=lambda values: max(
            values["reply_candidates"], 4 if values["engine"] == "local" else 1
        )
    )
    own_words: bool = Field(
        default_factory=lambda values: (
            values["engine"] == "local" and values["base_model"] == EMBEDDED
        ),
        description="true or false",
    )
    max_waiting_replies: Integer = Field(default=64, ge=1, le=10000)
    trainer_threads: Integer = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    trainer_nice: Integer = Field(default=10, ge=0, le=19)
    # Extent of a new version's score card
    trainer_card: Annotated[ScoreCardLevel, BeforeValidator(str.lower)] = Field(
        default="full", description="full, quick, losses"
    )
    # Limits at which a run is ended (`bot.training.run_limits.RunLimits`)
    trainer_stall_minutes: Integer = Field(default=60, ge=1, le=1440)
    trainer_max_hours: Integer = Field(default=24, ge=1, le=10000)
    trainer_operator_max_hours: Integer = Field(default=0, ge=0, le=10000)
    trainer_max_memory_gib: Integer = Field(default=0, ge=0, le=10000)
    # Runs are trained on this machine or on a Ray cluster, `trainer_slots` at once, on `trainer_gpus`
    # GPUs each.
    trainer: Annotated[TrainerKind, BeforeValidator(str.lower)] = Field(
        default="local", description="local, ray"
    )
    ray_address: str = Field(
        default="", description="the address of Ray's dashboard, such as http://head:8265"
    )
    ray_auth_token: Token = Field(
        default="", repr=False, description="the cluster's token alone, without spaces"
    )
    shared: str = Field(default="", description="a folder that all workers mount at the same path")
    trainer_slots: Integer = Field(default=1, ge=1, le=64)
    trainer_gpus: Integer = Field(default=1, ge=0, le=16)
    # Whether training runs send their metrics to wandb
    trainer_wandb: bool = Field(default=False, description="true or false")
    wandb_api_key: Token = Field(
        default="", repr=False, description="the key alone, without spaces"
    )
    wandb_project: str = Field(default="understudy", description="a project's name")
    # The time zone of direct messages, and of servers that have chosen none
    time_zone: Annotated[str, AfterValidator(zone_name)] = Field(
        default_factory=lambda: environment_zone(os.environ.get("TZ")),
        description="a time zone's IANA name, such as Europe/Berlin",
    )
    log_level: Annotated[LogLevel, BeforeValidator(str.upper)] = Field(
        default="INFO", description="DEBUG, INFO, WARNING, ERROR"
    )
    # Discord's permission to train on what its API brings: which, given by whom, and when
    discord_permission: Statement = Field(
        default="",
        description=f"a sentence of at least {MIN_STATEMENT_CHARS} letters that says which permission, given by whom, "
        "and when (a date or a year)",
    )
    # Days for which conversations are kept, the data of servers that have removed the bot, and the
    # data of ended training jobs
    history_days: Integer = Field(default=90, ge=1, le=3650)
    guild_days: Integer = Field(default=14, ge=0, le=365)
    job_days: Integer = Field(default=90, ge=1, le=3650)
    # An automatic backup every `backup_hours` (0: none), of which the latest `backup_keep` are kept in
    # `backup_folder` (None: the folder beside the home)
    backup_hours: Integer = Field(default=24, ge=0, le=8760)
    backup_keep: Integer = Field(default=3, ge=1, le=1000)
    backup_folder: UsableFolder | None = Field(
        default=None, description="a folder outside of UNDERSTUDY_HOME, or where one can be made"
    )
    # The operator's texts for messages that speak of self-harm, by language (docs/safety.md)
    safety_texts: Path | None = Field(
        default=None, description="the path of a TOML file with a text for each of some languages"
    )
    # A member's votes between two replies in 24 hours
    comparisons_per_day: Integer = Field(default=20, ge=1, le=1000)

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling of every reply, as far as it is set."""
        sampling = {}
        for name in ("temperature", "top_p", "max_new_tokens"):
            if (value := getattr(self, name)) is not None:
                sampling[name] = value
        return sampling

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments first, then the file; `load_settings` passes the environment as
        arguments.
        """
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        return init_settings, EnvFileSource(settings_cls, dotenv_settings.env_file)

    @model_validator(mode="before")
    @classmethod
    def _drop_blank(cls, values: dict[str, Any]) -> dict[str, Any]:
        filled = {}
        for name, value in values.items():
            if isinstance(value, str):
                value = value.strip()
            if value != "":
                filled[name] = value
        return filled

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        self._check_trainer()
        self._check_teacher()
        self._check_engine()
        self._check_safety_texts()
        self._check_backup_folder()
        if not self.is_local and not self.web_token:
            raise SettingsError(
                f"WEB_HOST is {self.web_host}, which other machines reach, and there is no WEB_TOKEN.",
                "Set one, such as `python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes; or leave "
                "WEB_HOST out.",
            )
        return self

    def _check_engine(self) -> None:
        needs_urls = self.engine == "openai"
        if (needs_urls and not self.engine_urls) or (self.engine == "local" and self.engine_urls):
            raise SettingsError(
                f"ENGINE is {self.engine}, but ENGINE_URLS is {'set' if self.engine_urls else 'empty'}.",
                "Set both, such as ENGINE=openai and ENGINE_URLS=http://127.0.0.1:8001, or leave both out.",
            )
        if self.engine not in ("local", "llamacpp"):
            for name in ("reply_candidates", "max_reply_candidates"):
                if (count := getattr(self, name)) > 1:
                    raise SettingsError(
                        f"{name.upper()}={count} needs the built-in engine or llama.cpp; "
                        f"ENGINE={self.engine} generates one reply per request.",
                        "Leave it out, or leave ENGINE out.",
                    )
        if self.new_tokens_limit < self.max_new_tokens:
            raise SettingsError(
                f"MAX_NEW_TOKENS is {self.max_new_tokens}, NEW_TOKENS_LIMIT only "
                f"{self.new_tokens_limit}.",
                "Lower the one, or raise the other.",
            )
        is_chosen = "reply_candidates" in self.model_fields_set
        if is_chosen and self.reply_candidates > self.max_reply_candidates:
            raise SettingsError(
                f"REPLY_CANDIDATES is {self.reply_candidates}, MAX_REPLY_CANDIDATES only {self.max_reply_candidates}.",
                "Lower the one, or raise the other.",
            )

    @property
    def stated_teacher(self) -> Teacher | None:
        """The model that writes replies from cards, None for the base model itself."""
        return make_teacher(self.teacher, self.teacher_model, licence=self.teacher_licence)

    def _check_teacher(self) -> None:
        try:
            make_teacher(self.teacher, self.teacher_model, licence=self.teacher_licence)
        except UnderstudyError as error:
            raise SettingsError(f"TEACHER: {error.message}", error.advice) from None

    def _check_trainer(self) -> None:
        if self.trainer_wandb and not self.wandb_api_key:
            raise SettingsError(
                "TRAINER_WANDB is on, but there is no WANDB_API_KEY.",
                "Set it too, or leave both out.",
            )
        if self.trainer != "ray":
            # Only TRAINER=ray reads these; other programs may use variables of the same names.
            return
        if not RAY_ADDRESS_PATTERN.fullmatch(self.ray_address):
            raise SettingsError(
                f"TRAINER is ray, and RAY_ADDRESS is {_shown(self.ray_address)}, not the address of Ray's dashboard.",
                "Set it, such as http://head:8265: not the port 6379, nor ray://.",
            )
        if self.shared and not (Path(self.shared).is_absolute() and Path(self.shared).is_dir()):
            raise SettingsError(
                f"SHARED is {self.shared!r}, which is no folder here.",
                "Name a folder, from / on, that this machine and all of Ray's workers mount at the same path.",
            )

    def _check_safety_texts(self) -> None:
        try:
            read_texts(self.safety_texts)
        except UnderstudyError as error:
            raise SettingsError(f"SAFETY_TEXTS: {error.message}", error.advice) from None

    def _check_backup_folder(self) -> None:
        folder = self.backup_folder
        if folder and folder.resolve().is_relative_to(self.home.resolve()):
            raise SettingsError(
                f"BACKUP_FOLDER is {folder}, which is inside UNDERSTUDY_HOME.",
                "Name a folder outside of it, best on another disk: a home cannot contain its own backup.",
            )

    @property
    def wandb(self) -> dict[str, str]:
        """The trainer's environment variables for wandb; empty unless `trainer_wandb` is on."""
        variables = {"WANDB_API_KEY": self.wandb_api_key, "WANDB_PROJECT": self.wandb_project}
        return variables if self.trainer_wandb else {}

    @property
    def trainer_secrets(self) -> dict[str, str]:
        """The secrets in the trainer's environment."""
        return self.wandb | ({TEACHER_KEY: self.teacher_key} if self.teacher_key else {})

    @property
    def engine_hosts(self) -> tuple[str, ...]:
        """The hosts of `engine_urls` that are not this machine."""
        hosts = dict.fromkeys(urlsplit(url).hostname or "" for url in self.engine_urls)
        return tuple(host for host in hosts if host not in (LOOPBACK, "::1", "localhost"))

    @property
    def in_sandbox(self) -> bool:
        """Without a token the bot runs against its own sandbox instead of Discord."""
        return not self.discord_token

    @property
    def is_local(self) -> bool:
        """The web server is reached from this machine alone."""
        return is_loopback(self.web_host)


@dataclass(frozen=True)
class Setting:
    """A setting for documents and errors: its variable, its field, the values it allows, and
    whether it is a secret.
    """

    name: str
    field: str
    allowed: str
    secret: bool


def _describe_setting(field: str, info: FieldInfo) -> Setting:
    limits = {}
    for item in info.metadata:
        for name in ("ge", "le"):
            if hasattr(item, name):
                limits[name] = getattr(item, name)
    allowed = info.description or "a whole number from {ge} to {le}".format(**limits)
    return Setting(
        str(info.validation_alias or field.upper()), field, allowed, secret=not info.repr
    )


SETTINGS = tuple(_describe_setting(field, info) for field, info in Settings.model_fields.items())
SETTINGS_BY_NAME = {setting.name: setting for setting in SETTINGS}
READ_ONLY_WITH = (
    ("engine", "llamacpp vllm openai", "ENGINE_KEY ENGINE_ROWS"),
    ("engine", "llamacpp vllm", "ENGINE_LORAS"),
    ("engine", "vllm", "ENGINE_HOME VLLM_PYTHON"),
    ("engine", "llamacpp openai", "ENGINE_MODEL"),
    ("engine", "llamacpp vllm openai", "VISION"),
    ("trainer", "ray", "RAY_ADDRESS RAY_AUTH_TOKEN SHARED TRAINER_SLOTS TRAINER_GPUS"),
)
"""A setting's field, values of it, and the variables that have an effect with these alone."""
BUILD_VARIABLES = ("EXTRAS", "TORCH_ARGS", "TORCH_ARGS_GPU")
"""What compose.yaml reads in `.env` to build images."""


# ------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class SettingValue:
    """A value as the operator wrote it, and where."""

    text: str
    origin: str


class EnvFileSource(PydanticBaseSettingsSource):
    """Reads `.env` with python-dotenv's parser.

    The source of pydantic-settings does not fit: it drops line numbers, skips broken lines, and
    expands ${…}.
    """

    def __init__(self, settings_cls: type[BaseSettings], path: Any) -> None:
        super().__init__(settings_cls)
        self._values = read_env_file(path)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the field's text (None where the file has none), its key, and False: no text is
        JSON.
        """
        key = str(field.validation_alias or field_name)
        value = self._values.get(key.upper())
        return value.text if value else None, key, False

    def __call__(self) -> dict[str, Any]:
        """Return all texts of the file by field."""
        texts = {}
        for name, field in self.settings_cls.model_fields.items():
            text, key, _ = self.get_field_value(field, name)
            if text is not None:
                texts[key] = text
        return texts


def load_settings(
    env_file: Path | None,
    environ: Mapping[str, str],
    *,
    warns_of_unknown: bool = True,
    warns_of_unread: bool = True,
) -> Settings:
    """Read the settings; the environment wins over the file, and a missing file sets nothing.

    Raises `SettingsError` naming all invalid values at once. An unknown name in the file only logs
    a warning, if `warns_of_unknown`, and so does a setting that nothing reads with the others, if
    `warns_of_unread`.
    """
    given = read_env_file(env_file)
    if warns_of_unknown:
        _warn_of_unknown(given)
    from_environ = {}
    arguments: dict[str, Any] = {"_env_file": env_file}
    for setting in SETTINGS:
        if setting.name in environ:
            from_environ[setting] = environ[setting.name]
            arguments[setting.field] = environ[setting.name]
    try:
        settings = Settings(**arguments)
    except ValidationError as error:
        for setting, text in from_environ.items():
            given[setting.name] = SettingValue(text, "the environment")
        invalid = []
        for details in error.errors(include_input=False):
            if details["type"] != "default_factory_not_called":  # it follows from the others
                invalid.append(_describe_invalid(str(details["loc"][0]), given))
        raise SettingsError(" ".join(invalid), CORRECT_ADVICE) from None
    if warns_of_unread:
        _warn_of_unread(settings, given)
    return settings


def warn_of_settings(settings: Settings, env_file: Path | None) -> None:
    """Log all that nothing reads in the file of these settings. Raises `SettingsError`."""
    given = read_env_file(env_file)
    _warn_of_unknown(given)
    _warn_of_unread(settings, given)


def setting_place(name: str, env_file: Path | None, environ: Mapping[str, str]) -> str:
    """Return a setting's text and where it stands, as errors name them; empty for a default. Raises
    `SettingsError`.
    """
    value = read_env_file(env_file).get(name)
    if name in environ:
        value = SettingValue(environ[name], "the environment")
    return f"{name} is {_shown(value.text)} in {value.origin}" if value and value.text else ""


def read_env_file(path: Path | None) -> dict[str, SettingValue]:
    """Read every assignment of a `.env` file by name; a missing file has none. Raises
    `SettingsError`.
    """
    values = {}
    bindings = _read_bindings(path) if path else []
    for binding in bindings:
        # A binding begins with the blank lines before it.
        text = binding.original.string
        blank_lines = text[: len(text) - len(text.lstrip())].count("\n")
        line = binding.original.line + blank_lines
        if binding.error:
            raise SettingsError(
                f"{path} line {line} cannot be read.", "Write NAME=value, with matching quotes."
            )
        if binding.key is not None:  # a comment or blank lines
            values[binding.key] = SettingValue(binding.value or "", f"{path} line {line}")
    return values


def set_hub_token(settings: Settings) -> None:
    """Put the hub's token of `.env` into the environment, where huggingface_hub and the trainer
    read it.
    """
    if settings.hf_token:
        os.environ["HF_TOKEN"] = settings.hf_token


def _describe_invalid(location: str, values: Mapping[str, SettingValue]) -> str:
    setting = next(each for each in SETTINGS if location in (each.name, each.field))
    shown = "a value (not shown)" if setting.secret else _shown(values[setting.name].text)
    return (
        f"{setting.name} is {shown} in {values[setting.name].origin}; allowed: {setting.allowed}."
    )


def _warn_of_unknown(in_file: Mapping[str, SettingValue]) -> None:
    for name, value in in_file.items():
        if name not in SETTINGS_BY_NAME and name not in BUILD_VARIABLES:
            log.warning("%s: nothing reads %s.%s", value.origin, name, _closest_name(name))


def _warn_of_unread(settings: Settings, in_file: Mapping[str, SettingValue]) -> None:
    for field, values, names in READ_ONLY_WITH:
        chosen = getattr(settings, field)
        if chosen in values.split():
            continue
        for name in names.split():
            value = in_file.get(name)
            if value and value.text:
                setting = f"{field.upper()}={chosen}"
                log.warning("%s: nothing reads %s with %s.", value.origin, name, setting)


def _shown(text: str) -> str:
    return repr(URL_PASSWORD_PATTERN.sub("//…@", text))


def _read_bindings(path: Path) -> list[Binding]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return list(parse_stream(file))
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}.", "Check its rights, or remove it."
        ) from None


def _closest_name(name: str) -> str:
    if name.startswith(("HF_", "HUGGINGFACE_")):
        return " The hub's own settings are read from the environment."
    near = difflib.get_close_matches(name.upper(), SETTINGS_BY_NAME, n=1)
    return f" Did you mean {near[0]}?" if near else ""
