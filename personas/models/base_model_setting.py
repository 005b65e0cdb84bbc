"""The base model that an operator names: BASE_MODEL of the bot, an option of commands."""

from personas.cli_common import read_setting
from personas.models.base_model import EMBEDDED


def base_model_name(named: str = "") -> str:
    """Return the base model that a command names, else that of the settings, as the bot has it."""
    return named or read_setting("BASE_MODEL") or EMBEDDED
