"""Versions of personas: which one is live, and how that is decided."""
