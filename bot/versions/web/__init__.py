"""The HTTP API and the pages of versions."""
