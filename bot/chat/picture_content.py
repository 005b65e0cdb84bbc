"""Tells pictures by their content, and makes them small for a model that sees.

A picture is always written anew: that removes where and with what it was taken.
"""

import io
import logging
import warnings

from personas.schemas.chat import Picture

log = logging.getLogger(__name__)
MAX_PICTURE_BYTES = 8 * 2**20
MAX_PIXELS = 40_000_000
MAX_SIDE_PX = 1024
JPEG_QUALITY = 85
MIXED_MODES = ("RGB", "RGBA", "L", "LA")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


def is_picture(head: bytes) -> bool:
    """Report whether a file begins as a PNG, JPEG, WebP or GIF."""
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")):
        return True
    return head.startswith(b"RIFF") and head[8:12] == b"WEBP"


def shrink_picture(name: str, data: bytes) -> Picture | None:
    """Return a picture as a JPEG of at most `MAX_SIDE_PX` a side, the first of a moving one; None
    if it is damaged, has too many pixels or is no picture.
    """
    from PIL import Image, ImageOps  # loads slowly

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The decoders of no other formats are tried.
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return None
                # Colours from a palette cannot be mixed.
                image = opened if opened.mode in MIXED_MODES else opened.convert("RGBA")
                image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
                turned = ImageOps.exif_transpose(image).convert("RGBA")
        ground = Image.new("RGBA", turned.size, "white")
        ground.alpha_composite(turned)
        written = io.BytesIO()
        ground.convert("RGB").save(written, "JPEG", quality=JPEG_QUALITY)
    except Exception as error:  # a decoder raises whatever a damaged file makes it meet
        log.info("a picture is not read: %s: %s", type(error).__name__, error)
        return None
    return Picture(name, "image/jpeg", written.getvalue())
