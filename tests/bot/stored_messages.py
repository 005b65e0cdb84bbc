"""What the bot has stored of a guild's messages."""

from bot.chat.store.messages import MESSAGE_COLUMNS, StoredMessage
from bot.store import Store


def guild_messages(store: Store, guild_id: int) -> list[StoredMessage]:
    """All stored messages of a guild, channel by channel, oldest first."""
    sql = f"select {MESSAGE_COLUMNS} from messages where guild_id = :guild order by channel_id, ordinal"
    return store.messages._db.all(StoredMessage, sql, guild=guild_id)
