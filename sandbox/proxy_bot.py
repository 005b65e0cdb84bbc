"""A bot of another application that posts members' messages again under other names, as PluralKit
does.
"""

from collections.abc import Sequence

from sandbox import payloads
from sandbox.channel_messages import MessageDraft
from sandbox.channel_types import THREAD_CHANNEL
from sandbox.container import SandboxContainer
from sandbox.object_store import StoredFile
from sandbox.sandbox_errors import Json

WEBHOOK_NAME = "Proxy"


class ProxyBot:
    """Copies messages through a webhook of its own; `delete` then removes the originals, as a rule
    right after.
    """

    def __init__(self, container: SandboxContainer) -> None:
        self._container = container
        self._user = payloads.user(container.store.new_id(), "Proxy", bot=True)

    def copy(
        self,
        message: Json,
        name: str,
        content: str | None = None,
        embeds: Sequence[Json] = (),
        files: Sequence[StoredFile] = (),
    ) -> Json:
        """Post a message again as `name`; with the given text, else its own, and with embeds and
        files.
        """
        webhooks = self._container.webhooks
        guild = self._container.guild
        channel = guild.channel(message["channel_id"])
        is_thread = channel["type"] == THREAD_CHANNEL
        home_id = channel["parent_id"] if is_thread else channel["id"]
        for hook in webhooks.of_channel(home_id):
            if hook["user"]["id"] == self._user["id"]:
                break
        else:
            hook = webhooks.create(home_id, {"name": WEBHOOK_NAME}, self._user)
        text = message["content"] if content is None else content
        draft = MessageDraft(
            {"content": text, "username": name, "embeds": list(embeds)}, tuple(files)
        )
        return webhooks.execute(hook, channel["id"], draft)

    def delete(self, message: Json) -> None:
        """Delete an original."""
        self._container.messages.delete(message["id"])
