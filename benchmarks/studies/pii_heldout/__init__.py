"""Held-out texts with labelled personal data, written from how people write (README.md)."""
