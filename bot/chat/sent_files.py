"""Reads the files that members send, when a reply needs them, and keeps them in memory for a while.

Nothing of their content is stored. After a restart, or when they are no longer in memory, the
message is fetched again for their addresses: Discord's expire after a day.
"""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import discord

from bot.chat.file_content import ReadFile, read_file, read_limit
from bot.chat.file_download import FileDownloadError, download
from bot.chat.message_parts import attachment_name, contents_of

log = logging.getLogger(__name__)
MAX_FILES = 5
"""Files that are read for a reply, the latest; also the messages that are fetched for it."""
MAX_KEPT_BYTES = 64 * 2**20
MAX_KEPT_MESSAGES = 1000
KEPT_S = 1800.0
"""Time for which the files of a message stay in memory after it was last read."""
LOOK_UP_TIMEOUT_S = 1.0
UNREACHED = "could not be read"
"""The problem of a file that is tried again for the next reply."""
UNREAD_TYPES = ("video/", "audio/")
BLIND_UNREAD_TYPES = (*UNREAD_TYPES, "image/")
"""Beginnings of the media types that Discord names of files which are not even begun to be read:
without a model that sees, pictures too.
"""
NAMED_FILE_PATTERN = re.compile(r"\[a (?:file|picture): ")
"""How `bot.chat.message_parts` names files in a message's text."""


@dataclass(frozen=True)
class FileAddress:
    """A file of a message, and where Discord keeps it."""

    file_id: int
    name: str
    size_bytes: int
    url: str
    media_type: str


@dataclass
class MessageFiles:
    """The files of a message, and those that have been read, by id."""

    addresses: tuple[FileAddress, ...]
    read: dict[int, ReadFile] = field(default_factory=dict)
    used_at: float = 0.0

    @property
    def kept_bytes(self) -> int:
        return sum(file.kept_bytes for file in self.read.values())


class SentFiles:
    """The files of recent messages, by the messages' ids."""

    def __init__(
        self,
        client: discord.Client | None,
        sees_pictures: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sees_pictures` says whether the engine's model sees them; else none is read."""
        self._client = client
        self._sees_pictures = sees_pictures
        self._clock = clock
        self._messages: OrderedDict[int, MessageFiles] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        # A picture takes far more memory while it is decoded: one at a time.
        self._reading = asyncio.Lock()

    def note(self, message: discord.Message) -> None:
        """Note which files a message has now; those that an edit removed are dropped."""
        addresses = _addresses_in(message)
        before = self._messages.pop(message.id, None)
        if addresses:
            self._keep(message.id, addresses, before)

    def _keep(
        self, message_id: int, addresses: list[FileAddress], before: MessageFiles | None = None
    ) -> None:
        read = {}
        if before:
            ids = {address.file_id for address in addresses}
            read = {file_id: file for file_id, file in before.read.items() if file_id in ids}
        self._messages[message_id] = MessageFiles(tuple(addresses), read, self._clock())
        self._make_room()

    def forget(self, message_ids: Iterable[int]) -> None:
        """Drop the files of messages that are gone."""
        for message_id in message_ids:
            self._messages.pop(message_id, None)

    def known(self, message_id: int | None) -> list[ReadFile]:
        """Return the files of a message that have been read, and are still in memory."""
        self._drop_old()
        files = self._messages.get(message_id or 0)
        if files is None:
            return []
        ids = [address.file_id for address in files.addresses]
        return [files.read[file_id] for file_id in ids if file_id in files.read]

    async def read(self, channel_id: int, texts: Mapping[int, str]) -> bool:
        """Read the files of messages of a channel, with the texts that name them; the latest
        message comes first. False where they have none.
        """
        self._drop_old()
        named = [key for key, text in texts.items() if NAMED_FILE_PATTERN.search(text)]
        unknown = [message_id for message_id in named if message_id not in self._messages]
        look_ups = [self._look_up(channel_id, message_id) for message_id in unknown[:MAX_FILES]]
        await asyncio.gather(*look_ups)
        wanted = list[tuple[int, FileAddress]]()
        for message_id in named:
            if files := self._messages.get(message_id):
                wanted += [(message_id, address) for address in files.addresses]
        reads = [self._read(message_id, address) for message_id, address in wanted[:MAX_FILES]]
        await asyncio.gather(*reads)
        self._make_room()
        return bool(wanted)

    async def _look_up(self, channel_id: int, message_id: int) -> None:
        """Fetch a message for its files. One that only has words like their names is kept without
        any, so that it is not fetched for each reply.
        """
        if self._client is None:
            return
        place = self._client.get_partial_messageable(channel_id)
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                message = await place.fetch_message(message_id)
        except (discord.DiscordException, aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("the files of a message are not found: %s", error)
        else:
            self._keep(message_id, _addresses_in(message))

    @property
    def are_pictures_seen(self) -> bool:
        """The engine's model sees pictures now: another one may stand in for it."""
        return self._sees_pictures()

    async def _read(self, message_id: int, address: FileAddress) -> None:
        files = self._messages.get(message_id)
        if files is None:
            return
        files.used_at = self._clock()
        self._messages.move_to_end(message_id)
        known = files.read.get(address.file_id)
        if known and known.problem != UNREACHED:
            return
        sees = self._sees_pictures()
        if address.media_type.startswith(UNREAD_TYPES if sees else BLIND_UNREAD_TYPES):
            return
        try:
            data = await download(address.url, partial(read_limit, sees_pictures=sees))
            async with self._reading:
                file = await asyncio.to_thread(
                    read_file, address.name, address.size_bytes, data, sees_pictures=sees
                )
        except FileDownloadError as error:
            log.info("a file of a message is not read: %s", error)
            file = ReadFile(address.name, address.size_bytes, problem=UNREACHED)
        # The message may have been edited or deleted meanwhile: nobody sees this object then.
        files.read[address.file_id] = file

    def _drop_old(self) -> None:
        oldest = self._clock() - KEPT_S
        while self._messages and next(iter(self._messages.values())).used_at < oldest:
            self._messages.popitem(last=False)

    def _make_room(self) -> None:
        self._drop_old()
        kept_bytes = sum(files.kept_bytes for files in self._messages.values())
        while kept_bytes > MAX_KEPT_BYTES or len(self._messages) > MAX_KEPT_MESSAGES:
            _, dropped = self._messages.popitem(last=False)
            kept_bytes -= dropped.kept_bytes
        # Where nothing more is read, nothing else would drop the last ones.
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(KEPT_S, self._messages.clear)


def _addresses_in(message: discord.Message) -> list[FileAddress]:
    addresses = []
    for content in contents_of(message):
        for attachment in content.attachments:
            if not attachment.is_voice_message():
                addresses.append(_address(attachment))
    return addresses


def _address(attachment: discord.Attachment) -> FileAddress:
    return FileAddress(
        attachment.id,
        name=attachment_name(attachment),
        size_bytes=attachment.size,
        url=attachment.url,
        media_type=attachment.content_type or "",
    )
