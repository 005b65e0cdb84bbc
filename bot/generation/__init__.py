"""Length, sampling and context of replies, by persona and channel."""
