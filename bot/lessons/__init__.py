"""Replies written for a persona to learn from."""
