"""Requests that are none: aiohttp answers them with 400, and would log each as an error of ours, with a traceback."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

log = logging.getLogger(__name__)

LONGEST_TOLD = 200


def client_mistakes(record: logging.LogRecord) -> bool:
    """A filter for the server's log: keeps errors of its own, and tells others in a line to whoever looks for them."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return True
    log.debug("%s: %s", record.getMessage(), ascii(" ".join(str(error).split()))[:LONGEST_TOLD])
    return False
