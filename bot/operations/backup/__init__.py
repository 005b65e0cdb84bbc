"""Backup of a home into one file, and its restoration."""
