"""Checks of this machine: what it can train, what is wrong, and how to fix it."""
