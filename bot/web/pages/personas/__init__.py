"""Pages of personas: cards, lore and versions."""
