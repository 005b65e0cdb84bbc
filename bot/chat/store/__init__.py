"""Messages, replies and votes in the database."""
