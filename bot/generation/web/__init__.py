"""The HTTP API and the page of generation settings."""
