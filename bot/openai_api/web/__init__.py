"""The HTTP API and the pages of openai_api."""
