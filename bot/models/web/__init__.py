"""The HTTP API and the pages of base models."""
