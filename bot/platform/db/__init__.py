"""The SQLite connection and its schema."""
