"""Character cards: TOML cards of this project, and V1, V2 and V3 cards in JSON, PNG and CHARX."""
