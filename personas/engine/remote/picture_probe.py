"""Finds out whether a server takes pictures, by a request with a small one."""

import base64
import logging
from collections.abc import Mapping
from typing import Any

from personas.engine.remote.picture_parts import with_pictures
from personas.engine.remote.server_errors import (
    AdapterNotServedError,
    ReplicaError,
    VllmError,
)
from personas.engine.remote.vllm_client import VllmClient
from personas.schemas.chat import Picture

log = logging.getLogger(__name__)
QUESTION = "What is this?"
MAX_FAILED_PROBES = 2
"""After so many without an answer, a server gets no pictures: they may be what kills it."""
PROBE_PICTURE = Picture(
    "probe.png",
    "image/png",
    # 64 by 64 pixels of one grey: smaller ones are refused by some models.
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAK0lEQVR42u3MMREAAAgEoNfkRjeEmwcBqMlN"
        "RyAQCAQCgUAgEAgEAsHzYAFAdAEArKmlZAAAAABJRU5ErkJggg=="
    ),
)


async def sees_pictures(client: VllmClient, request: Mapping[str, Any]) -> bool:
    """Report whether a server answers `request` with a picture as its message. It is asked once,
    and again after it was away. Raises `ReplicaError` the first time that it does not answer.
    """
    if client.failed_picture_probes >= MAX_FAILED_PROBES:
        return False
    if client.sees_pictures is None:
        asked = with_pictures({"role": "user", "content": QUESTION}, (PROBE_PICTURE,))
        try:
            async for _ in client.generate({**request, "messages": [asked]}):
                pass
        except (VllmError, AdapterNotServedError) as error:
            log.info("%s takes no pictures: %s", client.url, error)
            if isinstance(error, ReplicaError) and error.kind != "failed":
                client.failed_picture_probes += 1
                if client.failed_picture_probes < MAX_FAILED_PROBES:
                    raise  # it may be busy: the next check asks again
            client.sees_pictures = False
        else:
            client.sees_pictures = True
            client.failed_picture_probes = 0
    return client.sees_pictures
