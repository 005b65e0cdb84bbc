"""Ogg Opus, the format of voice messages: told by its beginning, and decoded with limits.

Source of the beginning: RFC 3533, section 6, and RFC 7845, section 5.1.
"""

import io
from itertools import chain
from typing import Any

MAX_AUDIO_BYTES = 4 * 2**20
MAX_AUDIO_S = 120
"""Longest voice message that is transcribed."""
SAMPLE_RATE_HZ = 16_000
"""What Whisper hears."""
CODECS = ("opus", "libopus")
PAGE_HEAD_BYTES = 28
"""Length of an Ogg page's head whose data is one packet of less than 255 bytes."""


class AudioError(Exception):
    """A voice message that is not decoded, with the reason as the end of a sentence."""


def is_ogg_opus(head: bytes) -> bool:
    """Report whether a file begins as Ogg Opus."""
    return head.startswith(b"OggS") and head[PAGE_HEAD_BYTES:].startswith(b"OpusHead")


def decode_ogg_opus(data: bytes) -> Any:
    """Decode a voice message to samples from -1 to 1, a float32 array. Raises `AudioError`, also as
    soon as it is longer than `MAX_AUDIO_S`: its length in the file may be a lie.

    For the process that may fail: the decoder is FFmpeg's.
    """
    import av  # with the extra `voice` alone
    import numpy as np

    parts = []
    count = 0
    # No other demuxer and no other decoder of FFmpeg's hundreds gets to see the file.
    options = {"format_whitelist": "ogg", "codec_whitelist": ",".join(CODECS)}
    try:
        with av.open(io.BytesIO(data), format="ogg", options=options) as container:
            stream = container.streams.audio[0]
            # The list above is that of the reader, which looks at the beginning of each stream.
            if stream.codec_context.name not in CODECS:
                raise AudioError("cannot be decoded (it is not Opus)")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
            # None at the end empties the resampler.
            for frame in chain(container.decode(stream), [None]):
                for part in resampler.resample(frame):
                    samples = part.to_ndarray()[0]
                    count += samples.size
                    if count > MAX_AUDIO_S * SAMPLE_RATE_HZ:
                        raise AudioError(f"is longer than {MAX_AUDIO_S} s")
                    parts.append(samples)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise AudioError(f"cannot be decoded ({type(error).__name__})") from error
    if not parts:
        raise AudioError("has no sound")
    return np.concatenate(parts).astype(np.float32) / 32768
