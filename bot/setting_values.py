"""The kinds of values that settings have, each with the check of what the operator wrote."""

import ipaddress
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from personas.schemas.chat import MAX_CANDIDATES

LOOPBACK = "127.0.0.1"
MAX_NEW_TOKENS_LIMIT = 4096
MIN_TOKEN_CHARS = 24
MIN_DISTINCT_TOKEN_CHARS = 8
MIN_STATEMENT_CHARS = 20
HOST_NAME_PATTERN = re.compile(
    r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?"
)
BOT_TOKEN_PATTERN = re.compile(r"[\w-]+=*(\.[\w-]+=*){2}", re.ASCII)
INTEGER_PATTERN = re.compile(r"-?[0-9]+")


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches an IP address."""
    return ipaddress.ip_address(address).is_loopback


def _parse_integer(value: object) -> object:
    # `int` accepts digits of any script, underscores and a plus sign.
    if isinstance(value, str) and not INTEGER_PATTERN.fullmatch(value):
        raise ValueError("not a whole number")
    return value


def _parse_number(value: object) -> object:
    if isinstance(value, str) and not value.isascii():
        raise ValueError("not a number")
    return value


def _parse_token(text: str) -> str:
    if not text.isascii() or any(character.isspace() for character in text):
        raise ValueError("not a token")
    return text


def _parse_bot_token(text: str) -> str:
    # The first part is the bot's id, in base 64; what the parts hold is Discord's matter.
    if text and not BOT_TOKEN_PATTERN.fullmatch(text):
        raise ValueError("not a bot's token")
    return text


def _parse_web_token(text: str) -> str:
    is_printable = text.isascii() and text.isprintable() and " " not in text
    if not is_printable or len(text) < MIN_TOKEN_CHARS or len(set(text)) < MIN_DISTINCT_TOKEN_CHARS:
        raise ValueError("a token that can be guessed")
    return text


def _parse_folder(path: Path) -> Path:
    try:
        path = path.expanduser().absolute()
        is_usable = path.is_dir() or not path.exists()
    except (OSError, RuntimeError) as error:  # not readable, or the home of an unknown user
        raise ValueError(str(error)) from error
    if not is_usable:
        raise ValueError("not a folder")
    return path


def _parse_host(text: str) -> str:
    if text.casefold() == "localhost":
        return LOOPBACK
    return str(ipaddress.ip_address(text.strip("[]")))


def _parse_host_names(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(name.strip().casefold().rstrip(".") for name in value.split(","))
    if not all(HOST_NAME_PATTERN.fullmatch(name) for name in names):
        raise ValueError("not host names")
    return names


def _parse_networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(ipaddress.ip_network(network.strip()) for network in value.split(","))


def _parse_server_folder(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("not an absolute path")
    return text.rstrip("/") or "/"


def _parse_statement(text: str) -> str:
    # A mere yes states nothing that anybody could check later.
    if len(text) < MIN_STATEMENT_CHARS or not re.search(r"\b20\d\d\b", text):
        raise ValueError("not a statement")
    return text


Integer = Annotated[int, BeforeValidator(_parse_integer)]
CandidateCount = Annotated[Integer, Field(ge=1, le=MAX_CANDIDATES)]
Number = Annotated[float, BeforeValidator(_parse_number)]
Token = Annotated[str, AfterValidator(_parse_token)]
BotToken = Annotated[str, AfterValidator(_parse_bot_token)]
WebToken = Annotated[str, AfterValidator(_parse_web_token)]
UsableFolder = Annotated[Path, AfterValidator(_parse_folder)]
ServerFolder = Annotated[str, AfterValidator(_parse_server_folder)]
Host = Annotated[str, AfterValidator(_parse_host)]
HostNames = Annotated[tuple[str, ...], BeforeValidator(_parse_host_names)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_parse_networks)]
Statement = Annotated[str, AfterValidator(_parse_statement)]
