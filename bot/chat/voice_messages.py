"""Has the voice messages that members say to personas recognised: their words are their text. Those
that nobody would answer come last, and are heard for words of self-harm; so do those on which the
reply chance did not fall, which are heard for a persona's name.

The sound is in memory while it is recognised, and nowhere else.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import discord

from bot.chat.file_download import FileDownloadError, download
from bot.transcription.audio import MAX_AUDIO_BYTES, MAX_AUDIO_S, is_ogg_opus
from bot.transcription.transcriber import Transcriber, TranscriptionError

log = logging.getLogger(__name__)
TIME_LIMIT_S = 60.0
"""Time in which the words have to be there, with the wait for other voice messages."""
LAST_TIME_LIMIT_S = 300.0
"""The same for those that are refused."""
MAX_AT_ONCE = 8
"""Voice messages that are recognised or wait for it, and as many of those that come last; one a
member.
"""
MAX_LOGGED_PROBLEMS = 100
MAX_SPOKEN_CHARS = 2000
"""Characters of a message that is typed."""


class VoiceMessages:
    """Recognises voice messages, each within its time limit; none without a transcriber."""

    def __init__(self, transcriber: Transcriber | None) -> None:
        self._transcriber = transcriber
        self._members: set[tuple[int, bool]] = set()
        """Whose voice messages are recognised or wait for it, and whether they come last."""
        self._turns: dict[tuple[int, int, bool], asyncio.Event] = {}
        """By channel, member and whether it comes last: set once the voice message is stored."""
        self._problems: set[str] = set()

    @asynccontextmanager
    async def turn(self, message: discord.Message, *, comes_last: bool) -> AsyncIterator[None]:
        """Have later messages of the member in the channel wait until this voice message is stored,
        so that they keep their order; for one that comes last, only the next such one does.
        """
        key = (message.channel.id, message.author.id, comes_last)
        while stored := self._turns.get(key):
            await stored.wait()
        if not self.hears(message):
            yield
            return
        self._turns[key] = asyncio.Event()
        try:
            yield
        finally:
            self._turns.pop(key).set()

    def hears(self, message: discord.Message) -> bool:
        """Report whether a message is a voice message that can be recognised."""
        return self._transcriber is not None and voice_file(message) is not None

    async def words(
        self, message: discord.Message, *, is_refused: bool = False, may_name: bool = False
    ) -> str:
        """Return what a member says in a voice message; empty for other messages, and where it is
        not recognised. One that is refused, or may only name a persona, waits for all others, and
        takes none of their places.
        """
        file = voice_file(message)
        if self._transcriber is None or file is None:
            return ""
        is_last = is_refused or may_name
        limit_s = LAST_TIME_LIMIT_S if is_refused else TIME_LIMIT_S
        member = message.author.id, is_last
        places = sum(comes_last == is_last for _, comes_last in self._members)
        if member in self._members or places >= MAX_AT_ONCE:
            self._log_once("others are being recognised")
            return ""
        self._members.add(member)
        try:
            async with asyncio.timeout(limit_s):
                sound = await _download(file)
                text = await self._transcriber.transcribe(sound, is_last=is_last)
        except TimeoutError:
            self._log_once(f"its words were not there after {limit_s:.0f} s")
        except (FileDownloadError, TranscriptionError) as error:
            self._log_once(str(error))
        else:
            return " ".join(text.split())[:MAX_SPOKEN_CHARS]
        finally:
            self._members.discard(member)
        return ""

    def _log_once(self, problem: str) -> None:
        """Log a problem the first time: it may be the same with each message."""
        if problem not in self._problems and len(self._problems) < MAX_LOGGED_PROBLEMS:
            self._problems.add(problem)
            log.warning("a voice message is not recognised: %s", problem)


def voice_file(message: discord.Message) -> discord.Attachment | None:
    """Return the recording of a voice message. One that is forwarded is not the member's own."""
    for attachment in message.attachments:
        if attachment.is_voice_message():
            return attachment
    return None


async def _download(file: discord.Attachment) -> bytes:
    """Download a recording. Raises `FileDownloadError`."""
    if (file.duration or 0) > MAX_AUDIO_S:
        raise FileDownloadError(f"it is longer than {MAX_AUDIO_S} s")
    data = await download(file.url, _read_limit)
    if not is_ogg_opus(data):
        raise FileDownloadError("it is not Ogg Opus")
    if len(data) > MAX_AUDIO_BYTES:
        raise FileDownloadError(f"it has more than {MAX_AUDIO_BYTES} bytes")
    return data


def _read_limit(head: bytes) -> int:
    """Return how many bytes of a recording are read; one more tells that it is too large."""
    return MAX_AUDIO_BYTES + 1 if is_ogg_opus(head) else 0
