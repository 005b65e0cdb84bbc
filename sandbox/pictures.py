"""Pictures that a bot uploads: data URIs with base64."""

import base64
import binascii
import re

from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import ApiError

DATA_URI = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,(.+)", re.DOTALL)


def read_picture(uri: str | None) -> StoredFile | None:
    """Return the picture of the field `avatar`; None takes the present one away. Raises ApiError
    50035.
    """
    if uri is None:
        return None
    invalid = ApiError.field("avatar", "IMAGE_INVALID", "Invalid image data")
    match = DATA_URI.fullmatch(uri)
    if not match:
        raise invalid
    try:
        data = base64.b64decode(match[2], validate=True)
    except binascii.Error:
        raise invalid from None
    if not data:
        raise invalid
    return StoredFile("avatar", match[1], data)
