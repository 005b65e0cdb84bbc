"""The log of `python -m bot`, on standard error."""

import logging
import re

from bot.platform.errors import shorten_connection_log
from bot.settings import Settings

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
CONTROL_PATTERN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
RECONNECTING_LOGGERS = "discord.client", "discord.shard", "discord.gateway"


class OneLineFormatter(logging.Formatter):
    """Escapes control characters in messages, so that no text from outside can write a line of its
    own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = CONTROL_PATTERN.sub(lambda sign: ascii(sign[0])[1:-1], record.message)
        return super().formatMessage(record)


def set_up_logging(settings: Settings) -> None:
    """Log to standard error; other packages from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLineFormatter(LOG_FORMAT, LOG_TIME_FORMAT))
    logging.basicConfig(handlers=[handler])
    for package in ("bot", "personas", "sandbox"):
        logging.getLogger(package).setLevel(settings.log_level)
    for name in RECONNECTING_LOGGERS:
        logging.getLogger(name).addFilter(shorten_connection_log)
    # It recommends kernels that are not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
