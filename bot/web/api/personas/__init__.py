"""The HTTP API of personas: cards, lore and versions."""
